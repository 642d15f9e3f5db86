"""What tells two classes apart, in the words that were said of them, and the straight way between the two.

A class vector is the sum of what was said of the class, each attribute, word or term with its own vector. The
sum is brought to unit length, centred and brought to unit length again, source by source. The way from one
class to another is straight between the sums: what is said of both alike stays where it is, so that it cannot
count, while the differences fade in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ayeaye.class_vectors.parts import Part
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.class_vectors.words import Summands
from ayeaye.core.errors import ClassSpaceError
from ayeaye.core.unit_vectors import unit, unit_gradients
from ayeaye.data.table import ClassTable

AGREEMENT = 1e-5  # how far a vector made again from what was said may be from the one in the space


@dataclass(frozen=True)
class Difference:
    """One attribute, word or term, and its value for either class: an attribute's number, a word's weight.

    `value` is that of the class at the end of the way, `against_value` of the one at its beginning.
    `readable` is False of a source taken as a whole, since nothing in it has a name.
    """

    name: str
    source: str
    value: float | None = None
    against_value: float | None = None

    @property
    def readable(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class PathSegment:
    """The way within one source of k dimensions: from `start` (k,) by the sum of `steps` (p, k)."""

    differences: list[Difference]
    start: np.ndarray
    steps: np.ndarray
    centre: np.ndarray  # (k,)
    sized: bool  # brought to unit length before it is centred, too
    size: float | None  # length in the class vector; None: as long as it is

    def vectors(self, times: np.ndarray) -> np.ndarray:
        """(q, k) at times (q,) between 0 and 1."""
        centred = self._stages(times)[1]
        return centred if self.size is None else self.size * unit(centred)

    def rates(self, times: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """(q, p): how fast each difference moves what has these gradients (q, k) by the vectors."""
        sums, centred = self._stages(times)
        if self.size is not None:
            gradients = unit_gradients(centred, self.size * gradients)
        if self.sized:
            gradients = unit_gradients(sums, gradients)
        return gradients @ self.steps.T

    def _stages(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(q, k) of the sums, and of what is brought to unit length in the end."""
        sums = self.start + times[:, None] * self.steps.sum(axis=0)
        return sums, (unit(sums) if self.sized else sums) - self.centre


@dataclass(frozen=True)
class Contrast:
    """The way from one class, at time 0, to another, at time 1, through a class space of k dimensions."""

    legs: list[PathSegment]

    @cached_property
    def differences(self) -> list[Difference]:
        """p of them: what is said of one class alone, or of one more than of the other."""
        return [difference for leg in self.legs for difference in leg.differences]

    def vectors(self, times: np.ndarray) -> np.ndarray:
        """Class vectors (q, k) float64 of unit length at times (q,)."""
        return unit(self._side_by_side(times))

    def rates(self, times: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """(q, p): how fast, at each time, each difference moves a function of the class vector.

        `gradients` (q, k) are those of the function by the class vectors at these times. The sum over the
        differences is the function's derivative by the time.
        """
        gradients = unit_gradients(self._side_by_side(times), gradients)
        ends = np.cumsum([len(leg.centre) for leg in self.legs])[:-1]
        own = np.split(gradients, ends, axis=1)
        return np.hstack([leg.rates(times, g) for leg, g in zip(self.legs, own, strict=True)])

    def _side_by_side(self, times: np.ndarray) -> np.ndarray:
        return np.hstack([leg.vectors(times) for leg in self.legs])


def contrast(space: ClassSpace, label: int, against: int) -> Contrast:
    """The way from the class in row `against` of the space to the one in row `label`.

    A source is one difference as a whole where nothing in it has a name, as in sentence vectors, and where what
    was said of a class was not kept or does not lead to its vector.
    """
    rows = [against, label]
    table, encoder = space.table(rows), space.encoder
    vectors = space.vectors[rows].astype(np.float64)
    parts = [vectors[:, slice(*space.sources[part.source])] for part in encoder.parts]
    sizes = [float(np.sqrt(weight / sum(encoder.weights))) for weight in encoder.weights]
    legs = [
        _read(part, table, unit(own), centre.astype(np.float64), size)
        for part, own, centre, size in zip(encoder.parts, parts, encoder.centres, sizes, strict=True)
    ]
    if not any(legs):
        # A class given by a vector may have more of one source than the encoder would give it.
        return Contrast([_whole(part, own, None) for part, own in zip(encoder.parts, parts, strict=True)])
    return Contrast(
        [
            leg or _whole(part, unit(own), size)
            for leg, part, own, size in zip(legs, encoder.parts, parts, sizes, strict=True)
        ]
    )


def _read(
    part: Part, table: ClassTable, own: np.ndarray, centre: np.ndarray, size: float
) -> PathSegment | None:
    """The leg between the two classes of a table with unit vectors `own` (2, k), or None where what these are the
    sum of cannot be read."""
    try:
        summands = part.summands(table)
    except ClassSpaceError:
        return None
    if summands is None:
        return None
    against, label = map(_folded, summands)
    nothing = (0.0, np.zeros(len(centre)))
    differences, steps = [], []
    for name in dict.fromkeys([*label, *against]):
        (now, there), (before, here) = label.get(name, nothing), against.get(name, nothing)
        if not np.array_equal(there, here):
            differences.append(Difference(name, part.source, now, before))
            steps.append(there - here)
    start = sum((vector for _, vector in against.values()), start=np.zeros(len(centre)))
    leg = PathSegment(
        differences, start, np.reshape(steps, (len(steps), len(centre))), centre, part.sized, size
    )
    return leg if np.abs(leg.vectors(np.arange(2.0)) / size - own).max() <= AGREEMENT else None


def _folded(summands: Summands) -> Summands:
    """By names as a person reads them: a word in capitals is the same word."""
    folded: Summands = {}
    for name, (value, vector) in summands.items():
        name = name.lower().replace("_", " ")
        before = folded.get(name, (0.0, 0.0))
        folded[name] = (before[0] + value, before[1] + vector)
    return folded


def _whole(part: Part, own: np.ndarray, size: float | None) -> PathSegment:
    differences = [Difference(part.source, part.source)]
    return PathSegment(differences, own[0], own[1:] - own[:1], np.zeros(own.shape[1]), False, size)
