"""The offset on seen classes (calibrated stacking) and the temperature of probabilities.

Scores are (n, C); `y` (n,) is the true class of each row, `seen` (C,) says which classes are seen.
"""

from __future__ import annotations

import numpy as np

from ayeaye.errors import DataError

Fold = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, y, seen


def stack(scores: np.ndarray, seen: np.ndarray, gamma: float) -> np.ndarray:
    """Scores less γ on seen classes (Chao 2016)."""
    return scores - np.float32(gamma) * np.asarray(seen, np.float32)


def choose_gamma(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> float:
    """The γ that maximises H exactly: every change of a label is tried, the middle of the best range taken.

    Raises DataError unless the rows are of both seen and unseen classes.
    """
    return choose_gamma_over([(scores, y, seen)])


def choose_gamma_over(folds: list[Fold]) -> float:
    """The γ that maximises the mean H of several folds of classes; one fold alone over-penalises."""
    curves = [_accuracies(*fold) for fold in folds]
    edges = np.unique(np.concatenate([edges for edges, _, _ in curves]))
    # Edges nearer than float32 resolves are one: no γ can be set between them.
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-6])]
    reach = 0.01 * max(1.0, float(edges[-1] - edges[0]))
    bounds = np.concatenate([[edges[0] - reach], edges, [edges[-1] + reach]])
    middles = (bounds[:-1] + bounds[1:]) / 2
    H = np.mean([_harmonic(middles, *curve) for curve in curves], axis=0)
    best = np.flatnonzero(H.max() - H <= 1e-12)
    return float(middles[best[np.argmax(np.diff(bounds)[best])]])


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


def _accuracies(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> Curve:
    """Margins (n,) ascending at which a label changes side, and each row's share of S and of U when right."""
    seen = np.asarray(seen, bool)
    of_seen = seen[y]
    if of_seen.all() or not of_seen.any():
        raise DataError("the offset needs pictures of both seen and unseen classes")
    seen_columns, unseen_columns = np.flatnonzero(seen), np.flatnonzero(~seen)
    best_seen = seen_columns[scores[:, seen_columns].argmax(axis=1)]
    best_unseen = unseen_columns[scores[:, unseen_columns].argmax(axis=1)]
    rows = np.arange(len(y))
    # In float32, as the offset is applied.
    margins = (scores[rows, best_seen] - scores[rows, best_unseen]).astype(np.float64)
    counts = np.bincount(y, minlength=len(seen))
    share = 1 / counts[y] / np.where(of_seen, np.sum(counts[seen] > 0), np.sum(counts[~seen] > 0))
    order = np.argsort(margins, kind="stable")
    return (
        margins[order],
        (share * (of_seen & (best_seen == y)))[order],
        (share * (~of_seen & (best_unseen == y)))[order],
    )


def _harmonic(gammas: np.ndarray, margins: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """H at every γ: a row goes to its best seen class while γ is below its margin."""
    below = np.searchsorted(margins, gammas)
    S = seen.sum() - np.concatenate([[0.0], np.cumsum(seen)])[below]
    U = np.concatenate([[0.0], np.cumsum(unseen)])[below]
    return 2 * S * U / np.maximum(S + U, 1e-12)
