"""None of these: below which confidence a picture is said to be of none of the classes.

The threshold is fitted on pretend-unknown classes, which are taken out of the candidates, so that their
pictures are of a class that the classifier was not given (open-set recognition, Scheirer et al. 2013; the
highest softmax probability as the sign, Hendrycks & Gimpel 2017). Each class weighs the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ayeaye.classifier import calibration

Fold = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # scores, y, seen, γ


class OpenSetSplit(NamedTuple):
    """Confidences (n,) where some classes were taken away; y (n,) the true class; and which pictures are of a
    class that was (n,), or, of those that were not, of a seen class (n,)."""

    confidence: np.ndarray
    y: np.ndarray
    unknown: np.ndarray
    seen: np.ndarray


def trials(fold: Fold, temperature: float) -> Iterator[OpenSetSplit]:
    """Half of a fold's unseen classes taken away, then the other half: what stays has unseen classes, too.

    fold: scores (n, C) before the offset, y (n,), seen (C,), γ.
    """
    scores, y, seen, gamma = fold
    stacked = calibration.stack(scores, seen, gamma)
    unseen = np.flatnonzero(~seen)
    for gone in (unseen[::2], unseen[1::2]):
        kept = np.setdiff1d(np.arange(len(seen)), gone)
        unknown = np.isin(y, gone)
        if unknown.any() and len(kept):
            confidence = calibration.probabilities(stacked[:, kept], temperature).max(axis=1)
            yield OpenSetSplit(confidence, y, unknown, seen[y])


def threshold(found: Iterable[OpenSetSplit], rate: float) -> float:
    """The lowest confidence to accept so that at most `rate` of the pictures of unknown classes are accepted.

    0, which accepts all, where `rate` is 1 or no class could be taken away.
    """
    parts = [(trial.confidence[trial.unknown], _weights(trial.y[trial.unknown])) for trial in found]
    if not parts or rate >= 1:
        return 0.0
    confidence, weight = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(-confidence, kind="stable")
    accepted = np.cumsum(weight[order]) / weight.sum()
    within = int(np.searchsorted(accepted, rate + 1e-9, side="right"))
    if within == len(order):
        return 0.0
    # Just above the first one that is too many, and so above all that are equal to it.
    return float(np.nextafter(np.float32(confidence[order[within]]), np.float32(2)))


def moved(lowest: float, scores: np.ndarray, y: np.ndarray, first: int, temperature: float) -> float:
    """The threshold among more classes that was fitted as `lowest` among the `first` ones.

    scores (n, C) are of pictures of the classes y (n,), all among the first, which are taken out of the candidates:
    of these pictures as many are accepted among all classes as were among the first. Shares get smaller the more
    classes there are, and with one threshold for all numbers of them nothing would be known in the end.
    """
    unknown = scores.astype(np.float64)
    unknown[np.arange(len(y)), y] = -np.inf
    before, now = (
        calibration.probabilities(each, temperature).max(axis=1) for each in (unknown[:, :first], unknown)
    )
    return float(np.interp(lowest, [0, *np.sort(before), 1], [0, *np.sort(now), 1]))


def accepted(found: Iterable[tuple[OpenSetSplit, float]]) -> dict[str, Any]:
    """Shares of pictures accepted at each trial's threshold, as means over classes, of unknown, seen and unseen
    classes; None for a side without pictures. Also how many pictures of unknown classes were judged."""
    shares: dict[str, list[tuple[float, float]]] = {"unknown": [], "seen": [], "unseen": []}
    judged = 0
    for trial, lowest in found:
        known = trial.confidence >= lowest
        sides = {
            "unknown": trial.unknown,
            "seen": ~trial.unknown & trial.seen,
            "unseen": ~trial.unknown & ~trial.seen,
        }
        judged += int(trial.unknown.sum())
        for side, rows in sides.items():
            weight = _weights(trial.y[rows])
            shares[side].append((float(weight @ known[rows]), float(weight.sum())))
    totals = {side: np.sum(parts, axis=0) if parts else (0.0, 0.0) for side, parts in shares.items()}
    rates = {side: float(part / total) if total else None for side, (part, total) in totals.items()}
    return {"accepted": rates, "pictures": judged}


def _weights(y: np.ndarray) -> np.ndarray:
    """(n,) one over the number of pictures of the same class."""
    return 1 / np.bincount(y)[y] if len(y) else np.zeros(0)
