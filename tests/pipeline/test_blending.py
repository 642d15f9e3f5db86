"""Which mappers, settings and sources are taken, and with what weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import planted

from ayeaye.mappers import AUTO, MAPPERS, create
from ayeaye.mappers.ridge import Ridge
from ayeaye.pipeline import blending
from ayeaye.pipeline.blending import Candidate
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds, hold_out

RIDGE = [Candidate("ridge")]


def test_the_most_regular_of_equally_good_settings_wins() -> None:
    hard, easy = 0.2, 0.6
    best = np.array([hard, easy, hard, easy])
    noise = np.array([0.03, -0.01, 0.02, -0.03])
    worse = best - 0.02
    assert blending.most_regular(np.stack([worse, best - 0.005 + noise, best])) == 1
    assert blending.most_regular(np.stack([worse, worse - 0.1, best])) == 2


def two_sources() -> Examples:
    """The class vectors of `planted` beside others that say little of the pictures."""
    data = planted(classes=30, unseen=6)
    wrong = np.random.default_rng(1).normal(size=data.A.shape).astype(np.float32)
    A = np.hstack([data.A, wrong]) / np.sqrt(2)
    return replace(data, A=A, sources={"told": (0, 6), "guessed": (6, 12)})


def test_what_there_is_to_choose_among() -> None:
    alone, several = planted(), two_sources()
    assert blending.families(None, alone) == [Candidate(name, None, fixed) for name, fixed in AUTO]
    assert blending.families("ridge", several) == [
        Candidate("ridge"),
        Candidate("ridge", "told"),
        Candidate("ridge", "guessed"),
    ]
    assert blending.families("drop_last", several) == [Candidate("drop_last")]
    assert blending.families(["ridge", "rank"], several, weighted=True) == [
        Candidate("ridge"),
        Candidate("rank"),
    ]


def test_a_source_that_says_nothing_gets_next_to_no_weight() -> None:
    data = two_sources()
    folds = class_folds(data.pool, 3, repeats=2)
    chosen = blending.blended(blending.families("ridge", data), data, folds)
    equal = blending.blended(RIDGE, data, folds)
    weight = {tuple(each.get("columns", ())): each["weight"] for each in chosen.settings["members"]}
    assert weight[0, 6] >= 0.5
    assert chosen.ranking[0]["AUSUC"] > equal.ranking[0]["AUSUC"] + 0.05


def test_settings_that_are_not_tuned_leave_the_others_to_be() -> None:
    data = planted()
    devise = blending.SuccessiveElimination(Candidate("rank", fixed={"loss": "devise"}), data).grid
    assert devise == [each for each in MAPPERS["rank"].grid() if each["loss"] == "devise"]
    images = blending.SuccessiveElimination(Candidate("eszsl", fixed={"space": "images"}), data).grid
    assert images == [{**each, "space": "images"} for each in MAPPERS["eszsl"].grid()]
    (wide,) = blending.SuccessiveElimination(Candidate("prototype", fixed={"hidden": 2048}), data).grid
    assert wide == {"hidden": 2048}
    (untuned,) = blending.SuccessiveElimination(
        Candidate("eszsl", fixed={"space": "images"}), data, tuned=False
    ).grid
    assert untuned == {**MAPPERS["eszsl"].defaults(), "space": "images"}


def test_without_tuning_a_mapper_keeps_its_defaults() -> None:
    data = planted()
    chosen = blending.blended(RIDGE, data, class_folds(data.pool, 3), tuned=False)
    assert (chosen.mapper, chosen.settings) == ("ridge", MAPPERS["ridge"].defaults())
    assert len(chosen.ranking) == 1


def test_a_mapper_with_one_setting_is_fitted_once_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    fit = Ridge.fit

    def counted(self: Ridge, *arrays: np.ndarray, **options: Any) -> Ridge:
        fits.append(self.settings)
        return fit(self, *arrays, **options)

    monkeypatch.setattr(Ridge, "fit", counted)
    data = planted()
    steps = []
    among = [Candidate("ridge"), Candidate("ridge", fixed={"kernel": "gaussian"})]
    chosen = blending.blended(
        among, data, class_folds(data.pool, 3), tuned=False, progress=lambda *done: steps.append(done)
    )
    assert len(fits) == 6
    assert steps == [(done, 6) for done in range(1, 7)]
    singles = [row for row in chosen.ranking if row["mapper"] == "ridge"]
    assert len(singles) == 2 and all(row["folds"] == 3 for row in singles)


def test_a_blend_of_folds_scores_as_the_mapper_it_becomes() -> None:
    data = two_sources()
    (fold,) = class_folds(data.pool, 3)[:1]
    held = hold_out(data, fold, data.seen)
    members = [{"mapper": "ridge", "columns": [0, 6]}, {"mapper": "eszsl"}]
    library = [[blending.part_of(held, member, 0, "cpu")] for member in members]
    (mixed,) = blending.mixed(library, np.array([0.75, 0.25]))
    weighted = [{**member, "weight": weight} for member, weight in zip(members, (0.75, 0.25), strict=True)]
    whole = held.score(create("blend", members=weighted), 0, "cpu")
    np.testing.assert_allclose(mixed.scores, whole.scores, atol=1e-5)


def test_members_join_only_while_they_gain() -> None:
    data = planted()
    held = [hold_out(data, fold, data.seen) for fold in class_folds(data.pool, 3, repeats=2)]
    members = [{"mapper": "ridge"}, {"mapper": "ridge"}, {"mapper": "sae"}]
    library = [[blending.part_of(each, member, 0, "cpu") for each in held] for member in members]
    path = blending.blends(library[:2])
    assert len(path) == 1
    scores = [
        np.mean([blending.decisive(fold) for fold in blending.mixed(library, weights)])
        for weights in blending.blends(library)
    ]
    assert scores == sorted(scores)


def test_settings_far_behind_leave_the_race_and_the_ranking_says_when() -> None:
    data = planted(classes=24, unseen=4)
    folds = class_folds(data.pool, 3, repeats=3)
    race = blending.SuccessiveElimination(Candidate("ridge"), data)
    for fold in folds:
        race.run(hold_out(data, fold, data.seen), 0, "cpu")
    assert len(race.running) < len(race.grid)
    tried = {len(figures) for figures in race.figures}
    assert max(tried) == len(folds)
    assert min(tried) in (3, 6)
    assert race.chosen in race.running
