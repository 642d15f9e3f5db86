"""What a source is, and what holds for every one of them."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ayeaye.data.table import SEEN, TEXT, UNSEEN, ClassTable
from ayeaye.errors import SourceError, listed

ROLES = (SEEN, UNSEEN)
LISTED = 5


@dataclass(frozen=True)
class Entry:
    """One picture as a source names it.

    `stamp` changes whenever the content may have changed, and costs no reading; `split` is set where the
    source brings its own.
    """

    source: str
    label: str
    stamp: str
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """Entries in a fixed order, their classes, and `read`, which gives an entry's bytes.

    `read` may be called from several threads and raises PictureError for one that cannot be read. `dtype` and
    `width` describe the rows of features.
    """

    kind: str
    origin: str
    classes: ClassTable
    entries: list[Entry]
    read: Callable[[Entry], bytes]
    dtype: str = ""
    width: int = 0


def class_table(frame: pd.DataFrame) -> ClassTable:
    """A class table from one frame in which the matrices are columns named `<matrix>/<column>`."""
    columns: dict[str, list[str]] = defaultdict(list)
    for name in frame:
        if "/" in str(name):
            columns[str(name).partition("/")[0]].append(str(name))
    matrices = {
        matrix: frame[names].rename(columns=lambda name: name.partition("/")[2])
        for matrix, names in columns.items()
    }
    texts = [name for name in (*TEXT, "synonyms") if name in frame]
    return ClassTable(frame[texts], matrices)


def check_classes(classes: ClassTable, origin: str) -> None:
    """Raises SourceError for duplicate names, unknown roles, too few seen classes, equal descriptions."""
    frame = classes.frame
    twice = [name for name, count in Counter(classes.names).items() if count > 1]
    if twice:
        raise SourceError(f"{origin}: classes listed twice: {listed(twice)}; give each class one row")
    wrong = frame[~frame["role"].isin(ROLES)]
    if len(wrong):
        named = [f"{row['name']} ({row['role']!r})" for _, row in wrong.iterrows()]
        raise SourceError(f"{origin}: unknown role of {listed(named)}; expected seen or unseen")
    if classes.seen.sum() < 2:
        raise SourceError(
            f"{origin}: {classes.seen.sum()} seen classes; at least two are needed to learn from"
        )
    texts: dict[str, str] = {}
    for name, text in zip(frame["name"], frame["description"], strict=True):
        key = " ".join(text.casefold().split())
        if key and key in texts:
            raise SourceError(
                f"{origin}: {texts[key]} and {name} have the same description; "
                "describe what tells them apart, or make them one class"
            )
        texts[key] = name


def check_entries(source: Source) -> None:
    """Raises SourceError for a seen class with fewer than two pictures."""
    check_counts(source.classes, Counter(entry.label for entry in source.entries), source.origin)


def check_counts(
    classes: ClassTable, pictures: dict[str, int], origin: str, rejected: dict[str, int] | None = None
) -> None:
    seen = classes.frame.loc[classes.seen, "name"]
    for least, fault in ((1, "no pictures"), (2, "a single picture")):
        short = [name for name in seen if pictures.get(name, 0) == least - 1]
        if short:
            note = [
                f"{name} ({rejected[name]} rejected)" if rejected and rejected.get(name) else name
                for name in short
            ]
            raise SourceError(
                f"{origin}: seen classes with {fault}: {listed(note)}; add photographs (at least two, "
                "better twenty) or give them the role unseen"
            )


def nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.8)
    return f" (did you mean {near[0]}?)" if near else ""


def stamp_of(path: Path) -> str:
    """Changes whenever the file may have changed."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def plain_name(name: str) -> str:
    """A published class name as a person writes it: `killer+whale`, `001.Black_footed_Albatross`."""
    return " ".join(re.sub(r"^\d+\.", "", name).replace("+", " ").replace("_", " ").split())
