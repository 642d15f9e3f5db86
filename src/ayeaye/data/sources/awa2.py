"""Animals with Attributes 2 as published (Xian et al., 2019): 50 animals, 85 attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ayeaye.data.sources import published
from ayeaye.data.sources.base import Source, labelled, plain_name
from ayeaye.data.sources.pictures import MAX_BYTES, pictures, reader
from ayeaye.data.table import ClassTable
from ayeaye.errors import SourceError

# Name of the class matrix -> file; the first that is there is also called `attributes`.
MATRICES = {"continuous": "predicate-matrix-continuous.txt", "binary": "predicate-matrix-binary.txt"}


def awa2(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """JPEGImages/<class>/*, classes.txt, predicates.txt, the predicate matrices, trainclasses.txt, testclasses.txt.

    `killer+whale` becomes `killer whale`. The matrices are `continuous` and `binary`, and `attributes` is the
    continuous one where it is there. Raises SourceError for what is missing or does not fit.
    """
    published.check_there(
        path, "JPEGImages/", "classes.txt", "predicates.txt", "trainclasses.txt", "testclasses.txt"
    )
    names = published.in_order(path / "classes.txt")
    roles = published.roles(names, path / "trainclasses.txt", path / "testclasses.txt")
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
    predicates = published.in_order(path / "predicates.txt")
    found = {
        name: published.matrix(path / file, classes, predicates)
        for name, file in MATRICES.items()
        if (path / file).is_file()
    }
    if not found:
        raise SourceError(
            f"{path} has no {' and no '.join(MATRICES.values())}: expected at least one of them"
        )
    return {"attributes": next(iter(found.values())), **found}
