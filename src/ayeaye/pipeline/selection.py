"""Choosing a mapper's settings and how its scores are read, on pretend-unseen classes.

A fold takes some seen classes out of training and asks how well they are labelled from their class vectors
alone, beside held-out pictures of the classes that stayed. Nothing here looks at a test picture, unless the
caller names the splits of one fold for an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ayeaye.errors import DataError
from ayeaye.evaluation.metrics import Fold, point_figures
from ayeaye.labelling import calibration, hubs, nearest, unknown
from ayeaye.labelling.hubs import Correction
from ayeaye.mapping import MAPPERS, Mapper, create
from ayeaye.pipeline.examples import Examples

TUNING = ("train", "validation")


@dataclass(frozen=True)
class Choice:
    """The settings chosen, with the hub correction, offset, temperature and threshold that go with them.

    `threshold` is the confidence below which a picture is of none of the classes. `ranking` has one row per
    candidate, the chosen one first, then by score: settings, and the mean and spread over folds of its
    figures; `corrections` the same of the hub corrections tried on the chosen settings, with the mean gain in
    the figure that decides.
    """

    mapper: str
    settings: dict[str, Any]
    gamma: float
    temperature: float
    threshold: float = 0.0
    hubs: str = "none"
    hub_settings: dict[str, Any] = field(default_factory=dict)
    ranking: list[dict[str, Any]] = field(default_factory=list)
    corrections: list[dict[str, Any]] = field(default_factory=list)

    def fit(self, examples: Examples, rows: np.ndarray, *, seed: int, device: str) -> Mapper:
        mapper = create(self.mapper, **self.settings)
        return mapper.fit(examples.X[rows], examples.y[rows], examples.A, seed=seed, device=device)

    def correct(
        self, examples: Examples, known: np.ndarray, columns: np.ndarray, *, seed: int, device: str
    ) -> Correction:
        """The hub correction of the classes `columns`, by a bank of pictures of the `known` classes (C,).

        The bank are their validation pictures under a mapper fitted on their training pictures alone: under
        one that has learned them they would be nearer to their classes than any picture that is to come.
        """
        if self.hubs == "none":
            return Correction()
        of_known = known[examples.y]
        mapper = self.fit(examples, of_known & examples.rows("train"), seed=seed, device=device)
        bank = of_known & examples.rows("validation")
        classes = mapper.map_classes(examples.A[columns])
        scores = nearest.scores(mapper.map_images(examples.X[bank]), classes)
        return hubs.fit(self.hubs, self.hub_settings, scores)


def class_folds(pool: np.ndarray, folds: int, repeats: int = 1, seed: int = 0) -> list[np.ndarray]:
    """Masks (C,) that part the classes of `pool` (C,) into at most `folds` folds of nearly equal size.

    With `repeats` the classes are parted so often, each time at random. Raises DataError where fewer than two
    classes can stand in.
    """
    members = np.flatnonzero(pool)
    if len(members) < 2:
        raise DataError(
            f"{len(members)} seen classes can stand in for unseen ones, at least 2 are needed: "
            "add seen classes, or raise prepare.validation_classes where the backbone is trained here"
        )
    chance = np.random.default_rng(seed)
    orders = [chance.permutation(members) if repeats > 1 else members for _ in range(repeats)]
    parts = [order[start::folds] for order in orders for start in range(min(folds, len(members)))]
    return [np.isin(np.arange(len(pool)), part) for part in parts]


def select(
    mapper: str,
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    known: np.ndarray | None = None,
    correction: str = "none",
    false_accept: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """The most regular settings of `mapper` that are as good as the best by mean AUSUC over the folds, with the
    hub correction, the offset, the temperature and the threshold for them.

    `known` (C,) are the seen classes that may be looked at at all (none given: every seen class). `correction`
    is a kind of hub correction, of which the settings with the highest mean AUSUC are taken, or `auto` for the
    best of all kinds; of these another than `none` must gain more than the standard error of its gain, fold by
    fold.
    `false_accept` is the share of pictures of unknown classes that may be accepted.
    """
    known = examples.seen if known is None else known
    grid = MAPPERS[mapper].grid()
    scored: list[list[Fold]] = [[] for _ in grid]
    # Folds outside, settings inside: what a mapper derives from the images alone it derives once a fold.
    for number, fold in enumerate(folds):
        held = hold_out(examples, fold & known, known)
        for place, settings in enumerate(grid):
            scored[place].append(held.score(create(mapper, **settings), seed, device))
            if progress:
                progress(number * len(grid) + place + 1, len(grid) * len(folds))
    figures = [_figures(each) for each in scored]
    chosen = most_regular(figures)
    order = sorted(range(len(grid)), key=lambda place: (place != chosen, -figures[place]["score"]))
    ranking = [{"mapper": mapper, "settings": grid[place], **figures[place]} for place in order]
    corrections = _candidates(correction, scored[chosen])
    corrected = [_corrected(scored[chosen], each["hubs"], each["settings"]) for each in corrections]
    tried = _gains(scored[chosen], corrected)
    best = max(range(len(tried)), key=lambda place: tried[place]["gain"])
    if correction == "auto" and tried[best]["gain"] <= tried[best]["gain_error"]:
        best = 0
    taken = corrected[best]
    gamma = _offset(taken)
    temperature = _temperature(taken, gamma)
    trials = (trial for fold in taken for trial in unknown.trials(fold._replace(gamma=gamma), temperature))
    return Choice(
        mapper,
        grid[chosen],
        gamma,
        temperature,
        unknown.threshold(trials, false_accept),
        corrections[best]["hubs"],
        corrections[best]["settings"],
        ranking,
        [{**each, **gain} for each, gain in zip(corrections, tried, strict=True)],
    )


def most_regular(figures: Sequence[dict[str, Any]]) -> int:
    """The first candidate, in the grid's order of regularity, that is as good as the best one.

    As good is within one standard error of the best mean over folds (Breiman et al. 1984): a few classes
    differ so much that the very best of many settings is mostly the luckiest.
    """
    best = max(figures, key=lambda each: each["score"])
    margin = best["score_error"]
    return next(place for place, each in enumerate(figures) if each["score"] >= best["score"] - margin)


def _candidates(correction: str, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """The hub corrections to try, `none` the first of `auto`, and the only one without a bank to fit others on."""
    with_bank = all(fold.seen[fold.y].any() for fold in folds)
    kinds: Sequence[str] = (correction,)
    if correction == "auto":
        kinds = hubs.KINDS if with_bank else ("none",)
    return [{"hubs": kind, "settings": settings} for kind in kinds for settings in hubs.GRIDS[kind]]


def _corrected(folds: Sequence[Fold], kind: str, settings: dict[str, Any]) -> list[Fold]:
    """Folds as a correction leaves them, its bank the held-out pictures of the classes that stayed.

    These are scored, too, and lie among their own neighbours, which speaks against the correction a little.
    """
    return [
        fold._replace(scores=hubs.fit(kind, settings, fold.scores[fold.seen[fold.y]]).apply(fold.scores))
        for fold in folds
    ]


def _gains(plain: Sequence[Fold], corrected: Sequence[Sequence[Fold]]) -> list[dict[str, float]]:
    """The mean gain of each over the plain folds in the figure that decides, and its standard error."""
    before = np.array([_decisive(fold) for fold in plain])
    gains = [np.array([_decisive(fold) for fold in folds]) - before for folds in corrected]
    return [
        {"gain": float(each.mean()), "gain_error": float(each.std() / np.sqrt(len(each)))} for each in gains
    ]


def _decisive(fold: Fold) -> float:
    """AUSUC, or T1 where a side has no pictures and there is no curve."""
    figures = point_figures(fold.scores, fold.y, fold.seen, 0.0)
    return figures.get("AUSUC", figures.get("T1", 0.0))


@dataclass(frozen=True)
class HeldOut:
    """A fold: what is fitted on without it, and the rows (n,) of the examples that are scored.

    The columns of the scores are the known classes alone; y (n,) are their numbers, seen (C',) says which of
    them were not held out.
    """

    X_fit: np.ndarray
    y_fit: np.ndarray
    A: np.ndarray
    X: np.ndarray
    y: np.ndarray
    seen: np.ndarray
    columns: np.ndarray
    rows: np.ndarray

    def score(self, mapper: Mapper, seed: int, device: str) -> Fold:
        mapper.fit(self.X_fit, self.y_fit, self.A, seed=seed, device=device)
        classes = mapper.map_classes(self.A)[self.columns]
        return Fold(nearest.scores(mapper.map_images(self.X), classes), self.y, self.seen, 0.0)


def hold_out(
    examples: Examples,
    fold: np.ndarray,
    known: np.ndarray,
    *,
    fit: Sequence[str] = ("train",),
    pretend: Sequence[str] = TUNING,
    held_out: Sequence[str] = ("validation",),
) -> HeldOut:
    """Part the pictures of `known` classes (C,) by `fold` (C,).

    Fitted on are those outside the fold from the splits `fit`; scored are those of the fold's classes from the
    splits `pretend`, and of the other known classes from the splits `held_out`.
    """
    inside, allowed = fold[examples.y], known[examples.y]
    fitted = allowed & ~inside & examples.rows(*fit)
    wanted = (inside & examples.rows(*pretend)) | (~inside & examples.rows(*held_out))
    rows = np.flatnonzero(allowed & wanted)
    columns = np.flatnonzero(known)
    number = np.full(len(known), -1)
    number[columns] = np.arange(len(columns))
    return HeldOut(
        X_fit=examples.X[fitted],
        y_fit=examples.y[fitted],
        A=examples.A,
        X=examples.X[rows],
        y=number[examples.y[rows]],
        seen=~fold[columns],
        columns=columns,
        rows=rows,
    )


def _figures(folds: Sequence[Fold]) -> dict[str, Any]:
    """Mean and spread over folds of T1, the best H along the curve, and AUSUC."""
    each = [point_figures(fold.scores, fold.y, fold.seen, _offset([fold])) for fold in folds]
    result: dict[str, Any] = {}
    for name in ("T1", "H", "AUSUC"):
        values = np.array([figures[name] for figures in each if name in figures], float)
        result[name] = float(values.mean()) if len(values) else None
        result[f"{name}_spread"] = float(values.std()) if len(values) else None
    # Without held-out pictures of seen classes there is no curve, and T1 decides.
    decides = "T1" if result["AUSUC"] is None else "AUSUC"
    result["score"] = result[decides] or 0.0
    result["score_error"] = (result[f"{decides}_spread"] or 0.0) / np.sqrt(len(folds))
    return result


def _offset(folds: Sequence[Fold]) -> float:
    """The offset with the best mean H; 0 where no picture of a seen class was held out to balance against."""
    both = [fold for fold in folds if fold.seen[fold.y].any() and not fold.seen[fold.y].all()]
    return calibration.choose_gamma_over([(fold.scores, fold.y, fold.seen) for fold in both]) if both else 0.0


def _temperature(folds: Sequence[Fold], gamma: float) -> float:
    scores = np.concatenate([calibration.stack(fold.scores, fold.seen, gamma) for fold in folds])
    return calibration.fit_temperature(scores, np.concatenate([fold.y for fold in folds]))
