"""Choosing settings on pretend-unseen classes, without a look at a test picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import planted

from ayeaye.classifier import hubs
from ayeaye.core.errors import DataError
from ayeaye.pipeline import selection
from ayeaye.pipeline.blending import Candidate
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds

RIDGE = [Candidate("ridge")]


@pytest.mark.parametrize("mapper", ["ridge", "drop_last"])
def test_test_pictures_do_not_matter(mapper: str) -> None:
    data = planted()
    folds = class_folds(data.pool, 3)
    chosen = selection.select([Candidate(mapper)], data, folds)
    X = data.X.copy()
    X[data.rows("test_seen", "test_unseen")] = 1e3
    spoiled = Examples(X, data.y, data.split, data.ids, data.A, data.seen, data.pool, data.names)
    assert selection.select([Candidate(mapper)], spoiled, folds) == chosen


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


def test_the_offset_is_for_as_many_unseen_classes_as_there_are() -> None:
    data = planted(classes=24, unseen=4)
    noisy = replace(data, X=data.X + np.random.default_rng(0).normal(size=data.X.shape).astype(np.float32))
    folds = class_folds(noisy.pool, 2)  # of ten classes each
    offsets = [selection.select(RIDGE, noisy, folds, unseen=count).gamma for count in (2, 4, 10, 40)]
    assert offsets == sorted(offsets, reverse=True) and offsets[0] > offsets[-1] + 0.02
    chosen = selection.select(RIDGE, noisy, folds)
    assert chosen.gamma == offsets[1]
    assert chosen.H_regret is not None and 0 <= chosen.H_regret < 1
