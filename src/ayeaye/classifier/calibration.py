"""The offset on seen classes (calibrated stacking) and the temperature of probabilities.

Scores are (n, C); `y` (n,) is the true class of each row, `seen` (C,) says which classes are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from ayeaye.core.errors import DataError

Fold = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, y, seen


def stack(scores: np.ndarray, seen: np.ndarray, gamma: float) -> np.ndarray:
    """Scores less γ on seen classes (Chao 2016)."""
    return scores - np.float32(gamma) * np.asarray(seen, np.float32)


def choose_gamma(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> float:
    """The γ that maximises H exactly: every change of a label is tried, the middle of the best range taken.

    Raises DataError unless the rows are of both seen and unseen classes.
    """
    return choose_gamma_over([(scores, y, seen)])


def choose_gamma_over(folds: Sequence[Fold], unseen: int | None = None) -> float:
    """The γ that maximises the mean H of several folds of classes; one fold alone over-penalises.

    With `unseen`, H is what it would be with so many unseen classes: the highest of more scores is higher, so that
    the γ of a fold that holds out more than there will be is too low, and of one that holds out fewer too high.
    """
    return _best([_accuracies(*fold, unseen) for fold in folds])


def regret(fold: Fold, gamma: float) -> float:
    """H lost to the offset: the highest H along the curve of a fold less H at γ."""
    return _lost(_accuracies(*fold), gamma)


def regret_over(folds: Sequence[Fold], unseen: int | None = None) -> float | None:
    """The mean regret of folds, each at the γ of the others; None of fewer than two."""
    curves = [_accuracies(*fold, unseen) for fold in folds]
    others = ([*curves[:number], *curves[number + 1 :]] for number in range(len(curves)))
    lost = [_lost(curve, _best(rest)) for curve, rest in zip(curves, others, strict=True) if rest]
    return float(np.mean(lost)) if lost else None


def fit_temperature(scores: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(scores / T) (Guo 2017).

    `scores` may be before or after the offset, as they will be used; `weight` (n,) is that of each row.
    """
    from scipy.optimize import minimize_scalar

    if not len(y):
        raise DataError("no pictures to fit a temperature on")
    centred = scores.astype(np.float64) - scores[np.arange(len(y)), y][:, None]

    def loss(log_temperature: float) -> float:
        logits = centred / np.exp(log_temperature)
        top = logits.max(axis=1)
        each = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float(np.average(each, weights=weight))

    found = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e2)), method="bounded")
    return float(np.exp(found.x))


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(n, C) softmax of scores / T; rows sum to one, also where a score is minus infinity."""
    logits = scores.astype(np.float64) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def _accuracies(scores: np.ndarray, y: np.ndarray, seen: np.ndarray, unseen: int | None = None) -> Curve:
    """Margins (m,) ascending at which a label changes side, and the share of S and of U that each makes when right.

    With another number of `unseen` classes than there are, they are expected values over draws of so many.
    """
    seen = np.asarray(seen, bool)
    of_seen = seen[y]
    if of_seen.all() or not of_seen.any():
        raise DataError("the offset needs pictures of both seen and unseen classes")
    seen_columns, unseen_columns = np.flatnonzero(seen), np.flatnonzero(~seen)
    best = seen_columns[scores[:, seen_columns].argmax(axis=1)]
    top, among = scores[np.arange(len(y)), best], scores[:, unseen_columns]
    counts = np.bincount(y, minlength=len(seen))
    share = 1 / counts[y] / np.where(of_seen, np.sum(counts[seen] > 0), np.sum(counts[~seen] > 0))

    tops, chances = _highest(among[of_seen], unseen or len(unseen_columns))
    won, stands = _own(among[~of_seen], np.searchsorted(unseen_columns, y[~of_seen]), unseen)
    # In float32, as the offset is applied.
    margins = np.concatenate([(top[of_seen][:, None] - tops).ravel(), top[~of_seen] - won]).astype(np.float64)
    right = np.outer((share * (best == y))[of_seen], chances).ravel()
    order = np.argsort(margins, kind="stable")
    return (
        margins[order],
        np.concatenate([right, np.zeros(len(won))])[order],
        np.concatenate([np.zeros(len(right)), share[~of_seen] * stands])[order],
    )


def _highest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What the highest of `count` columns of scores (n, C) may be (n, k), and its chances (k,), over all draws.

    Of more than C it goes on as its mean grew from half of C to C, by the law of the highest of normal draws.
    """
    C = scores.shape[1]
    if count == C:
        return scores.max(axis=1, keepdims=True), np.ones(1)
    ordered = -np.sort(-scores, axis=1)
    if count < C:
        chances = _chances(C, count)
        likely = chances > 1e-4
        return ordered[:, likely], chances[likely]
    half, highest = C // 2, ordered[:, :1]
    if not half:
        return highest, np.ones(1)
    steps = (_normal_top(count) - _normal_top(C)) / (_normal_top(C) - _normal_top(half))
    mean = (ordered @ _chances(C, half).astype(scores.dtype))[:, None]
    return highest + np.float32(steps) * (highest - mean), np.ones(1)


def _own(scores: np.ndarray, y: np.ndarray, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The score (n,) with which each row goes to the unseen side, and the chance (n,) that it is right there."""
    highest, own = scores.max(axis=1), scores[np.arange(len(y)), y]
    if not count or count >= scores.shape[1]:
        return highest, (scores.argmax(axis=1) == y).astype(np.float64)
    return own, _chance_of_none(scores.shape[1] - 1, count - 1)[(scores > own[:, None]).sum(axis=1)]


def _chances(C: int, count: int) -> np.ndarray:
    """(C,) the chance of each place, best first, to be the best of `count` that are drawn of C."""
    # When it is drawn itself, and none of those above it.
    return _chance_of_none(C - 1, count - 1) * count / C


def _normal_top(count: int) -> float:
    """The mean highest of so many standard normal draws (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def _chance_of_none(things: int, drawn: int) -> np.ndarray:
    """(things + 1,) the chance that of r of some things, r from 0, none is among those drawn without replacement."""
    r = np.arange(things)
    return np.concatenate([[1.0], np.cumprod(np.maximum(things - drawn - r, 0) / (things - r))])


def _middles(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """One γ between any two at which a label changes, and how wide apart these are."""
    # On a grid as fine as float32 resolves: no γ can be set between nearer edges, and there may be millions.
    edges = np.unique(np.round(np.concatenate([edges for edges, _, _ in curves]) / 1e-6)) * 1e-6
    reach = 0.01 * max(1.0, float(edges[-1] - edges[0]))
    bounds = np.concatenate([[edges[0] - reach], edges, [edges[-1] + reach]])
    return (bounds[:-1] + bounds[1:]) / 2, np.diff(bounds)


def _best(curves: Sequence[Curve]) -> float:
    """The γ of the highest mean H of the curves."""
    middles, widths = _middles(curves)
    H = np.mean([_harmonic(middles, *curve) for curve in curves], axis=0)
    best = np.flatnonzero(H.max() - H <= 1e-12)
    return float(middles[best[np.argmax(widths[best])]])


def _lost(curve: Curve, gamma: float) -> float:
    highest = _harmonic(_middles([curve])[0], *curve).max()
    return max(0.0, float(highest - _harmonic(np.array([gamma]), *curve)[0]))


def _harmonic(gammas: np.ndarray, margins: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """H at every γ: a row goes to its best seen class while γ is below its margin."""
    below = np.searchsorted(margins, gammas)
    S = seen.sum() - np.concatenate([[0.0], np.cumsum(seen)])[below]
    U = np.concatenate([[0.0], np.cumsum(unseen)])[below]
    return 2 * S * U / np.maximum(S + U, 1e-12)
