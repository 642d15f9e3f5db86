"""Animals with Attributes 2 as published (Xian et al., 2019): 50 animals, 85 attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ayeaye.core.errors import SourceError
from ayeaye.data.sources import published
from ayeaye.data.sources.base import Source, labelled, plain_name
from ayeaye.data.sources.pictures import MAX_BYTES, pictures, reader
from ayeaye.data.table import ClassTable

# Name of the class matrix -> file; the first that is there is also called `attributes`.
MATRICES = {"continuous": "predicate-matrix-continuous.txt", "binary": "predicate-matrix-binary.txt"}


def awa2(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """JPEGImages/<class>/*, classes.txt, predicates.txt, the predicate matrices, trainclasses.txt, testclasses.txt.

    All but the first two are optional: without lists of classes all are seen, and predicates.txt names the columns of
    the matrices that are there. `killer+whale` becomes `killer whale`. The matrices are `continuous` and `binary`, and
    `attributes` is the continuous one where it is there. Raises SourceError for what is missing or does not fit.
    """
    published.check_there(path, "JPEGImages/", "classes.txt")
    names = published.in_order(path / "classes.txt")
    lists = (path / "trainclasses.txt", path / "testclasses.txt")
    roles = published.roles(names, *(file if file.is_file() else None for file in lists))
    images = (path / "JPEGImages").resolve()
    entries = list(pictures(images))
    if not entries:
        raise SourceError(f"{path / 'JPEGImages'} holds no pictures: expected JPEGImages/<class>/*.jpg")
    entries = labelled(entries, names, path / "JPEGImages", "classes.txt")
    plain = {"": ""} | {name: plain_name(name) for name in names}
    entries = [replace(entry, label=plain[entry.label]) for entry in entries]
    frame = pd.DataFrame({"name": [plain[name] for name in names], "role": roles})
    classes = ClassTable(frame, _matrices(path, len(names)))
    return Source("images", str(path), classes, entries, reader(images, max_bytes), published=True)


def _matrices(path: Path, classes: int) -> dict[str, pd.DataFrame]:
    there = {name: path / file for name, file in MATRICES.items() if (path / file).is_file()}
    if not there:
        return {}
    published.check_there(path, "predicates.txt")
    predicates = published.in_order(path / "predicates.txt")
    found = {name: published.matrix(file, classes, predicates) for name, file in there.items()}
    return {"attributes": next(iter(found.values())), **found}
