"""The plain text tables that published data sets come with: numbered names, matrices, lists of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ayeaye.core import contents
from ayeaye.core.errors import SourceError, listed
from ayeaye.core.unicode_checks import normal
from ayeaye.data.sources.base import LISTED, nearest
from ayeaye.data.table import SEEN, UNSEEN


def check_there(folder: Path, *names: str) -> None:
    """Raises SourceError for files and folders (named with a final slash) that are not there."""
    if not folder.is_dir():
        raise SourceError(f"prepare.path: no folder {folder}; expected one with {', '.join(names)}")
    missing = [
        name
        for name in names
        if not ((folder / name).is_dir() if name[-1] == "/" else (folder / name).is_file())
    ]
    if missing:
        raise SourceError(f"{folder} has no {' and no '.join(missing)}: expected {', '.join(names)}")


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines that hold something, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} {contents.unlike_utf8(path, error)}") from None
    if found := contents.foreign(text[: contents.HEAD].encode()):
        raise SourceError(f"{path} {found}")
    return [
        (number, normal(line.strip())) for number, line in enumerate(text.splitlines(), 1) if line.strip()
    ]


def numbered(path: Path) -> dict[int, str]:
    """Lines of a number and a name, such as `1 antelope`; raises SourceError for others and for repetitions."""
    found: dict[int, str] = {}
    for line, text in lines(path):
        number, *rest = text.split(maxsplit=1)
        if not number.isdecimal() or not rest:
            raise SourceError(f"{path}, line {line} is {text[:60]!r}: expected a number and a name")
        if int(number) in found:
            raise SourceError(f"{path}, line {line}: number {number} comes twice")
        found[int(number)] = rest[0]
    return found


def in_order(path: Path) -> list[str]:
    """The names of a numbered file that counts from 1 without a gap."""
    found = numbered(path)
    missing = sorted(set(range(1, len(found) + 1)) - found.keys())
    if missing or not found:
        raise SourceError(f"{path} has no number {missing[0] if missing else 1}: expected 1, 2, 3 and so on")
    return [found[number] for number in sorted(found)]


def matrix(path: Path, rows: int, columns: Sequence[str]) -> pd.DataFrame:
    """(rows, columns) float32 of numbers parted by spaces; raises SourceError with the line that does not fit."""
    values = np.empty((rows, len(columns)), np.float32)
    found = lines(path)
    if len(found) != rows:
        raise SourceError(f"{path} has {len(found)} rows; expected {rows}, one per class")
    for row, (line, text) in enumerate(found):
        try:
            numbers = np.array(text.split(), np.float32)
        except ValueError as error:
            raise SourceError(f"{path}, line {line}: {error}") from None
        if len(numbers) != len(columns):
            raise SourceError(
                f"{path}, line {line}: {len(numbers)} numbers; expected {len(columns)} attributes"
            )
        if not np.isfinite(numbers).all():
            raise SourceError(f"{path}, line {line}: holds a number that is not finite")
        values[row] = numbers
    return pd.DataFrame(values, columns=list(columns))


def roles(names: Sequence[str], seen: Path | None, unseen: Path | None) -> list[str]:
    """The role of each class from lists of the seen and of the unseen ones; with one list the rest is the other.

    Without any all are seen. Raises SourceError for unknown classes, and for those in both lists or in neither.
    """
    lists = {role: _listed_classes(path, names) for role, path in ((SEEN, seen), (UNSEEN, unseen)) if path}
    lists.setdefault(SEEN, set(names) - lists.get(UNSEEN, set()))
    lists.setdefault(UNSEEN, set(names) - lists[SEEN])
    for wrong, where in (
        ([name for name in names if name in lists[SEEN] & lists[UNSEEN]], "in both of"),
        ([name for name in names if name not in lists[SEEN] | lists[UNSEEN]], "in neither of"),
    ):
        if wrong:
            raise SourceError(
                f"classes {where} {seen} and {unseen}: {listed(wrong)}; expected each in one", wrong
            )
    return [SEEN if name in lists[SEEN] else UNSEEN for name in names]


def _listed_classes(path: Path, names: Sequence[str]) -> set[str]:
    found = [text for _, text in lines(path)]
    known = set(names)
    if unknown := [name for name in found if name not in known]:
        unknown[:LISTED] = [name + nearest(name, names) for name in unknown[:LISTED]]
        raise SourceError(
            f"{path}: classes that classes.txt does not know: {listed(unknown, LISTED)}", unknown
        )
    return set(found)
