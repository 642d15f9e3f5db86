"""Intervals against known variances, and the paired loss against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.core.errors import DataError
from ayeaye.evaluation.bootstrap import (
    bounds,
    interval,
    paired_loss,
    paired_share,
    pictures_needed,
    resample,
    resampled_sums,
    strata_of,
    wilson,
)
from ayeaye.evaluation.metrics import measure


@settings(max_examples=40, deadline=None)
@given(y=st.lists(st.integers(0, 4), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_weights_keep_the_share_of_every_stratum(y, seed):
    y = np.array(y)
    weights = np.concatenate(list(resample(y, 7, seed)))
    assert weights.shape == (7, len(y))
    for c in np.unique(y):
        assert weights[:, y == c].sum(axis=1) == pytest.approx(np.full(7, np.sum(y == c)))


def test_the_size_of_a_block_changes_nothing():
    y = np.array([0, 1, 0, 1, 1, 2, 2])
    whole = np.concatenate(list(resample(y, 10, 0)))
    parts = np.concatenate(list(resample(y, 10, 0, cells=21)))
    assert (whole == parts).all()
    assert not (whole == np.concatenate(list(resample(y, 10, 1)))).all()


def test_sums_over_resamples_are_those_under_their_weights():
    rng = np.random.default_rng(0)
    stratum, values = strata_of(rng.integers(0, 6, 40), rng.integers(0, 2, 40)), rng.normal(size=(40, 3))
    weights = np.concatenate(list(resample(stratum, 30, 7)))
    assert resampled_sums(values, stratum, 30, 7) == pytest.approx(weights @ values)
    assert resampled_sums(values, stratum, 30, 7, cells=130) == pytest.approx(weights @ values)


def test_the_variance_of_a_mean_is_unbiased_for_few_pictures():
    values = np.array([0.0, 1, 1, 0, 0])
    means = np.concatenate(list(resample(np.zeros(5, int), 20_000, 0))) @ values / 5
    assert means.mean() == pytest.approx(0.4, abs=0.01)
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.05)


def test_classes_of_one_picture_are_resampled_together():
    y = np.array([0, 0, 1, 2, 3])
    stratum = strata_of(y)
    assert stratum[0] == stratum[1]
    assert len(set(stratum[2:].tolist())) == 1
    loss = paired_loss(np.array([1, 1, 0, 1, 1]), np.array([1, 1, 1, 0, 1]), y)
    assert loss["standard_error"] > 0


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    seen = np.array([True, False, False, False])
    y = np.repeat([1, 2, 3], 25)
    truth, hits = 0.6, 0
    for trial in range(120):
        right = rng.random(len(y)) < truth
        scores = np.zeros((len(y), 4))
        scores[np.arange(len(y)), np.where(right, y, y % 3 + 1)] = 1
        low, high = measure(scores, y, seen, 0.0, k=1, resamples=200, seed=trial)["intervals"]["T1"]
        hits += low <= truth <= high
    assert 0.88 <= hits / 120 <= 1


def test_the_same_seed_gives_the_same_intervals():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 60)
    args = (rng.normal(size=(60, 4)), y, np.array([True, True, False, False]), 0.1)
    first = measure(*args, resamples=50, seed=5)
    assert first == measure(*args, resamples=50, seed=5)
    assert first["intervals"] != measure(*args, resamples=50, seed=6)["intervals"]


def test_wilson_is_open_at_the_ends():
    assert wilson(1.0, 10)[0] == pytest.approx(0.7225, abs=1e-3)
    assert wilson(0.0, 10) == pytest.approx([0, 0.2775], abs=1e-3)
    assert interval(np.arange(101.0), 0.9) == pytest.approx([5, 95])


def test_the_loss_is_the_mean_over_classes():
    y = np.array([0] * 8 + [1] * 2)
    challenger = np.array([1] * 8 + [0, 0])
    champion = np.array([1] * 8 + [1, 0])
    found = paired_loss(challenger, champion, y)
    assert found["loss"] == pytest.approx(0.25)
    assert found["upper"] >= found["loss"]
    assert (found["pictures"], found["classes"]) == (10, 2)
    assert paired_loss(champion, challenger, y)["loss"] == pytest.approx(-0.25)


def test_two_equal_classifiers_lose_nothing_with_certainty():
    y = np.repeat(np.arange(5), 4)
    found = paired_loss(y % 2, y % 2, y)
    assert (found["loss"], found["upper"], found["standard_error"]) == (0, 0, 0)
    assert pictures_needed(found, 0.02) == 5


def test_the_upper_bound_covers_the_loss_as_often_as_it_says():
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(6), 20)
    covered = 0
    for trial in range(200):
        a, b = rng.random(120) < 0.6, rng.random(120) < 0.65
        covered += paired_loss(a, b, y, resamples=200, seed=trial)["upper"] >= 0.05
    assert 0.9 <= covered / 200 <= 0.99


def test_the_pictures_needed_would_pass_the_gate():
    rng = np.random.default_rng(2)
    y = np.repeat(np.arange(10), 30)
    found = paired_loss(rng.random(300) < 0.6, rng.random(300) < 0.6, y)
    needed = pictures_needed(found, 0.02)
    assert needed > 1000
    y = np.repeat(np.arange(10), needed // 10)
    many = paired_loss(rng.random(len(y)) < 0.6, rng.random(len(y)) < 0.6, y, resamples=200)
    assert many["upper"] - many["loss"] == pytest.approx(0.02, rel=0.2)
    assert pictures_needed(found, 0.0) is None


def test_the_loss_in_h_needs_and_uses_both_sides():
    y = np.array([0, 0, 1, 1])
    unseen = y == 1
    found = paired_loss(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0]), y, unseen=unseen)
    assert found["loss"] == pytest.approx(2 * 0.5 / 1.5)
    with pytest.raises(DataError, match="seen and of unseen"):
        paired_loss(y, y, y, unseen=np.zeros(4, dtype=bool))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1, 0], [1, 0, 1], "one answer per picture"), ([1, 0, np.nan], [1, 0, 1], "NaN")],
)
def test_answers_that_cannot_be_compared_are_refused(a, b, message):
    with pytest.raises(DataError, match=message):
        paired_loss(np.array(a), np.array(b), np.array([0, 1, 1]))
    with pytest.raises(DataError, match="no pictures"):
        paired_loss(np.array([]), np.array([]), np.array([], dtype=int))


def test_bounds_hold_as_often_as_they_say_far_out_and_for_few_pictures():
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(4), 24)
    worse = 0
    for trial in range(400):
        hard = rng.random(96)
        a, b = hard + 0.1 * rng.normal(size=96) < 0.6, hard + 0.1 * rng.normal(size=96) < 0.6
        worse += bounds(paired_loss(a, b, y, resamples=100, seed=trial), 0.99)[0] > 0
    assert worse / 400 <= 0.025


def test_the_lower_bound_mirrors_the_upper_one():
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(6), 20)
    a, b = rng.random(120) < 0.5, rng.random(120) < 0.7
    one, other = bounds(paired_loss(a, b, y), 0.95), bounds(paired_loss(b, a, y), 0.95)
    assert one[0] < paired_loss(a, b, y)["loss"] < one[1]
    assert one[0] == pytest.approx(-other[1])
    assert one[1] == pytest.approx(paired_loss(a, b, y)["upper"], abs=0.02)


def test_the_interval_of_a_paired_share_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        hard = rng.random(24)
        a, b = hard < 0.5 + 0.1 * rng.normal(size=24), hard < 0.7
        low, high = paired_share(b, a)[1]
        covered += low <= 0.2 <= high
    assert 0.92 <= covered / 400 <= 1


def test_two_that_never_differ_on_few_pictures_may_differ_on_more():
    same = np.ones(8)
    more, (low, high) = paired_share(same, same)
    assert more == 0
    assert low == pytest.approx(-high)
    assert 0.1 < high < 0.5
    assert paired_share(np.ones(800), np.ones(800))[1][1] < 0.01
    assert paired_share(np.ones(10), np.zeros(10))[0] == 1
