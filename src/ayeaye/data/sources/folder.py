"""A folder of photographs with a classes.csv."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ayeaye.core import contents
from ayeaye.core.errors import SourceError, listed
from ayeaye.core.unicode_checks import composed
from ayeaye.data.sources.base import Source, class_table, labelled, nearest
from ayeaye.data.sources.pictures import MAX_BYTES, pictures, reader
from ayeaye.data.table import ClassTable

REQUIRED = ("name", "role")
KNOWN = (*REQUIRED, "description", "synonyms", "group", "synset")


def folder(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """`images/<class>/*` and `classes.csv`: name, role, optional description, synonyms, group, synset, and
    any further columns of numbers as attributes (those named `<matrix>/<column>` as that matrix).

    Hidden files are left out; links are followed (see `pictures.below`).
    """
    if not path.is_dir():
        raise SourceError(
            f"prepare.path: no folder {path}; expected one with images/<class>/* and classes.csv"
        )
    missing = [name for name, there in _parts(path).items() if not there]
    if missing:
        raise SourceError(
            f"{path} has no {' and no '.join(missing)}: expected images/<class>/* and classes.csv"
        )
    classes = read_classes(path / "classes.csv")
    slashed = [name for name, seen in zip(classes.names, classes.seen, strict=True) if seen and "/" in name]
    if slashed:
        raise SourceError(
            f"{path / 'classes.csv'}: seen classes with a / in their name: {listed(slashed)}; no folder of images/ can "
            "have such a name: write it otherwise in both places, such as with a hyphen",
            slashed,
        )
    images = (path / "images").resolve()
    entries = list(pictures(images))
    if not entries:
        raise SourceError(f"{path / 'images'} holds no pictures: expected images/<class>/*")
    entries = labelled(entries, classes.names, path / "images", "classes.csv")
    return Source("images", str(path), classes, entries, reader(images, max_bytes))


def read_classes(path: Path) -> ClassTable:
    """A classes.csv; raises SourceError for missing columns, unknown roles, cells that are no numbers."""
    rows = _csv_rows(path)
    header = [composed(cell) for cell in rows[0][1]]
    header = [name.lower() if name.lower() in KNOWN else name for name in header]
    _check_header(path, header)
    records = []
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise SourceError(
                f"{path}, line {line}: {len(cells)} cells under {len(header)} columns; "
                "put texts that hold commas into double quotes"
            )
        record = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        record["role"] = record["role"].lower()
        if not record["name"]:
            raise SourceError(f"{path}, line {line}: the name is empty")
        records.append((line, record))
    if not records:
        raise SourceError(f"{path} holds no classes: expected one row per class under {', '.join(header)}")
    frame = pd.DataFrame([record for _, record in records], columns=header).astype(object)
    frame["synonyms"] = [_synonyms(record.get("synonyms", "")) for _, record in records]
    attributes = {
        column if "/" in column else f"attributes/{column}": _numbers(path, column, records)
        for column in header
        if column not in KNOWN
    }
    _check_whole_rows(path, records, attributes)
    texts = [name for name in ("description", "group", "synset") if name in header]
    return class_table(pd.concat([frame[[*REQUIRED, "synonyms", *texts]], pd.DataFrame(attributes)], axis=1))


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        if found := contents.foreign_file(path):
            raise SourceError(f"{path} {found}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} {contents.unlike_utf8(path, error)}") from None
    except csv.Error as error:
        raise SourceError(f"{path} is not valid CSV ({error})") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from None
    if not rows:
        raise SourceError(f"{path} is empty: expected the columns {', '.join(REQUIRED)}")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise SourceError(
            f"{path} has no column {', '.join(missing)}: it has {', '.join(header)}; "
            f"expected {', '.join(REQUIRED)} and, where classes are described, description, separated by commas"
        )
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice or "" in header:
        raise SourceError(f"{path}: a column is named twice or not at all: {', '.join(twice) or 'no name'}")


def _numbers(path: Path, column: str, records: list[tuple[int, dict[str, str]]]) -> np.ndarray:
    values = np.full(len(records), np.nan, np.float32)
    for row, (line, record) in enumerate(records):
        cell = record[column]
        try:
            values[row] = float(cell) if cell else np.nan
        except ValueError:
            values[row] = np.inf
        if np.isinf(values[row]) or (cell and np.isnan(values[row])):
            raise SourceError(
                f"{path}, line {line} ({record['name']}), column {column}: {cell!r} is not a number; columns "
                f"other than {', '.join(KNOWN)} are attributes{nearest(column, KNOWN)}"
            )
    return values


def _check_whole_rows(
    path: Path, records: list[tuple[int, dict[str, str]]], attributes: dict[str, np.ndarray]
) -> None:
    """A class may have all attributes or none of them."""
    if not attributes:
        return
    empty = np.isnan(np.stack(list(attributes.values()), axis=1))  # (C, columns)
    partly = np.flatnonzero(empty.any(axis=1) & ~empty.all(axis=1))
    if len(partly):
        line, record = records[partly[0]]
        column = list(attributes)[int(np.argmax(empty[partly[0]]))].removeprefix("attributes/")
        raise SourceError(
            f"{path}, line {line} ({record['name']}), column {column}: the cell is empty; "
            "give a class all of its attributes or none"
        )


def _synonyms(cell: str) -> list[str]:
    return [word for word in (part.strip() for part in re.split("[;|]", cell)) if word]


def _parts(path: Path) -> dict[str, bool]:
    return {"classes.csv": (path / "classes.csv").is_file(), "images/": (path / "images").is_dir()}
