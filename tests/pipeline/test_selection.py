"""Choosing settings on pretend-unseen classes, without a look at a test picture."""

from __future__ import annotations

import numpy as np
import pytest

from ayeaye.errors import DataError
from ayeaye.labelling import hubs
from ayeaye.pipeline import selection
from ayeaye.pipeline.examples import Examples

SPLITS = np.array(["train", "train", "train", "validation", "test_seen"])


def planted(classes: int = 16, unseen: int = 4, each: int = 10, seed: int = 0) -> Examples:
    """Embeddings that are a linear map of the class vectors, and noise."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(classes, 6)).astype(np.float32)
    A = A - A.mean(axis=0)
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    y = np.repeat(np.arange(classes), each)
    X = A[y] @ rng.normal(size=(6, 20)).astype(np.float32)
    X = (X + 0.1 * rng.normal(size=X.shape)).astype(np.float32)
    seen = np.arange(classes) < classes - unseen
    split = np.where(seen[y], np.tile(SPLITS, classes * each // len(SPLITS)), "test_unseen")
    ids = np.array([f"{row:03d}" for row in range(len(y))])
    return Examples(X, y, split, ids, A, seen, seen, [f"class {c}" for c in range(classes)])


def test_folds_part_the_pool_and_nothing_else() -> None:
    pool = np.array([True, False, True, True, True, False, True])
    folds = selection.class_folds(pool, 3)
    assert np.array_equal(np.sum(folds, axis=0), pool.astype(int))
    assert {int(fold.sum()) for fold in folds} == {1, 2}


def test_repeated_folds_part_the_pool_anew_each_time() -> None:
    pool = np.arange(20) % 5 > 0
    folds = selection.class_folds(pool, 4, repeats=3)
    assert len(folds) == 12
    for start in (0, 4, 8):
        assert np.array_equal(np.sum(folds[start : start + 4], axis=0), pool.astype(int))
    assert len({fold.tobytes() for fold in folds}) == 12


def test_one_class_cannot_stand_in() -> None:
    with pytest.raises(DataError, match="at least 2 are needed"):
        selection.class_folds(np.array([True, False]), 4)


@pytest.mark.parametrize("mapper", ["ridge", "drop_last"])
def test_test_pictures_do_not_matter(mapper: str) -> None:
    data = planted()
    folds = selection.class_folds(data.pool, 3)
    chosen = selection.select(mapper, data, folds)
    X = data.X.copy()
    X[data.rows("test_seen", "test_unseen")] = 1e3
    spoiled = Examples(X, data.y, data.split, data.ids, data.A, data.seen, data.pool, data.names)
    assert selection.select(mapper, spoiled, folds) == chosen


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
    chosen = selection.select("ridge", data, selection.class_folds(data.pool, 3))
    assert chosen.ranking[0]["settings"] == chosen.settings
    assert chosen.ranking[0]["T1"] > 0.9
    assert all(row["AUSUC_spread"] >= 0 for row in chosen.ranking)


def test_without_held_out_seen_pictures_T1_decides() -> None:  # noqa: N802
    data = planted()
    split = np.where(data.split == "validation", "train", data.split)
    bare = Examples(data.X, data.y, split, data.ids, data.A, data.seen, data.pool, data.names)
    chosen = selection.select("ridge", bare, selection.class_folds(bare.pool, 3))
    assert chosen.gamma == 0.0
    assert chosen.ranking[0]["AUSUC"] is None
    assert chosen.ranking[0]["T1"] > 0.9


def test_a_fold_is_not_fitted_on_its_own_classes() -> None:
    data = planted()
    fold = selection.class_folds(data.pool, 3)[0]
    held = selection.hold_out(data, fold, data.seen)
    assert not fold[held.y_fit].any()
    assert set(data.split[held.rows]) <= {"train", "validation"}
    assert set(data.split[held.rows][~fold[data.y[held.rows]]]) == {"validation"}


def test_auto_takes_no_correction_that_does_not_gain() -> None:
    data = planted()
    folds = selection.class_folds(data.pool, 3)
    chosen = selection.select("ridge", data, folds, correction="auto")
    tried = {each["hubs"] for each in chosen.corrections}
    assert tried == set(hubs.KINDS)
    assert chosen.corrections[0] == {"hubs": "none", "settings": {}, "gain": 0.0, "gain_error": 0.0}
    taken = next(each for each in chosen.corrections if each["settings"] == chosen.hub_settings)
    assert chosen.hubs == "none" or taken["gain"] > taken["gain_error"]


@pytest.mark.parametrize("kind", hubs.KINDS)
def test_a_correction_that_is_asked_for_is_taken_with_an_offset_of_its_own(kind: str) -> None:
    data = planted()
    folds = selection.class_folds(data.pool, 3)
    chosen = selection.select("ridge", data, folds, correction=kind)
    assert chosen.hubs == kind
    assert chosen.hub_settings in hubs.GRIDS[kind]
    correction = chosen.correct(data, data.seen, np.arange(len(data.names)), seed=0, device="cpu")
    assert (correction.kind, correction.settings) == (kind, chosen.hub_settings)


@pytest.mark.parametrize("kind", ["csls", "auto"])
def test_a_correction_looks_at_no_test_picture(kind: str) -> None:
    data = planted()
    folds = selection.class_folds(data.pool, 3)
    X = data.X.copy()
    X[data.rows("test_seen", "test_unseen")] = 1e3
    spoiled = Examples(X, data.y, data.split, data.ids, data.A, data.seen, data.pool, data.names)
    one, other = (
        selection.select("ridge", each, folds, correction=kind, false_accept=0.3) for each in (data, spoiled)
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
    folds = selection.class_folds(bare.pool, 3)
    assert selection.select("ridge", bare, folds, correction="auto").hubs == "none"
    with pytest.raises(DataError, match=r"validation_share.*train\.hubs"):
        selection.select("ridge", bare, folds, correction="csls")


def test_a_lower_false_accept_rate_makes_a_higher_threshold() -> None:
    data = planted()
    folds = selection.class_folds(data.pool, 3)
    thresholds = [
        selection.select("ridge", data, folds, false_accept=rate).threshold for rate in (1.0, 0.5, 0.1)
    ]
    assert thresholds[0] == 0.0
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]
