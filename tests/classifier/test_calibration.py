"""The offset that maximises H, and the temperature that fits probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.classifier.calibration import (
    choose_gamma,
    choose_gamma_over,
    fit_temperature,
    probabilities,
    regret,
    regret_over,
    stack,
)
from ayeaye.core.errors import DataError

Fold = tuple[np.ndarray, np.ndarray, np.ndarray]


def fold(seed: int, rows: int = 60, classes: int = 8, bias: float = 0.5) -> Fold:
    """Scores that favour the truth, and seen classes by `bias`."""
    rng = np.random.default_rng(seed)
    seen = np.arange(classes) < classes // 2
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, rows)])
    scores = rng.normal(0, 0.3, (len(y), classes)) + bias * seen
    scores[np.arange(len(y)), y] += 0.5
    return scores.astype(np.float32), y, seen


def harmonic(scores: np.ndarray, y: np.ndarray, seen: np.ndarray, gamma: float) -> float:
    right = stack(scores, seen, gamma).argmax(axis=1) == y
    S, U = (np.mean([right[y == c].mean() for c in np.flatnonzero(side)]) for side in (seen, ~seen))
    return 2 * S * U / (S + U) if S + U else 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), bias=st.floats(-1, 1))
def test_no_other_offset_has_a_higher_h(seed: int, bias: float) -> None:
    scores, y, seen = fold(seed, bias=bias)
    best = harmonic(scores, y, seen, choose_gamma(scores, y, seen))
    rivals = [harmonic(scores, y, seen, gamma) for gamma in np.linspace(-3, 3, 301)]
    assert best >= max(rivals) - 1e-9


def test_an_offset_is_found_where_changes_of_labels_lie_denser_than_float32() -> None:
    scores, y, seen = fold(0, rows=60_000)
    scores *= np.float32(0.005)
    best = harmonic(scores, y, seen, choose_gamma(scores, y, seen))
    assert best >= max(harmonic(scores, y, seen, gamma) for gamma in np.linspace(0, 0.005, 51)) - 1e-4


def test_the_offset_makes_up_for_the_bias() -> None:
    scores, y, seen = fold(0, rows=4000, bias=0.5)
    assert choose_gamma(scores, y, seen) == pytest.approx(0.5, abs=0.1)


def test_several_folds_share_one_offset() -> None:
    folds = [fold(seed) for seed in range(4)]
    mean = lambda gamma: np.mean([harmonic(*one, gamma) for one in folds])  # noqa: E731
    best = mean(choose_gamma_over(folds))
    assert best >= max(mean(gamma) for gamma in np.linspace(-3, 3, 301)) - 1e-9


def test_folds_may_have_different_classes() -> None:
    assert np.isfinite(choose_gamma_over([fold(0, classes=8), fold(1, classes=5)]))


def drawn(seed: int, unseen: int) -> Fold:
    """Scores of 20 seen and some unseen classes that are normal, the true one higher: more classes, the same law."""
    rng = np.random.default_rng(seed)
    seen = np.arange(20 + unseen) < 20
    y = np.concatenate([rng.integers(0, 20, 2000), rng.integers(20, 20 + unseen, 2000)])
    scores = rng.normal(0, 0.3, (len(y), len(seen)))
    scores[np.arange(len(y)), y] += 1.0
    return scores.astype(np.float32), y, seen


@pytest.mark.parametrize(("there", "wanted"), [(24, 4), (6, 40)])
def test_the_offset_for_more_or_fewer_unseen_classes_is_that_of_folds_with_so_many(
    there: int, wanted: int
) -> None:
    right, plain = (choose_gamma_over([drawn(n, each) for n in range(3)]) for each in (wanted, there))
    found = choose_gamma_over([drawn(n, there) for n in range(3)], wanted)
    assert abs(plain - right) > 0.12
    assert found == pytest.approx(right, abs=0.06)


def test_as_many_unseen_classes_as_the_folds_have_change_nothing() -> None:
    folds = [fold(seed) for seed in range(4)]
    assert choose_gamma_over(folds, 4) == choose_gamma_over(folds)
    # A single unseen class says nothing of how the highest grows, and stays as it is.
    assert choose_gamma_over([fold(0, classes=2)], 9) == choose_gamma_over([fold(0, classes=2)])


def test_with_fewer_unseen_classes_u_is_the_mean_over_all_draws_of_them() -> None:
    # Of three unseen classes two are drawn: the true one is beaten by one of the others, and stands in half of them.
    scores = np.array([[0.0, 0.5, 0.9, 0.1], [1.0, 0.2, 0.2, 0.2]], np.float32)
    y, seen = np.array([1, 0]), np.array([True, False, False, False])
    high = choose_gamma_over([(scores, y, seen)], 2)
    # S is 1 and U is 1/2 between the margins -0.5 and 0.8, H 2/3; with all three U would be 0 everywhere.
    assert high == pytest.approx(0.15, abs=1e-6)
    assert regret((scores, y, seen), high) == 0


def test_the_regret_is_the_loss_against_the_best_offset() -> None:
    one = fold(0)
    best = choose_gamma(*one)
    assert regret(one, best) == 0
    assert regret(one, 0.0) == pytest.approx(harmonic(*one, best) - harmonic(*one, 0.0))
    assert regret(one, 0.0) > 0.05
    other = fold(1)
    lost = [regret(one, choose_gamma(*other)), regret(other, choose_gamma(*one))]
    assert regret_over([one, other]) == pytest.approx(np.mean(lost))
    assert regret_over([one]) is None


def test_stacking_moves_seen_classes_alone() -> None:
    moved = stack(np.zeros((2, 3), np.float32), np.array([True, False, True]), 0.25)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, [[-0.25, 0, -0.25]] * 2)


@pytest.mark.parametrize("side", [True, False])
def test_pictures_of_one_side_alone_choose_no_offset(side: bool) -> None:
    scores, y, seen = fold(0)
    keep = seen[y] == side
    with pytest.raises(DataError, match="both seen and unseen"):
        choose_gamma(scores[keep], y[keep], seen)


def test_the_temperature_that_made_the_labels_is_found() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (20_000, 6)).astype(np.float32)
    drawn = probabilities(scores, 0.4).astype(np.float64)
    y = (drawn.cumsum(axis=1) / drawn.sum(axis=1, keepdims=True) > rng.random((len(scores), 1))).argmax(
        axis=1
    )
    assert fit_temperature(scores, y) == pytest.approx(0.4, rel=0.05)


def test_no_pictures_fit_no_temperature() -> None:
    with pytest.raises(DataError, match="no pictures"):
        fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int))


def test_probabilities_sum_to_one_at_any_temperature() -> None:
    scores = np.array([[1.0, -1.0, 0.5], [1.0, 1.0, -np.inf]], np.float32)
    for temperature in (1e-3, 1.0, 1e2):
        found = probabilities(scores, temperature)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        assert (found.argmax(axis=1) == 0).all()
