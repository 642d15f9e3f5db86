"""Choosing settings on pretend-unseen classes, without a look at a test picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import planted

from ayeaye.errors import DataError
from ayeaye.labelling import hubs
from ayeaye.mapping import AUTO, MAPPERS, create
from ayeaye.pipeline import selection
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds, hold_out
from ayeaye.pipeline.selection import Family

RIDGE = [Family("ridge")]


@pytest.mark.parametrize("mapper", ["ridge", "drop_last"])
def test_test_pictures_do_not_matter(mapper: str) -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    chosen = selection.select([Family(mapper)], data, folds)
    X = data.X.copy()
    X[data.rows("test_seen", "test_unseen")] = 1e3
    spoiled = Examples(X, data.y, data.split, data.ids, data.A, data.seen, data.pool, data.names)
    assert selection.select([Family(mapper)], spoiled, folds) == chosen


def test_the_most_regular_of_equally_good_settings_wins() -> None:
    figures = [
        {"score": 0.30, "score_error": 0.02},
        {"score": 0.39, "score_error": 0.05},
        {"score": 0.40, "score_error": 0.02},
    ]
    assert selection.most_regular(figures) == 1
    assert selection.most_regular([{**each, "score_error": 0.0} for each in figures]) == 2


def test_a_planted_map_is_found_and_its_ranking_tells_the_spread() -> None:
    data = planted()
    chosen = selection.select(RIDGE, data, class_folds(data.pool, 3))
    assert chosen.ranking[0]["settings"] == chosen.settings
    assert chosen.ranking[0]["T1"] > 0.9
    assert all(row["AUSUC_spread"] >= 0 for row in chosen.ranking)


def test_without_held_out_seen_pictures_T1_decides() -> None:  # noqa: N802
    data = planted()
    split = np.where(data.split == "validation", "train", data.split)
    bare = Examples(data.X, data.y, split, data.ids, data.A, data.seen, data.pool, data.names)
    chosen = selection.select(RIDGE, bare, class_folds(bare.pool, 3))
    assert chosen.gamma == 0.0
    assert chosen.ranking[0]["AUSUC"] is None
    assert chosen.ranking[0]["T1"] > 0.9


def test_auto_takes_no_correction_that_does_not_gain() -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    chosen = selection.select(RIDGE, data, folds, correction="auto")
    tried = {each["hubs"] for each in chosen.corrections}
    assert tried == set(hubs.KINDS)
    assert chosen.corrections[0] == {"hubs": "none", "settings": {}, "gain": 0.0, "gain_error": 0.0}
    taken = next(each for each in chosen.corrections if each["settings"] == chosen.hub_settings)
    assert chosen.hubs == "none" or taken["gain"] > taken["gain_error"]


@pytest.mark.parametrize("kind", hubs.KINDS)
def test_a_correction_that_is_asked_for_is_taken_with_an_offset_of_its_own(kind: str) -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    chosen = selection.select(RIDGE, data, folds, correction=kind)
    assert chosen.hubs == kind
    assert chosen.hub_settings in hubs.GRIDS[kind]
    correction = chosen.correct(data, data.seen, np.arange(len(data.names)), seed=0, device="cpu")
    assert (correction.kind, correction.settings) == (kind, chosen.hub_settings)


@pytest.mark.parametrize("kind", ["csls", "auto"])
def test_a_correction_looks_at_no_test_picture(kind: str) -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    X = data.X.copy()
    X[data.rows("test_seen", "test_unseen")] = 1e3
    spoiled = Examples(X, data.y, data.split, data.ids, data.A, data.seen, data.pool, data.names)
    one, other = (
        selection.select(RIDGE, each, folds, correction=kind, false_accept=0.3) for each in (data, spoiled)
    )
    assert one == other
    statistics = [
        one.correct(each, data.seen, np.arange(len(data.names)), seed=0, device="cpu").statistic
        for each in (data, spoiled)
    ]
    np.testing.assert_array_equal(*statistics)


def test_without_a_bank_auto_corrects_nothing_and_a_kind_is_refused() -> None:
    data = planted()
    split = np.where(data.split == "validation", "train", data.split)
    bare = Examples(data.X, data.y, split, data.ids, data.A, data.seen, data.pool, data.names)
    folds = class_folds(bare.pool, 3)
    assert selection.select(RIDGE, bare, folds, correction="auto").hubs == "none"
    with pytest.raises(DataError, match=r"validation_share.*train\.hubs"):
        selection.select(RIDGE, bare, folds, correction="csls")


def test_a_lower_false_accept_rate_makes_a_higher_threshold() -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    thresholds = [
        selection.select(RIDGE, data, folds, false_accept=rate).threshold for rate in (1.0, 0.5, 0.1)
    ]
    assert thresholds[0] == 0.0
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


def two_sources() -> Examples:
    """The class vectors of `planted` beside others that say little of the pictures."""
    data = planted(classes=30, unseen=6)
    wrong = np.random.default_rng(1).normal(size=data.A.shape).astype(np.float32)
    A = np.hstack([data.A, wrong]) / np.sqrt(2)
    return replace(data, A=A, sources={"told": (0, 6), "guessed": (6, 12)})


def test_what_there_is_to_choose_among() -> None:
    alone, several = planted(), two_sources()
    assert selection.families(None, alone) == [Family(name) for name in AUTO]
    assert selection.families("ridge", several) == [
        Family("ridge"),
        Family("ridge", "told"),
        Family("ridge", "guessed"),
    ]
    assert selection.families("drop_last", several) == [Family("drop_last")]
    assert selection.families(["ridge", "rank"], several, weighted=True) == [Family("ridge"), Family("rank")]


def test_a_source_that_says_nothing_gets_next_to_no_weight() -> None:
    data = two_sources()
    folds = class_folds(data.pool, 3, repeats=2)
    chosen = selection.select(selection.families("ridge", data), data, folds)
    equal = selection.select(RIDGE, data, folds)
    weight = {tuple(each.get("columns", ())): each["weight"] for each in chosen.settings["members"]}
    assert weight[0, 6] >= 0.5
    assert chosen.ranking[0]["AUSUC"] > equal.ranking[0]["AUSUC"] + 0.05


def test_without_tuning_a_mapper_keeps_its_defaults() -> None:
    data = planted()
    chosen = selection.select(RIDGE, data, class_folds(data.pool, 3), tuned=False)
    assert (chosen.mapper, chosen.settings) == ("ridge", MAPPERS["ridge"].defaults())
    assert len(chosen.ranking) == 1


def test_a_blend_of_folds_scores_as_the_mapper_it_becomes() -> None:
    data = two_sources()
    (fold,) = class_folds(data.pool, 3)[:1]
    held = hold_out(data, fold, data.seen)
    members = [{"mapper": "ridge", "columns": [0, 6]}, {"mapper": "eszsl"}]
    library = [[selection.part_of(held, member, 0, "cpu")] for member in members]
    (mixed,) = selection.mixed(library, np.array([0.75, 0.25]))
    weighted = [{**member, "weight": weight} for member, weight in zip(members, (0.75, 0.25), strict=True)]
    whole = held.score(create("blend", members=weighted), 0, "cpu")
    np.testing.assert_allclose(mixed.scores, whole.scores, atol=1e-5)


def test_members_join_only_while_they_gain() -> None:
    data = planted()
    held = [hold_out(data, fold, data.seen) for fold in class_folds(data.pool, 3, repeats=2)]
    members = [{"mapper": "ridge"}, {"mapper": "ridge"}, {"mapper": "sae"}]
    library = [[selection.part_of(each, member, 0, "cpu") for each in held] for member in members]
    path = selection.blends(library[:2])
    assert len(path) == 1
    scores = [
        np.mean([selection.decisive(fold) for fold in selection.mixed(library, weights)])
        for weights in selection.blends(library)
    ]
    assert scores == sorted(scores)


def test_settings_far_behind_leave_the_race_and_the_ranking_says_when() -> None:
    data = planted(classes=24, unseen=4)
    folds = class_folds(data.pool, 3, repeats=3)
    race = selection.Race(Family("ridge"), data)
    for fold in folds:
        race.run(hold_out(data, fold, data.seen), 0, "cpu")
    assert len(race.running) < len(race.grid)
    tried = {len(figures) for figures in race.figures}
    assert max(tried) == len(folds)
    assert min(tried) in (3, 6)
    assert race.chosen in race.running
