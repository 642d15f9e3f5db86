"""Folds of classes: some seen classes stand in for unseen ones, and what is fitted and scored without them.

Nothing here looks at a test picture, unless the caller names the splits of a fold for an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ayeaye.core.errors import DataError
from ayeaye.evaluation.metrics import Fold
from ayeaye.mappers import Mapper
from ayeaye.mappers.base import frozen, unit
from ayeaye.pipeline.examples import Examples

TUNING = ("train", "validation")


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


@dataclass
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
    _unit: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    def score(self, mapper: Mapper, seed: int, device: str, columns: Sequence[int] | None = None) -> Fold:
        """Scores of the mapper once it is fitted, on the `columns` [first, last) of the class vectors."""
        A = self.A if columns is None else self.A[:, slice(*columns)]
        mapper.fit(self.X_fit, self.y_fit, A, seed=seed, device=device)
        classes = mapper.map_classes(A)[self.columns]
        return Fold(self._mapped(mapper) @ unit(classes).T, self.y, self.seen, 0.0)

    def _mapped(self, mapper: Mapper) -> np.ndarray:
        """(n, m) unit rows; settings that map images alike share them."""
        images = mapper.map_images(self.X)
        if self._unit is None or self._unit[0] is not images:
            self._unit = images, unit(images)
        return self._unit[1]


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
        X_fit=frozen(examples.X[fitted]),
        y_fit=frozen(examples.y[fitted]),
        A=examples.A,
        X=frozen(examples.X[rows]),
        y=number[examples.y[rows]],
        seen=~fold[columns],
        columns=columns,
        rows=rows,
    )
