"""Hubness: how unevenly classes turn up among the nearest of the pictures, against what chance would do.

N_k(c) is how often class c is among the k nearest classes of a query (Radovanović et al., 2010). Queries are
weighted so that each class that has any counts the same: unbalanced queries would skew a perfect classifier.
The largest possible skewness depends on the number of classes, (C - 2)/√(C - 1), so a figure means something
only beside its null: the 95th percentile when every query takes its k classes at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ayeaye.core.errors import DataError

CELLS = 4_000_000


def usable_k(k: int, classes: int) -> int:
    """k cut to fewer than the classes: when every class is a neighbour, none is a hub."""
    return max(1, min(k, classes - 1))


def query_weights(y: np.ndarray) -> np.ndarray:
    """Weights (Q,) that sum to Q, in which each class with pictures has the same share."""
    group = np.unique(y, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(group)
    return len(y) / (len(sizes) * sizes[group])


def occurrences(scores: np.ndarray, k: int, weights: np.ndarray | None = None) -> np.ndarray:
    """N_k (C,) from scores (Q, C), higher is nearer; of equal scores the lower class index is taken first."""
    queries, classes = scores.shape
    k = usable_k(k, classes)
    weights = np.ones(queries) if weights is None else weights
    total = np.zeros(classes)
    step = max(1, CELLS // classes)
    for first in range(0, queries, step):
        part = scores[first : first + step]
        kth = np.partition(part, classes - k, axis=1)[:, classes - k, None]
        nearest, level = part > kth, part == kth
        wanted = k - nearest.sum(axis=1, keepdims=True)
        nearest |= level & (np.cumsum(level, axis=1) <= wanted)
        total += weights[first : first + step] @ nearest
    return total


def skewness(counts: np.ndarray) -> np.ndarray:
    """Third standardised moment over the last axis; 0 where all counts are equal."""
    centred = counts - counts.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1)
    flat = variance <= 1e-18 * np.maximum(counts.mean(axis=-1) ** 2, 1e-300)
    return np.where(flat, 0.0, np.mean(centred**3, axis=-1) / np.where(flat, 1.0, variance) ** 1.5)


def robin_hood(counts: np.ndarray) -> float:
    """Share of all slots that would have to move to make the counts equal: ½ Σ|N - μ| / ΣN."""
    return float(0.5 * np.abs(counts - counts.mean()).sum() / counts.sum())


def antihubs(counts: np.ndarray) -> float:
    """Share of classes that are never among the nearest."""
    return float(np.mean(counts <= 0))


def hub_occurrence(counts: np.ndarray) -> float:
    """Share of all slots taken by classes with N ≥ 2μ, where μ = kQ/C."""
    # Weighted counts carry rounding: a class at exactly twice the mean is a hub.
    hubs = counts >= 2 * counts.mean() * (1 - 1e-9)
    return float(counts[hubs].sum() / counts.sum())


def null_occurrences(
    classes: int, k: int, weights: np.ndarray, seed: int, draws: int | None = None
) -> np.ndarray:
    """N_k (draws, C) when each query takes k of the C classes at random; `weights` (Q,) as the real."""
    k, queries = usable_k(k, classes), len(weights)
    if draws is None:
        # Past some 20 million slots more draws no longer move the percentile, but cost seconds.
        draws = int(np.clip(20_000_000 // max(1, queries * k), 200, 1000))
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(1, queries * k))
    blocks = []
    for first in range(0, draws, step):
        b = min(step, draws - first)
        taken = _subsets(rng, b * queries, classes, k).reshape(b, queries, k)
        taken += np.arange(b)[:, None, None] * classes
        each = np.broadcast_to(weights[None, :, None], taken.shape).ravel()
        blocks.append(np.bincount(taken.ravel(), each, minlength=b * classes).reshape(b, classes))
    return np.concatenate(blocks)


def hubness(scores: np.ndarray, y: np.ndarray, k: int, seed: int = 0) -> dict[str, Any]:
    """All figures of scores (Q, C) for queries of classes y (Q,); plain floats, None without a query.

    `relative` is N/μ of each class, `null_low` and `null_high` the 2.5th and 97.5th percentile of the null's
    N/μ by rank, most frequent class first. Raises DataError on scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise DataError("the scores hold NaN or infinity: hubness needs a finite score for every class")
    queries, classes = scores.shape
    names = ("skewness", "null", "excess", "robin_hood", "antihubs", "hub_occurrence")
    if not queries or not classes:
        return {**dict.fromkeys(names), "k": None, "relative": [], "null_low": [], "null_high": []}
    weights = query_weights(y)
    counts = occurrences(scores, k, weights)
    null = null_occurrences(classes, k, weights, seed)
    limit = float(np.quantile(skewness(null), 0.95))
    skew = float(skewness(counts))
    ranked = -np.sort(-null, axis=1) / null.mean(axis=1, keepdims=True)
    low, high = np.quantile(ranked, [0.025, 0.975], axis=0)
    return {
        "skewness": skew,
        "null": limit,
        "excess": skew - limit,
        "robin_hood": robin_hood(counts),
        "antihubs": antihubs(counts),
        "hub_occurrence": hub_occurrence(counts),
        "k": usable_k(k, classes),
        "relative": (counts / counts.mean()).tolist(),
        "null_low": low.tolist(),
        "null_high": high.tolist(),
    }


def _subsets(rng: np.random.Generator, rows: int, classes: int, k: int) -> np.ndarray:
    """(rows, k) random k-subsets of the classes, each equally likely (Floyd's algorithm, Bentley 1987)."""
    taken = np.empty((rows, k), dtype=np.int64)
    for column, last in enumerate(range(classes - k, classes)):
        pick = rng.integers(0, last + 1, rows)
        already = (taken[:, :column] == pick[:, None]).any(axis=1)
        taken[:, column] = np.where(already, last, pick)
    return taken
