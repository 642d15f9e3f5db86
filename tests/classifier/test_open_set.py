"""The threshold for "none of the classes": it keeps to the stated rate, class by class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.classifier.calibration import probabilities
from ayeaye.classifier.open_set import Fold, OpenSetSplit, accepted, moved, threshold, trials


def trial(confidence: list[float], y: list[int], unknown: list[bool]) -> OpenSetSplit:
    return OpenSetSplit(
        np.array(confidence, np.float32), np.array(y), np.array(unknown), np.zeros(len(y), bool)
    )


def fold(seed: int = 0, rows: int = 400, classes: int = 12) -> Fold:
    """Scores that favour the truth; the last third of the classes is unseen."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    scores = rng.normal(0, 0.2, (rows, classes))
    scores[np.arange(rows), y] += 0.6
    return scores.astype(np.float32), y, np.arange(classes) < classes * 2 // 3, 0.0


def test_every_unseen_class_is_taken_away_once() -> None:
    _, y, seen, _ = made = fold()
    first, second = trials(made, 0.1)
    assert not (first.unknown & second.unknown).any()
    np.testing.assert_array_equal(first.unknown | second.unknown, ~seen[y])


def test_a_class_that_is_taken_away_is_no_candidate() -> None:
    """Without the class nothing is left that is near its pictures."""
    scores, y, seen, gamma = fold()
    scores[:] = 0
    scores[np.arange(len(y)), y] = 5.0
    for each in trials((scores, y, seen, gamma), 0.1):
        assert each.confidence[each.unknown].max() < 0.2
        assert each.confidence[~each.unknown].min() > 0.9


@settings(max_examples=60, deadline=None)
@given(
    confidences=st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), min_size=1, max_size=30),
    rate=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_the_rate_is_kept_to_and_not_undercut_needlessly(
    confidences: list[float], rate: float, seed: int
) -> None:
    y = np.random.default_rng(seed).integers(0, 4, len(confidences)).tolist()
    made = trial(confidences, y, [True] * len(y))
    lowest = threshold([made], rate)
    share = accepted([(made, lowest)])["accepted"]["unknown"]
    assert share <= rate + 1e-6
    # With the next lower confidence accepted, too, it would be too many.
    if below := [value for value in made.confidence if value < lowest]:
        assert accepted([(made, float(max(below)))])["accepted"]["unknown"] > rate


def test_a_class_with_many_pictures_weighs_as_much_as_one_with_few() -> None:
    made = trial([0.9] + [0.1] * 99, [0] + [1] * 99, [True] * 100)
    assert threshold([made], 0.5) <= 0.9
    assert threshold([made], 0.4) > 0.9


def test_at_the_rate_of_one_every_picture_is_known() -> None:
    assert threshold(trials(fold(), 0.1), 1.0) == 0.0
    assert threshold([], 0.1) == 0.0


def test_a_threshold_from_one_fold_holds_on_another() -> None:
    lowest = threshold(trials(fold(0, rows=4000), 0.1), 0.2)
    found = accepted([(each, lowest) for each in trials(fold(1, rows=4000), 0.1)])
    assert found["accepted"]["unknown"] == pytest.approx(0.2, abs=0.05)
    assert found["accepted"]["seen"] > 0.5
    assert found["accepted"]["unseen"] > 0.5
    assert found["pictures"] > 1000


def test_a_side_without_pictures_has_no_rate() -> None:
    found = accepted([(trial([0.5], [0], [True]), 0.0)])
    assert found["accepted"] == {"unknown": 1.0, "seen": None, "unseen": None}
    assert accepted([])["accepted"]["unknown"] is None


def test_a_threshold_moves_so_that_as_many_unknown_pictures_are_accepted() -> None:
    chance = np.random.default_rng(0)
    y = chance.integers(0, 5, 400)
    scores = chance.normal(size=(400, 65)).astype(np.float32)
    scores[np.arange(400), y] += 5  # taken out: it must not matter
    first, temperature, lowest = 5, 0.5, 0.6

    def share(count: int, least: float) -> float:
        without = scores[:, :count].copy()
        without[np.arange(400), y] = -np.inf
        return float((probabilities(without, temperature).max(axis=1) >= least).mean())

    after = moved(lowest, scores, y, first, temperature)
    assert after < lowest / 2
    assert share(65, after) == pytest.approx(share(5, lowest), abs=0.01)
    assert share(65, lowest) < share(5, lowest) / 4
    same = moved(lowest, scores[:, :5], y, first, temperature)
    assert share(5, same) == share(5, lowest)


def test_a_threshold_that_nothing_reaches_is_reached_by_nothing_afterwards() -> None:
    scores, y = np.zeros((3, 9), np.float32), np.arange(3)
    assert 1 / 8 < moved(0.9, scores, y, 5, 1.0) <= 0.9
