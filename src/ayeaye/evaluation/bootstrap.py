"""Intervals: a stratified bootstrap over the pictures of each class, and the paired loss of two models."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from ayeaye.core.errors import DataError


def strata_of(y: np.ndarray, side: np.ndarray | None = None) -> np.ndarray:
    """The stratum of each picture (n,): its class on its side, classes of one picture together.

    One picture has no spread of its own; such classes are collapsed into one stratum per side, as surveys do,
    since a variance of zero would be the most confident answer to the least evidence.
    """
    if side is None:
        side = np.zeros(len(y), dtype=np.int64)
    stratum = np.unique(np.stack([side, y]), axis=1, return_inverse=True)[1].reshape(-1)
    single = np.bincount(stratum)[stratum] == 1
    return np.where(single, -1 - side, stratum)


def resample(stratum: np.ndarray, resamples: int, seed: int, cells: int = 2_000_000) -> Iterator[np.ndarray]:
    """Blocks (b, n) of weights with mean 1 in each stratum; `resamples` rows in all.

    Of n pictures n - 1 are drawn with replacement, which makes the variance unbiased where a plain bootstrap
    is too narrow by (n - 1)/n (Rao & Wu, 1988). The rows do not depend on the size of the blocks.
    """
    n = len(stratum)
    order, size, scale = _strata(stratum)
    for drawn in _drawn(size, n, resamples, seed, cells):
        b = len(drawn)
        counts = np.bincount((drawn + np.arange(b)[:, None] * n).ravel(), minlength=b * n).reshape(b, n)
        weights = np.empty((b, n))
        weights[:, order] = counts * scale
        yield weights


def resampled_sums(
    values: np.ndarray, stratum: np.ndarray, resamples: int, seed: int, cells: int = 2_000_000
) -> np.ndarray:
    """(resamples, k) sums over the pictures of values (n, k) under the weights of `resample`, at a fraction of the
    cost: the weights themselves are never made."""
    order, size, scale = _strata(stratum)
    columns = (values[order] * scale[:, None]).T.copy()  # (k, n)
    blocks = [
        np.stack([column[drawn].sum(axis=1) for column in columns], axis=1)
        for drawn in _drawn(size, len(stratum), resamples, seed, cells)
    ]
    return np.concatenate(blocks)


def _strata(stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pictures (n,) stratum by stratum, how large each stratum is, and what a draw weighs, (n,) in that order."""
    order = np.argsort(stratum, kind="stable")
    sizes = np.unique(stratum, return_counts=True)[1]
    return order, sizes, np.repeat(sizes / np.maximum(sizes - 1, 1), sizes)


def _drawn(sizes: np.ndarray, n: int, resamples: int, seed: int, cells: int) -> Iterator[np.ndarray]:
    """Blocks (b, draws) of the places, stratum by stratum, of the pictures that each resample draws."""
    draws = np.maximum(sizes - 1, 1)
    start, size = np.repeat(np.cumsum(sizes) - sizes, draws), np.repeat(sizes, draws)
    rng = np.random.default_rng(seed)
    block = max(1, cells // max(n, 1))
    for first in range(0, resamples, block):
        b = min(block, resamples - first)
        yield start + (rng.random((b, len(start))) * size).astype(np.int64)


def interval(values: np.ndarray, confidence: float = 0.95) -> list[float]:
    """The percentile interval [low, high] of resampled values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def wilson(share: float, n: int, confidence: float = 0.95) -> list[float]:
    """Interval of a share of n pictures (Wilson, 1927): sensible at 0, at 1 and for few pictures."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def paired_share(new: np.ndarray, old: np.ndarray, confidence: float = 0.95) -> tuple[float, list[float]]:
    """How much larger the share of right answers of `new` (n,) is than that of `old` on n pictures of one class.

    The interval is the adjusted Wald one for paired shares (Agresti & Min, 2005), half a picture in each of the
    four cells: sensible where the two never differ, and for few pictures. Answers may be means over folds.
    """
    more = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    n = len(more) + 2
    won, lost = ((part.sum() + 0.5) / n for part in (np.maximum(more, 0), np.maximum(-more, 0)))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt((won + lost - (won - lost) ** 2) / n)
    return float(more.mean()), [max(-1.0, won - lost - half), min(1.0, won - lost + half)]


def paired_loss(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    y: np.ndarray,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    unseen: np.ndarray | None = None,
) -> dict[str, Any]:
    """How much accuracy challenger `a` loses against champion `b` on the same pictures.

    `correct_a`, `correct_b`, `y`: (n,). The loss is the mean over classes of b's accuracy minus a's: positive
    where the challenger is worse. With `unseen` (n,) bool, it is the loss in H between the two sides.
    `upper` is the one-sided upper bound at `confidence`. Raises DataError on lengths that differ, NaN or
    nothing to compare.
    """
    pair = np.stack([_column(correct_a, y), _column(correct_b, y)], axis=1)  # (n, 2)
    side = np.zeros(len(y), dtype=np.int64) if unseen is None else np.asarray(unseen).astype(np.int64)
    if unseen is not None and len(np.unique(side)) < 2:
        raise DataError("a loss in H needs pictures of seen and of unseen classes: only one side has any")
    values = class_weights(np.asarray(y), side)[:, None] * pair
    if unseen is not None:  # (n, 4): of each side, of each model
        values = np.hstack([values * (side == s)[:, None] for s in (0, 1)])
    drawn = _losses(resampled_sums(values, strata_of(np.asarray(y), side), resamples, seed))
    loss = float(_losses(values.sum(axis=0)[None])[0])
    return {
        "loss": loss,
        "upper": max(float(np.quantile(drawn, confidence)), loss),
        "standard_error": float(drawn.std()),
        "confidence": confidence,
        "pictures": len(y),
        "classes": len(np.unique(y)),
    }


def bounds(paired: dict[str, Any], confidence: float) -> tuple[float, float]:
    """The one-sided lower and upper bound of a `paired_loss`, each at `confidence`, from its standard error.

    For where many losses share one risk of error: far out, percentiles of the resamples are too narrow for the few
    pictures about which two models disagree. Of ten slices of equal models they called one worse in 6 of 30
    simulations, where 5 % were stated.
    """
    half = NormalDist().inv_cdf(confidence) * paired["standard_error"]
    return paired["loss"] - half, paired["loss"] + half


def pictures_needed(paired: dict[str, Any], epsilon: float) -> int | None:
    """Pictures, spread over the classes as they are, with which two equal classifiers would pass `epsilon`.

    From the standard error of a `paired_loss`, which shrinks with the root of the number of pictures. None
    where no number is enough (`epsilon` is 0 while the two differ).
    """
    z = NormalDist().inv_cdf(paired["confidence"])
    if paired["standard_error"] == 0:
        return int(paired["classes"])
    if epsilon <= 0:
        return None
    return max(paired["classes"], ceil(paired["pictures"] * (z * paired["standard_error"] / epsilon) ** 2))


def _column(correct: np.ndarray, y: np.ndarray) -> np.ndarray:
    column = np.asarray(correct, dtype=np.float64)
    if column.shape != np.shape(y):
        raise DataError(f"{column.shape} answers for {np.shape(y)} labels: give one answer per picture")
    if not len(column):
        raise DataError("no pictures to compare two classifiers on: hold some out of the training of both")
    if not np.isfinite(column).all():
        raise DataError("the answers to compare hold NaN: give 1 for right and 0 for wrong")
    return column


def class_weights(y: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Weights (n,) that sum to 1 on each side, the same for each of its classes."""
    group = np.unique(np.stack([side, y]), axis=1, return_inverse=True)[1].reshape(-1)
    shares = 1.0 / np.bincount(group)[group]
    return shares / np.bincount(side, weights=shares)[side]


def _losses(means: np.ndarray) -> np.ndarray:
    """(b,) of mean accuracies of challenger and champion, (b, 2), or of either on seen and on unseen, (b, 4)."""
    if means.shape[1] == 4:
        means = harmonic_mean(means[:, 2:], means[:, :2])
    return means[:, 1] - means[:, 0]


def harmonic_mean(u: np.ndarray, s: np.ndarray) -> np.ndarray:
    """H = 2US/(U + S), 0 where both are 0."""
    total = u + s
    return np.divide(2 * u * s, total, out=np.zeros_like(total), where=total > 0)
