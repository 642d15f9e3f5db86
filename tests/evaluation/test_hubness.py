"""Hubness against counts made by hand, more queries than classes and fewer, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew

from ayeaye.core.errors import DataError
from ayeaye.evaluation.hubness import (
    antihubs,
    hub_occurrence,
    hubness,
    null_occurrences,
    occurrences,
    query_weights,
    robin_hood,
    skewness,
)


@settings(max_examples=50, deadline=None)
@given(
    queries=st.integers(1, 30), classes=st.integers(2, 12), k=st.integers(1, 14), seed=st.integers(0, 10**6)
)
def test_counts_match_sorting_each_query_even_with_ties(queries, classes, k, seed):
    scores = np.random.default_rng(seed).integers(0, 4, (queries, classes)).astype(float)
    wanted = np.zeros(classes)
    for row in scores:
        wanted[np.argsort(-row, kind="stable")[: max(1, min(k, classes - 1))]] += 1
    assert occurrences(scores, k).tolist() == wanted.tolist()


def test_one_class_that_is_always_nearest_is_a_hub():
    counts = occurrences(np.tile([1.0, 0, 0, 0, 0], (12, 1)), 1)
    assert counts.tolist() == [12, 0, 0, 0, 0]
    assert robin_hood(counts) == pytest.approx(0.8)
    assert antihubs(counts) == pytest.approx(0.8)
    assert hub_occurrence(counts) == pytest.approx(1)
    assert skewness(counts) == pytest.approx((5 - 2) / np.sqrt(5 - 1))


def test_a_class_at_exactly_twice_the_mean_is_a_hub_also_where_weighted_counts_carry_rounding():
    assert hub_occurrence(np.array([4.0, 2.0, 2.0, 0.0])) == 0.5
    assert hub_occurrence(np.array([4.0, 2.0, 2.0, 0.0]) * (0.1 + 0.2)) == pytest.approx(0.5)
    assert hub_occurrence(np.array([3.9, 2.0, 2.0, 0.1])) == 0


@pytest.mark.parametrize(("queries", "classes"), [(400, 10), (10, 40)])
def test_shares_are_shares_with_more_or_fewer_queries_than_classes(queries, classes):
    rng = np.random.default_rng(0)
    found = hubness(rng.normal(size=(queries, classes)), rng.integers(0, classes, queries), 3)
    for name in ("robin_hood", "antihubs", "hub_occurrence"):
        assert 0 <= found[name] <= 1, name
    assert found["excess"] == pytest.approx(found["skewness"] - found["null"])
    assert np.mean(found["relative"]) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1))
def test_skewness_is_that_of_scipy(values):
    assert skewness(np.array(values, dtype=float)) == pytest.approx(skew(values))


def test_equal_counts_have_no_skewness():
    assert skewness(np.full(7, 0.1 + 0.2)) == 0


def test_unbalanced_queries_do_not_skew_a_perfect_classifier():
    y = np.repeat(np.arange(10), [500, *[5] * 9])
    scores = np.eye(10)[y]
    assert skewness(occurrences(scores, 1)) > 2.5
    found = hubness(scores, y, 1)
    assert found["skewness"] == pytest.approx(0, abs=1e-9)
    assert found["relative"] == pytest.approx([1] * 10)
    assert query_weights(y).sum() == pytest.approx(len(y))


def test_random_scores_exceed_the_null_one_time_in_twenty():
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(30), [*[2] * 15, *[20] * 15])
    above = [hubness(rng.normal(size=(len(y), 30)), y, 5, seed)["excess"] > 0 for seed in range(60)]
    assert 0 <= np.mean(above) <= 0.15


def test_the_null_takes_k_different_classes_for_each_query():
    null = null_occurrences(6, 4, np.ones(50), seed=0, draws=300)
    assert (null.sum(axis=1) == 200).all()
    assert null.max() <= 50
    assert null.mean(axis=0) == pytest.approx(np.full(6, 200 / 6), rel=0.02)
    # The variance of drawing without replacement: Q · k/C · (1 - k/C).
    assert null.var(axis=0).mean() == pytest.approx(50 * (4 / 6) * (2 / 6), rel=0.15)


def test_a_real_hub_exceeds_the_null():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 10)
    scores = rng.normal(size=(200, 20))
    scores[:, 4] += 2
    found = hubness(scores, y, 1)
    assert found["excess"] > 1
    assert found["relative"][4] > found["null_high"][0]


def test_nan_is_refused_and_no_query_gives_null():
    with pytest.raises(DataError, match="NaN"):
        hubness(np.array([[np.nan, 1.0]]), np.array([0]), 1)
    assert hubness(np.empty((0, 3)), np.empty(0, dtype=int), 1)["excess"] is None
