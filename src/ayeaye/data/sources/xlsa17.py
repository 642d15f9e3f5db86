"""The features and proposed splits of Xian et al. (2019), as xlsa17.zip holds them for AWA2, CUB, SUN, aPY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ayeaye.core.errors import SourceError, listed
from ayeaye.data.sources import mat
from ayeaye.data.sources.base import Entry, Source, plain_name, stamp_of
from ayeaye.data.sources.features import row_reader
from ayeaye.data.table import SEEN, UNSEEN, ClassTable

FEATURES, SPLITS = "res101.mat", "att_splits.mat"
NEEDED = ("allclasses_names", "trainval_loc", "test_seen_loc", "test_unseen_loc")
OPTIONAL = ("att", "original_att", "train_loc", "val_loc")
GIVEN = {"trainval_loc": "train", "test_seen_loc": "test_seen", "test_unseen_loc": "test_unseen"}


def xlsa17(path: Path) -> Source:
    """A folder with res101.mat (features (d, n), labels (n, 1)) and att_splits.mat.

    The optional att (k, C) becomes the matrix `attributes`, original_att `original_attributes`. Classes of
    test_unseen_loc, and those of no picture, are unseen. The classes of val_loc become the pretend-unseen ones.
    Pictures that are in no split are left out. Raises SourceError for what is missing or does not fit.
    """
    missing = [name for name in (FEATURES, SPLITS) if not (path / name).is_file()]
    if missing:
        raise SourceError(f"{path} has no {' and no '.join(missing)}: expected {FEATURES} and {SPLITS}")
    published = mat.read(path / SPLITS, (*NEEDED, *OPTIONAL))
    absent = [name for name in NEEDED if name not in published]
    if absent:
        raise SourceError(f"{path / SPLITS} has no {', '.join(absent)}: expected {', '.join(NEEDED)}")
    names = [plain_name(str(name)) for name in published["allclasses_names"]]
    width, labels = _labels(path / FEATURES, len(names))
    rows = {
        name: _from_one(path / SPLITS, name, published[name], len(labels), "pictures")
        for name in published
        if name.endswith("_loc")
    }
    _check_apart(path / SPLITS, rows)
    unseen = _unseen(path / SPLITS, rows, labels, names)
    frame = pd.DataFrame({"name": names, "role": np.where(unseen, UNSEEN, SEEN)})
    frame["pretend_unseen"] = _validation(rows, labels, len(names)) & ~unseen
    stamp = f"{stamp_of(path / FEATURES)} {stamp_of(path / SPLITS)}"
    split = {int(row): GIVEN[name] for name in GIVEN for row in rows[name]}
    entries = [Entry(str(row), names[labels[row]], stamp, split[row]) for row in sorted(split)]
    classes = ClassTable(frame, _matrices(path / SPLITS, published, len(names)))
    read = row_reader(lambda: _features(path / FEATURES))
    return Source("features", str(path), classes, entries, read, "float32", width, published=True)


def _labels(path: Path, classes: int) -> tuple[int, np.ndarray]:
    """The width d of the features, and labels (n,) from 0."""
    shape, found = mat.shape(path, "features"), mat.read(path, ("labels",))
    absent = [name for name, there in (("features", shape), ("labels", "labels" in found)) if not there]
    if absent or shape is None:
        raise SourceError(f"{path} has no {', '.join(absent)}: expected features (d, n) and labels (n, 1)")
    labels = _from_one(path, "labels", found["labels"], classes, "classes")
    if len(shape) != 2 or shape[1] != len(labels) or not shape[0]:
        raise SourceError(
            f"{path}: features is of shape {shape} and there are {len(labels)} labels; expected (d, {len(labels)})"
        )
    return shape[0], labels


def _from_one(path: Path, name: str, values: np.ndarray, size: int, of: str) -> np.ndarray:
    """MATLAB's indices 1 … size as indices (m,) from 0."""
    values = np.ravel(values)
    if values.dtype.kind not in "fiub":
        raise SourceError(f"{path}: {name} is {values.dtype}; expected whole numbers from 1 to {size}")
    wrong = values[~((values >= 1) & (values <= size) & (values == np.floor(values)))]
    if len(wrong):
        raise SourceError(
            f"{path}: {name} holds {wrong[0]:g}; expected whole numbers from 1 to {size}, one of the {size} {of}"
        )
    return values.astype(np.int64) - 1


def _check_apart(path: Path, rows: dict[str, np.ndarray]) -> None:
    """A picture must be in one split alone; train_loc and val_loc are parts of others, and not looked at."""
    taken: dict[int, str] = {}
    for name in GIVEN:
        for row in rows[name].tolist():
            if row in taken:
                raise SourceError(
                    f"{path}: picture {row + 1} is in {taken[row]} and in {name}; expected each in one split"
                )
            taken[row] = name


def _unseen(path: Path, rows: dict[str, np.ndarray], labels: np.ndarray, names: list[str]) -> np.ndarray:
    """(C,) bool: the classes that trainval_loc has no picture of."""
    held = {name: set(labels[rows[name]].tolist()) for name in GIVEN}
    both = [names[c] for c in sorted(held["test_unseen_loc"] & held["trainval_loc"])]
    if both:
        raise SourceError(
            f"{path}: classes in trainval_loc and in test_unseen_loc: {listed(both)}; "
            "expected unseen classes to have no picture in training",
            both,
        )
    untrained = [names[c] for c in sorted(held["test_seen_loc"] - held["trainval_loc"])]
    if untrained:
        raise SourceError(
            f"{path}: classes of test_seen_loc without a picture in trainval_loc: {listed(untrained)}",
            untrained,
        )
    return ~np.isin(np.arange(len(names)), list(held["trainval_loc"]))


def _validation(rows: dict[str, np.ndarray], labels: np.ndarray, classes: int) -> np.ndarray:
    """(C,) bool: the published validation classes, those of val_loc that train_loc has none of.

    For AWA2 and SUN train_loc and val_loc hold the pictures of test_seen_loc too, which nothing may be tuned
    on: what is not in trainval_loc is dropped.
    """
    none = np.empty(0, np.int64)
    train, val = (
        np.intersect1d(rows.get(name, none), rows["trainval_loc"]) for name in ("train_loc", "val_loc")
    )
    return np.isin(np.arange(classes), np.setdiff1d(labels[val], labels[train]))


def _matrices(path: Path, published: dict[str, np.ndarray], classes: int) -> dict[str, pd.DataFrame]:
    matrices = {}
    for name, own in (("att", "attributes"), ("original_att", "original_attributes")):
        if name not in published:
            continue
        values = published[name]
        if values.ndim != 2 or values.shape[1] != classes or values.dtype.kind not in "fiub":
            raise SourceError(
                f"{path}: {name} is {values.dtype} of shape {values.shape}; expected numbers (k, {classes}), "
                "a column per class"
            )
        matrices[own] = pd.DataFrame(
            values.T.astype(np.float32), columns=[str(k) for k in range(len(values))]
        )
    return matrices


def _features(path: Path) -> np.ndarray:
    """(n, d) float32."""
    return np.ascontiguousarray(mat.read(path, ("features",))["features"].T, dtype=np.float32)
