"""Folds of classes that stand in for unseen ones."""

from __future__ import annotations

import numpy as np
import pytest
from planted import planted

from ayeaye.core.errors import DataError
from ayeaye.pipeline.folds import class_folds, hold_out


def test_folds_part_the_pool_and_nothing_else() -> None:
    pool = np.array([True, False, True, True, True, False, True])
    folds = class_folds(pool, 3)
    assert np.array_equal(np.sum(folds, axis=0), pool.astype(int))
    assert {int(fold.sum()) for fold in folds} == {1, 2}


def test_repeated_folds_part_the_pool_anew_each_time() -> None:
    pool = np.arange(20) % 5 > 0
    folds = class_folds(pool, 4, repeats=3)
    assert len(folds) == 12
    for start in (0, 4, 8):
        assert np.array_equal(np.sum(folds[start : start + 4], axis=0), pool.astype(int))
    assert len({fold.tobytes() for fold in folds}) == 12


def test_one_class_cannot_stand_in() -> None:
    with pytest.raises(DataError, match="at least 2 are needed"):
        class_folds(np.array([True, False]), 4)


def test_a_fold_is_not_fitted_on_its_own_classes() -> None:
    data = planted()
    fold = class_folds(data.pool, 3)[0]
    held = hold_out(data, fold, data.seen)
    assert not fold[held.y_fit].any()
    fitted = data.seen[data.y] & ~fold[data.y] & (data.split == "train")
    assert np.array_equal(held.X_fit, data.X[fitted])  # no row that is scored, none of another split
    assert set(data.split[held.rows]) <= {"train", "validation"}
    assert set(data.split[held.rows][~fold[data.y[held.rows]]]) == {"validation"}
