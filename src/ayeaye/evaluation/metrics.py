"""Zero-shot figures: T1, U, S, H, AUSUC, seen bias and its reverse, AUROC; each a mean over classes.

A class weighs the same whether it has ten pictures or a thousand; one without a picture is left out, never
counted as 0. A side (seen or unseen) without any picture gives None. Ties are settled the same way every
time: between classes of one side the lower index wins, between the sides the unseen one.

Definitions: Xian et al. (2019) for T1, U, S, H; Chao et al. (2016) for calibrated stacking and AUSUC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ayeaye.core.errors import DataError
from ayeaye.evaluation import bootstrap
from ayeaye.evaluation.hubness import hubness

FIGURES = ("T1", "U", "S", "H", "AUSUC", "seen_bias", "unseen_bias", "unseen_auroc")
CURVE_POINTS = 200


class Fold(NamedTuple):
    """One classifier's scores (n, C) before the offset, labels (n,), seen (C,) bool, and the offset γ."""

    scores: np.ndarray
    y: np.ndarray
    seen: np.ndarray
    gamma: float


@dataclass(frozen=True)
class Rows:
    """One row per picture and fold, with all that the figures need to know of its scores.

    `gap` is max_seen - max_unseen - γ: above 0 the answer is a seen class; `raw_gap` is without γ.
    `seen_right` and `unseen_right` say whether the best class of that side is the true one. `weight` sums to
    1 on each side, and is the same for each class of a side and each fold of a class. `unit` tells which rows
    are resampled together, `stratum` in which stratum each unit is.
    """

    y: np.ndarray
    fold: np.ndarray
    unseen: np.ndarray
    gap: np.ndarray
    raw_gap: np.ndarray
    seen_right: np.ndarray
    unseen_right: np.ndarray
    t1_right: np.ndarray
    weight: np.ndarray
    unit: np.ndarray
    stratum: np.ndarray

    def right(self, gap: np.ndarray) -> np.ndarray:
        """Whether each row's answer among all classes is the true one."""
        return np.where(self.unseen, (gap <= 0) & self.unseen_right, (gap > 0) & self.seen_right)


def per_class_accuracy(predicted: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Top-1 accuracy of each class (C,), NaN for a class without pictures."""
    pictures = np.bincount(y, minlength=classes)
    right = np.bincount(y[predicted == y], minlength=classes)
    return np.divide(right, pictures, out=np.full(classes, np.nan), where=pictures > 0)


def measure(
    scores: np.ndarray,
    y: np.ndarray,
    seen: np.ndarray,
    gamma: float,
    *,
    evaluated: np.ndarray | None = None,
    k: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Every figure of one classifier on pictures of seen and of unseen classes, ready for JSON.

    `scores` (n, C) before the offset, `y` (n,) class indices, `seen` (C,) bool. `evaluated` (C,) bool are the
    classes that count as unseen (none given: all that are not seen): T1 labels among them, U is of their
    pictures. A class that is neither stays an answer that can be given, but its pictures do not count.
    Hubness is measured after the offset. Raises DataError on scores that are not finite and on shapes or
    labels that do not fit.
    """
    marks = None if evaluated is None else [evaluated]
    return _measure([Fold(scores, y, seen, gamma)], marks, k, resamples, seed, confidence, "unseen classes")


def measure_folds(
    folds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, float]],
    *,
    evaluated: Sequence[np.ndarray] | None = None,
    k: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The same figures where seen classes stand in for unseen ones: one (scores, y, seen, γ) per fold.

    All folds have the same C columns. A class that is pretend-unseen in one fold counts once in T1 and U; a
    seen class counts once in S, as the mean over the folds that know it. The seen–unseen curve is pooled at
    equal distance from each fold's γ. Hubness is the mean over folds.
    """
    if not folds:
        raise DataError("no class folds to measure: at least one is needed")
    return _measure([Fold(*fold) for fold in folds], evaluated, k, resamples, seed, confidence, "class folds")


def paired_differences(
    new: Fold, old: Fold, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, dict[str, Any]]:
    """How much larger each of FIGURES is for `new` than for `old`: `difference`, and its `interval` from a paired
    bootstrap.

    Both score the same pictures over the same columns in the same roles, each with its own offset; raises
    DataError where they do not. Figures of a side without pictures are left out.
    """
    if not (np.array_equal(new.y, old.y) and np.array_equal(new.seen, old.seen)):
        raise DataError("two classifiers are compared on different pictures or roles: give both the same")
    sides = [_rows([fold], None) for fold in (new, old)]
    now, before = (_figures(rows, rows.weight[None]) for rows in sides)
    # The same seed and strata draw the same pictures for both.
    drawn_now, drawn_before = (_resampled(rows, resamples, seed) for rows in sides)
    return {
        name: {
            "difference": float(now[name][0] - before[name][0]),
            "interval": bootstrap.interval(drawn_now[name] - drawn_before[name], confidence),
        }
        for name in now
    }


def point_figures(scores: np.ndarray, y: np.ndarray, seen: np.ndarray, gamma: float) -> dict[str, float]:
    """The names of FIGURES with their point estimates alone, of which many are wanted while settings are chosen.

    Those of a side without pictures are left out.
    """
    fold = Fold(scores, y, seen, gamma)
    rows = _rows([fold], [~np.asarray(seen, dtype=bool)])
    return {name: float(values[0]) for name, values in _figures(rows, rows.weight[None]).items()}


def curve_figures(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """T1, AUSUC and the highest H along the curve, none of which depends on an offset, from one sort.

    For comparing many candidates; those of a side without pictures are left out.
    """
    seen = np.asarray(seen, dtype=bool)
    of_seen = seen[y]
    counts = np.bincount(y, minlength=len(seen))
    classes = np.where(of_seen, np.sum(counts[seen] > 0), np.sum(counts[~seen] > 0))
    weight = 1 / (counts[y] * classes)
    best_seen, top_seen = _top(scores, np.flatnonzero(seen))
    best_unseen, top_unseen = _top(scores, np.flatnonzero(~seen))
    won = weight * (~of_seen & (best_unseen == y))
    lost = weight * (of_seen & (best_seen == y))
    figures = {} if of_seen.all() else {"T1": float(won.sum())}
    if not of_seen.all() and of_seen.any():
        gap = top_seen - top_unseen
        order = np.argsort(gap, kind="stable")
        starts = np.flatnonzero(np.diff(gap[order], prepend=-np.inf) > 0)
        won, lost = np.add.reduceat(won[order], starts), np.add.reduceat(lost[order], starts)
        U = np.r_[0.0, np.cumsum(won)]
        S = lost.sum() - np.r_[0.0, np.cumsum(lost)]
        figures["H"] = float(np.max(bootstrap.harmonic_mean(U, S)))
        figures["AUSUC"] = float(np.sum(lost * (U[1:] - won / 2)))
    return figures


def curve(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """The exact seen–unseen curve: U and S (P,) from γ = `gamma[i]` up to the next, from one sort.

    The first point is γ = -∞ (every answer a seen class), the last one labels every picture as unseen.
    """
    rows = _rows([Fold(scores, y, seen, 0.0)], None)
    return _curve(rows)


def confusion(
    folds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, float]], classes: Sequence[int]
) -> np.ndarray:
    """Shares (m, m) of the pictures of each class (row) labelled as each class (column), of unseen classes.

    The answers are among `classes` that are unseen in the fold. A row without pictures is NaN. For a single
    measurement give one fold.
    """
    place = {int(c): i for i, c in enumerate(classes)}
    counts = np.zeros((len(place), len(place)))
    for scores, y, seen, _ in folds:
        open_columns = np.array([c for c in place if not seen[c]], dtype=np.int64)
        mine = np.isin(y, open_columns)
        if not mine.any():
            continue
        answer, _ = _top(scores[mine], open_columns)
        np.add.at(counts, ([place[int(c)] for c in y[mine]], [place[int(c)] for c in answer]), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Stated confidence against accuracy in bins of equal width, and their mean distance.

    The mean distance is `ece`, the expected calibration error (Guo et al., 2017); None without a picture.
    Empty bins are left out.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not (np.isfinite(confidence).all() and np.isfinite(correct).all()):
        raise DataError("the confidences hold NaN: reliability needs one number per picture")
    where = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    pictures = np.bincount(where, minlength=bins)
    filled = pictures > 0
    stated = np.bincount(where, confidence, bins)[filled] / pictures[filled]
    found = np.bincount(where, correct, bins)[filled] / pictures[filled]
    shares = pictures[filled] / max(1, len(confidence))
    return {
        "confidence": stated.tolist(),
        "accuracy": found.tolist(),
        "pictures": pictures[filled].tolist(),
        "ece": float(np.sum(shares * np.abs(stated - found))) if len(confidence) else None,
    }


def _measure(
    folds: list[Fold],
    evaluated: Sequence[np.ndarray] | None,
    k: int,
    resamples: int,
    seed: int,
    confidence: float,
    estimated_on: str,
) -> dict[str, Any]:
    marks = [~np.asarray(fold.seen, dtype=bool) for fold in folds] if evaluated is None else list(evaluated)
    rows = _rows(folds, marks)
    point = {name: float(values[0]) for name, values in _figures(rows, rows.weight[None]).items()}
    drawn = _resampled(rows, resamples, seed) if len(rows.y) else {}
    baselines = _baselines(folds, marks, rows)
    chance = baselines["T1"]
    if chance is not None and chance < 1:
        point["T1_above_chance"] = (point["T1"] - chance) / (1 - chance)
        drawn["T1_above_chance"] = (drawn["T1"] - chance) / (1 - chance)
    names = (*FIGURES, "T1_above_chance")
    per_class, hubs = _per_class(rows, confidence), _hubness(folds, marks, k, seed)
    for record in per_class:
        record["neighbours"] = hubs["relative"][record["class"]]
    return {
        **{name: point.get(name) for name in names},
        "chance": chance,
        "hubness": hubs,
        "intervals": {
            name: bootstrap.interval(drawn[name], confidence) if name in point else None for name in names
        },
        "confidence": confidence,
        "baselines": baselines,
        "uncalibrated": _at(rows, rows.raw_gap),
        "gamma": float(np.mean([fold.gamma for fold in folds])),
        "counts": _counts(folds, marks, rows),
        "estimated_on": estimated_on,
        "per_class": per_class,
        "curve": _thinned(_curve(rows), float(np.mean([fold.gamma for fold in folds]))),
    }


def _rows(folds: Sequence[Fold], marks: Sequence[np.ndarray] | None) -> Rows:
    if marks is None:
        marks = [~np.asarray(fold.seen, dtype=bool) for fold in folds]
    if len(marks) != len(folds) or len({np.shape(fold.scores)[-1] for fold in folds}) != 1:
        raise DataError("class folds differ in their classes: every fold needs scores over the same columns")
    judged = [_judge(fold, np.asarray(mark, dtype=bool)) for fold, mark in zip(folds, marks, strict=True)]
    fold = np.repeat(np.arange(len(judged)), [len(columns["y"]) for columns in judged])
    joined = {name: np.concatenate([columns[name] for columns in judged]) for name in judged[0]}
    y, side = joined["y"], joined["unseen"].astype(np.int64)
    unit, stratum = _units(y, side, fold)
    return Rows(**joined, fold=fold, weight=_weights(y, side, fold), unit=unit, stratum=stratum)


def _judge(fold: Fold, evaluated: np.ndarray) -> dict[str, np.ndarray]:
    scores, y, seen = np.asarray(fold.scores), np.asarray(fold.y), np.asarray(fold.seen, dtype=bool)
    _check(scores, y, seen, evaluated, fold.gamma)
    counted = (seen | evaluated)[y]
    scores, y = scores[counted], y[counted]
    best_seen, max_seen = _top(scores, np.flatnonzero(seen))
    best_unseen, max_unseen = _top(scores, np.flatnonzero(~seen))
    best_evaluated, _ = _top(scores, np.flatnonzero(evaluated))
    gap = max_seen - max_unseen
    return {
        "y": y,
        "unseen": evaluated[y],
        "gap": gap - fold.gamma,
        "raw_gap": gap,
        "seen_right": best_seen == y,
        "unseen_right": best_unseen == y,
        "t1_right": best_evaluated == y,
    }


def _check(scores: np.ndarray, y: np.ndarray, seen: np.ndarray, evaluated: np.ndarray, gamma: float) -> None:
    if scores.ndim != 2 or y.shape != scores.shape[:1] or {seen.shape, evaluated.shape} != {scores.shape[1:]}:
        raise DataError(
            f"scores {scores.shape}, labels {y.shape}, seen {seen.shape} and evaluated {evaluated.shape} "
            "do not fit: expected (n, C), (n,), (C,) and (C,)"
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise DataError(f"scores of {bad} of {len(scores)} pictures hold NaN or infinity: check the mapper")
    if not np.isfinite(gamma):
        raise DataError(f"the offset is {gamma}: expected a finite number")
    if len(y) and (y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= scores.shape[1]):
        raise DataError(f"labels must be whole numbers from 0 to {scores.shape[1] - 1}, one per picture")
    if (seen & evaluated).any():
        both = np.flatnonzero(seen & evaluated).tolist()
        raise DataError(f"classes {both[:5]} count as seen and as unseen: give each class one role")


def _top(scores: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best class (n,) of some columns, and its score as float64; -1 and -∞ where there are no columns."""
    if not len(columns):
        return np.full(len(scores), -1), np.full(len(scores), -np.inf)
    part = scores[:, columns]
    best = part.argmax(axis=1)
    return columns[best], part[np.arange(len(part)), best].astype(np.float64)


def _weights(y: np.ndarray, side: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 on each side: equal per class, within it per fold, within that per picture."""
    group, sizes = _groups(side, y, fold)
    weight = 1.0 / sizes[group]
    whole, _ = _groups(side, y)
    weight /= np.bincount(whole, weight)[whole] if len(y) else 1.0
    return weight / np.bincount(side, weight)[side] if len(y) else weight


def _units(y: np.ndarray, side: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each row, and the stratum of each unit.

    Where a class has as many pictures in several folds, its first rows there are one unit, and so on: the
    same pictures scored by each fold's classifier, whose errors go together. Were they different pictures,
    the variance would still be right.
    """
    group, sizes = _groups(side, y, fold)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(y), dtype=np.int64)
    rank[order] = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    key = np.stack([side, y, sizes[group] if len(y) else y, rank])
    units, unit = np.unique(key, axis=1, return_inverse=True)
    # A class with different numbers of pictures in two folds makes two strata: one number for both keys.
    label = units[1] * (int(sizes.max(initial=0)) + 1) + units[2]
    return unit.reshape(-1), bootstrap.strata_of(label, units[0])


def _groups(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each row's combination of keys, and the size of each."""
    group = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)
    return group, np.bincount(group)


def _figures(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every figure (b,) under weights (b, rows); those of a side without rows are left out."""
    out: dict[str, np.ndarray] = {}
    unseen, as_seen, right = rows.unseen, rows.gap > 0, rows.right(rows.gap)
    if unseen.any():
        out["T1"] = weights @ (unseen & rows.t1_right)
        out["U"] = weights @ (unseen & right)
        out["seen_bias"] = weights @ (unseen & as_seen)
    if not unseen.all():
        out["S"] = weights @ (~unseen & right)
        out["unseen_bias"] = weights @ (~unseen & ~as_seen)
    if "U" in out and "S" in out:
        out["H"] = bootstrap.harmonic_mean(out["U"], out["S"])
        out["AUSUC"], out["unseen_auroc"] = _areas(rows, weights)
    return {name: np.clip(values, 0.0, 1.0) for name, values in out.items()}


def _areas(rows: Rows, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the seen–unseen curve, and AUROC of the gap, both (b,), from one sort of the gap."""
    order = np.argsort(rows.gap, kind="stable")
    level = rows.gap[order]
    starts = np.flatnonzero(np.r_[True, level[1:] > level[:-1]])
    weights, unseen = weights[:, order], rows.unseen[order]

    def steps(mask: np.ndarray) -> np.ndarray:
        return np.add.reduceat(weights * mask, starts, axis=1)

    won, lost = steps(unseen & rows.unseen_right[order]), steps(~unseen & rows.seen_right[order])
    # Each step moves from (S, U) to (S - lost, U + won): a trapezium, slanted where ties move both at once.
    ausuc = np.sum(lost * (np.cumsum(won, axis=1) - won / 2), axis=1)
    unseen_here, seen_here = steps(unseen), steps(~unseen)
    below = np.cumsum(unseen_here, axis=1) - unseen_here / 2
    return ausuc, np.sum(seen_here * below, axis=1)


def _resampled(rows: Rows, resamples: int, seed: int) -> dict[str, np.ndarray]:
    blocks = [
        _figures(rows, block[:, rows.unit] * rows.weight)
        for block in bootstrap.resample(rows.stratum, resamples, seed)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _curve(rows: Rows) -> dict[str, np.ndarray]:
    order = np.argsort(rows.gap, kind="stable")
    level = rows.gap[order]
    last = np.flatnonzero(np.r_[level[1:] > level[:-1], np.ones(min(1, len(level)), dtype=bool)])
    weight, unseen = rows.weight[order], rows.unseen[order]
    won = np.cumsum(weight * (unseen & rows.unseen_right[order]))[last]
    lost = np.cumsum(weight * (~unseen & rows.seen_right[order]))[last]
    top = lost[-1] if len(lost) else 0.0
    return {
        "gamma": np.r_[-np.inf, level[last]],
        "unseen": np.clip(np.r_[0.0, won], 0, 1),
        "seen": np.clip(top - np.r_[0.0, lost], 0, 1),
    }


def _thinned(points: dict[str, np.ndarray], gamma: float) -> dict[str, list[float]]:
    """A curve of few points that looks the same: ends kept, the rest evenly along its length."""
    u, s = points["unseen"], points["seen"]
    moved = np.r_[0.0, np.cumsum(np.abs(np.diff(u)) + np.abs(np.diff(s)))]
    keep = np.unique(np.searchsorted(moved, np.linspace(0, moved[-1], CURVE_POINTS)).clip(0, len(u) - 1))
    level = points["gamma"] + gamma
    level[0] = level[1] if len(level) > 1 else 0.0
    return {"gamma": level[keep].tolist(), "unseen": u[keep].tolist(), "seen": s[keep].tolist()}


def _at(rows: Rows, gap: np.ndarray) -> dict[str, float | None]:
    """U, S, H when the answer is seen where `gap` > 0."""
    right = rows.weight * rows.right(gap)
    u = float(right[rows.unseen].sum()) if rows.unseen.any() else None
    s = float(right[~rows.unseen].sum()) if not rows.unseen.all() else None
    h = None if u is None or s is None else (2 * u * s / (u + s) if u + s else 0.0)
    return {"U": _plain(u), "S": _plain(s), "H": _plain(h)}


def _baselines(folds: list[Fold], marks: list[np.ndarray], rows: Rows) -> dict[str, float | None]:
    """What random scores would reach on average, None where the figure itself is."""
    n_seen = np.array([np.sum(fold.seen) for fold in folds], dtype=np.float64)[rows.fold]
    n_all = np.array([len(fold.seen) for fold in folds], dtype=np.float64)[rows.fold]
    n_evaluated = np.array([np.sum(mark) for mark in marks], dtype=np.float64)[rows.fold]
    u, s = rows.unseen, ~rows.unseen

    def mean(values: np.ndarray, side: np.ndarray) -> float | None:
        return float(np.sum(rows.weight[side] * values[side])) if side.any() else None

    both = u if s.any() else np.zeros_like(u)
    with np.errstate(divide="ignore"):
        area = 1 / (2 * n_seen * (n_all - n_seen))
        return {
            "T1": mean(1 / n_evaluated, u),
            "U": mean(1 / n_all, u),
            "S": mean(1 / n_all, s),
            "H": mean(1 / n_all, both),
            "AUSUC": mean(area, both),
            "seen_bias": mean(n_seen / n_all, u),
            "unseen_bias": mean(1 - n_seen / n_all, s),
            "unseen_auroc": 0.5 if both.any() else None,
        }


def _per_class(rows: Rows, confidence: float) -> list[dict[str, Any]]:
    """One record per class and role: accuracy among all classes, its Wilson interval, T1 where unseen."""
    right = rows.right(rows.gap)
    records = []
    for seen in (False, True):
        for c in np.unique(rows.y[rows.unseen != seen]):
            mine = (rows.y == c) & (rows.unseen != seen)
            share = rows.weight[mine] / rows.weight[mine].sum()
            accuracy, pictures = _plain(share @ right[mine]), len(np.unique(rows.unit[mine]))
            record = {
                "class": int(c),
                "seen": seen,
                "pictures": pictures,
                "accuracy": accuracy,
                "interval": bootstrap.wilson(accuracy or 0.0, pictures, confidence),
                "T1": None if seen else _plain(share @ rows.t1_right[mine]),
            }
            records.append(record)
    return records


def _hubness(folds: list[Fold], marks: list[np.ndarray], k: int, seed: int) -> dict[str, Any]:
    """Hubness of the scores after the offset; over several folds the mean of each figure."""
    parts = []
    for fold, mark in zip(folds, marks, strict=True):
        seen, y = np.asarray(fold.seen, dtype=bool), np.asarray(fold.y)
        counted = (seen | mark)[y]
        offset = (fold.gamma * seen).astype(np.float64)
        parts.append(hubness(np.asarray(fold.scores)[counted] - offset, y[counted], k, seed))
    filled = [part for part in parts if part["skewness"] is not None]
    if len(filled) < 2:
        whole = filled[0] if filled else parts[0]
        return {**whole, "relative": whole["relative"] or [None] * len(folds[0].seen)}
    return {
        name: max(part["k"] for part in filled)
        if name == "k"
        else np.mean([part[name] for part in filled], axis=0).tolist()
        for name in filled[0]
    }


def _counts(folds: list[Fold], marks: list[np.ndarray], rows: Rows) -> dict[str, int]:
    unseen = set(np.unique(rows.y[rows.unseen]).tolist())
    asked = {int(c) for mark in marks for c in np.flatnonzero(mark)}
    units = np.unique(np.stack([rows.unit, rows.unseen.astype(np.int64)]), axis=1)[1]
    return {
        "pictures_unseen": int(units.sum()),
        "pictures_seen": int((units == 0).sum()),
        "classes_unseen": len(unseen),
        "classes_seen": len(np.unique(rows.y[~rows.unseen])),
        "classes_without_pictures": len(asked - unseen),
        "classes": len(folds[0].seen),
        "folds": len(folds),
    }


def _plain(value: Any) -> float | None:
    return None if value is None else float(np.clip(value, 0.0, 1.0))
