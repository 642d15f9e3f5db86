"""Choosing a mapper's settings, the seen offset and the temperature on pretend-unseen classes.

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
from ayeaye.labelling import calibration, nearest
from ayeaye.mapping import MAPPERS, Mapper, create
from ayeaye.pipeline.examples import Examples

TUNING = ("train", "validation")


@dataclass(frozen=True)
class Choice:
    """The settings chosen, with the offset and the temperature that go with them.

    `ranking` has one row per candidate, best first: settings, and the mean and spread over folds of its
    figures.
    """

    mapper: str
    settings: dict[str, Any]
    gamma: float
    temperature: float
    ranking: list[dict[str, Any]] = field(default_factory=list)

    def fit(self, examples: Examples, rows: np.ndarray, *, seed: int, device: str) -> Mapper:
        mapper = create(self.mapper, **self.settings)
        return mapper.fit(examples.X[rows], examples.y[rows], examples.A, seed=seed, device=device)


def class_folds(pool: np.ndarray, folds: int) -> list[np.ndarray]:
    """Masks (C,) that part the classes of `pool` (C,) into at most `folds` folds of nearly equal size.

    Raises DataError where fewer than two classes can stand in.
    """
    members = np.flatnonzero(pool)
    if len(members) < 2:
        raise DataError(
            f"{len(members)} seen classes can stand in for unseen ones, at least 2 are needed: "
            "add seen classes, or raise prepare.validation_classes where the backbone is trained here"
        )
    parts = [members[start::folds] for start in range(min(folds, len(members)))]
    return [np.isin(np.arange(len(pool)), part) for part in parts]


def select(
    mapper: str,
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    known: np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """The settings of `mapper` with the best mean AUSUC over the folds, and the offset and temperature for them.

    `known` (C,) are the seen classes that may be looked at at all (none given: every seen class).
    """
    known = examples.seen if known is None else known
    grid = MAPPERS[mapper].grid()
    total, done = len(grid) * len(folds), 0
    tried = []
    for settings in grid:
        scored = []
        for fold in folds:
            scored.append(score_fold(create(mapper, **settings), examples, fold & known, known, seed, device))
            done += 1
            if progress:
                progress(done, total)
        tried.append((settings, scored))
    figures = [_figures(scored) for _, scored in tried]
    # A stable sort: among equals the earlier, simpler setting of the grid wins.
    order = sorted(range(len(tried)), key=lambda i: -figures[i]["score"])
    settings, scored = tried[order[0]]
    gamma = _offset(scored)
    temperature = _temperature(scored, gamma)
    ranking = [{"mapper": mapper, "settings": tried[i][0], **figures[i]} for i in order]
    return Choice(mapper, settings, gamma, temperature, ranking)


def score_fold(
    mapper: Mapper,
    examples: Examples,
    fold: np.ndarray,
    known: np.ndarray,
    seed: int,
    device: str,
    *,
    pretend: Sequence[str] = TUNING,
    held_out: Sequence[str] = ("validation",),
) -> Fold:
    """Fit on the training pictures of `known` classes outside `fold`, and score what was held out.

    Scored are pictures of the fold's classes from the splits `pretend`, and of the other known classes from
    the splits `held_out`. The columns of the scores are the known classes alone.
    """
    inside = fold[examples.y]
    allowed = known[examples.y]
    fit_rows = allowed & ~inside & examples.rows("train")
    mapper.fit(examples.X[fit_rows], examples.y[fit_rows], examples.A, seed=seed, device=device)
    rows = scored_rows(examples, fold, known, pretend, held_out)
    columns = np.flatnonzero(known)
    number = np.full(len(known), -1)
    number[columns] = np.arange(len(columns))
    classes = mapper.map_classes(examples.A)[columns]
    scores = nearest.scores(mapper.map_images(examples.X[rows]), classes)
    return Fold(scores, number[examples.y[rows]], ~fold[columns], 0.0)


def scored_rows(
    examples: Examples, fold: np.ndarray, known: np.ndarray, pretend: Sequence[str], held_out: Sequence[str]
) -> np.ndarray:
    """Row numbers of the pictures that `score_fold` scores."""
    inside = fold[examples.y]
    allowed = known[examples.y]
    wanted = (inside & examples.rows(*pretend)) | (~inside & examples.rows(*held_out))
    return np.flatnonzero(allowed & wanted)


def _figures(folds: Sequence[Fold]) -> dict[str, Any]:
    """Mean and spread over folds of T1, the best H along the curve, and AUSUC."""
    each = [point_figures(fold.scores, fold.y, fold.seen, _offset([fold])) for fold in folds]
    result: dict[str, Any] = {}
    for name in ("T1", "H", "AUSUC"):
        values = np.array([figures[name] for figures in each if name in figures], float)
        result[name] = float(values.mean()) if len(values) else None
        result[f"{name}_spread"] = float(values.std()) if len(values) else None
    # Without held-out pictures of seen classes there is no curve, and T1 decides.
    result["score"] = result["T1"] if result["AUSUC"] is None else result["AUSUC"]
    return result


def _offset(folds: Sequence[Fold]) -> float:
    """The offset with the best mean H; 0 where no picture of a seen class was held out to balance against."""
    both = [fold for fold in folds if fold.seen[fold.y].any() and not fold.seen[fold.y].all()]
    return calibration.choose_gamma_over([(fold.scores, fold.y, fold.seen) for fold in both]) if both else 0.0


def _temperature(folds: Sequence[Fold], gamma: float) -> float:
    scores = np.concatenate([calibration.stack(fold.scores, fold.seen, gamma) for fold in folds])
    return calibration.fit_temperature(scores, np.concatenate([fold.y for fold in folds]))
