"""Caltech-UCSD Birds 200-2011 as published (Wah et al., 2011): 200 birds, 312 attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from ayeaye.core.errors import SourceError
from ayeaye.data.sources import published
from ayeaye.data.sources.base import Entry, Source, plain_name, stamp_of
from ayeaye.data.sources.pictures import MAX_BYTES, reader
from ayeaye.data.table import ClassTable

CONTINUOUS = "attributes/class_attribute_labels_continuous.txt"


def cub(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """CUB_200_2011/: images/, images.txt, image_class_labels.txt, classes.txt and the optional attributes/.

    attributes.txt may also lie beside the attributes folder or beside CUB_200_2011, where the archive has it;
    so may the optional trainvalclasses.txt and testclasses.txt, without which all classes are seen.
    `001.Black_footed_Albatross` becomes `Black footed Albatross`. Attributes are percentages. Raises
    SourceError for what is missing or does not fit; a listed picture that is not there is rejected alone.
    """
    published.check_there(path, "images/", "images.txt", "image_class_labels.txt", "classes.txt")
    names = published.in_order(path / "classes.txt")
    split = [_beside(path, name) for name in ("trainvalclasses.txt", "testclasses.txt")]
    plain = [plain_name(name) for name in names]
    frame = pd.DataFrame({"name": plain, "role": published.roles(names, *split)})
    images = (path / "images").resolve()
    classes = ClassTable(frame, _matrices(path, len(names)))
    entries = list(_entries(path, images, plain))
    return Source("images", str(path), classes, entries, reader(images, max_bytes), published=True)


def _matrices(path: Path, classes: int) -> dict[str, pd.DataFrame]:
    if not (path / CONTINUOUS).is_file():
        return {}
    columns = _beside(path / "attributes", "attributes.txt") or _beside(path.parent, "attributes.txt")
    if columns is None:
        raise SourceError(
            f"{path} has no attributes.txt: expected it in {path / 'attributes'} or in {path.parent}"
        )
    return {"attributes": published.matrix(path / CONTINUOUS, classes, published.in_order(columns))}


def _beside(folder: Path, name: str) -> Path | None:
    return next((place / name for place in (folder, folder.parent) if (place / name).is_file()), None)


def _entries(path: Path, images: Path, names: list[str]) -> Iterator[Entry]:
    files, labels = (published.numbered(path / name) for name in ("images.txt", "image_class_labels.txt"))
    alone = sorted(files.keys() ^ labels.keys())
    if alone:
        raise SourceError(
            f"{path}: image {alone[0]} is in one of images.txt and image_class_labels.txt alone; expected both"
        )
    for number, file in sorted(files.items()):
        label = labels[number]
        if not label.isdecimal() or not 1 <= int(label) <= len(names):
            raise SourceError(
                f"{path / 'image_class_labels.txt'}: image {number} is of class {label}; "
                f"expected a number from 1 to {len(names)}"
            )
        if ".." in PurePosixPath(file).parts or PurePosixPath(file).is_absolute():
            raise SourceError(f"{path / 'images.txt'}: image {number} is {file}, which is outside of images/")
        there = (images / file).is_file()
        yield Entry(file, names[int(label) - 1], stamp_of(images / file) if there else "missing")
