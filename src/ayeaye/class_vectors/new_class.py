"""A class that is described once the class space stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ayeaye.core.errors import ClassSpaceError, IncompleteClass, listed
from ayeaye.core.unicode_checks import normal
from ayeaye.data.table import UNSEEN, ClassTable

MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class NewClass:
    """A class as someone describes it; its name alone may do.

    `attributes` are numbers by column of the class table's matrices; where two of these have a column of that
    name, `attributes/size` is the one of the matrix `attributes`. A `vector` (k,) in the class space is taken as
    it is, at unit length, and nothing else of the class is looked at but its name.
    """

    name: str
    description: str = ""
    synonyms: Sequence[str] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)
    vector: Sequence[float] | None = None


def table_of(classes: Sequence[NewClass], matrices: Mapping[str, Sequence[str]]) -> ClassTable:
    """The classes as unseen ones of a class table with the columns of `matrices`, by name.

    Raises IncompleteClass, with the columns that are needed, where a class has no number for one, ClassSpaceError
    for a number that float32 cannot hold.
    """
    frame = pd.DataFrame(
        {
            "name": [each.name for each in classes],
            "role": UNSEEN,
            "description": [each.description for each in classes],
            "synonyms": [list(each.synonyms) for each in classes],
        }
    )
    return ClassTable(
        frame,
        {
            name: pd.DataFrame(
                np.array([_row(each, name, columns) for each in classes], np.float32), columns=list(columns)
            )
            for name, columns in matrices.items()
        },
    )


def _row(new: NewClass, matrix: str, columns: Sequence[str]) -> list[float]:
    """The numbers of a class in one matrix, all of them finite."""
    given = {normal(name): number for name, number in new.attributes.items()}
    found = [
        given.get(f"{matrix}/{column}", given.get(column)) for column in (normal(name) for name in columns)
    ]
    absent = [
        column
        for column, number in zip(columns, found, strict=True)
        if number is None or not np.isfinite(number)
    ]
    if absent:
        raise IncompleteClass(
            f"{new.name} has no number for {listed(absent)} of {matrix}: give all {len(columns)} columns "
            "as attributes, made as those of the other classes were, or a vector",
            list(columns),
        )
    numbers = [float(number) for number in found if number is not None]
    vast = [
        f"{number:g} for {column}"
        for column, number in zip(columns, numbers, strict=True)
        if abs(number) > MOST
    ]
    if vast:
        raise ClassSpaceError(
            f"{new.name} has {listed(vast)} of {matrix}: give numbers between -{MOST:.2g} and {MOST:.2g}, made as "
            "those of the other classes were"
        )
    return numbers


def strange_attributes(new: NewClass, matrices: Mapping[str, Sequence[str]]) -> list[str]:
    """The attributes of a class that no column of `matrices`, by name, takes; one with a vector needs none."""
    columns = {
        normal(key)
        for name, own in matrices.items()
        for column in own
        for key in (column, f"{name}/{column}")
    }
    return [name for name in new.attributes if normal(name) not in columns] if new.vector is None else []


def unit_vector(new: NewClass, width: int) -> np.ndarray:
    """(width,) float32: the vector given for a class, at unit length.

    Raises ClassSpaceError unless it is `width` finite numbers that are not all zero.
    """
    vector = np.asarray(new.vector, np.float64)
    if vector.shape != (width,):
        raise ClassSpaceError(
            f"the vector of {new.name} has shape {vector.shape}, this class space is of {width} numbers: "
            "give a vector of this space, or describe the class"
        )
    norm = np.linalg.norm(vector)
    if not np.isfinite(vector).all() or not norm > 0 or not np.isfinite(norm):
        raise ClassSpaceError(
            f"the vector of {new.name} is {'zero' if norm == 0 else 'not of finite numbers'}: give another one"
        )
    return (vector / norm).astype(np.float32)
