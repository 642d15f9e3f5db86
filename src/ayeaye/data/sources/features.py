"""A file of features in place of pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd

from ayeaye.core import contents
from ayeaye.core.errors import PictureError, SourceError
from ayeaye.core.unicode_checks import composed
from ayeaye.data.sources.base import LISTED, Entry, Source, stamp_of
from ayeaye.data.table import UNSEEN, ClassTable

GIVEN_SPLITS = ("train", "test_seen", "test_unseen")
TEXTS = ("class_names", "role", "description", "group", "synset", "split")


def features(path: Path) -> Source:
    """An .npz of features (n, d), labels (n,), split (n,), class_names (C,), role (C,), matrices (C, k).

    Optional text arrays (C,): description, group, synset. Texts are str, or bytes of UTF-8. Without `split` one is
    drawn as for pictures.
    """
    if not path.is_file():
        raise SourceError(f"prepare.path: no file {path}; expected an .npz of features")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "features"}
            if "features" not in file.files:
                raise SourceError(f"{path} has no array features: it has {', '.join(file.files)}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        if found := contents.foreign_file(path, "zip"):
            raise SourceError(f"{path} is not an .npz of plain arrays: it {found}") from None
        # NumPy's own words recommend to load pickles, which nobody should.
        why = (
            "an array of Python objects, or no .npy file, is in it" if "pickle" in str(error) else str(error)
        )
        raise SourceError(f"{path} is not an .npz of plain arrays ({why})") from None
    arrays |= {name: _texts(path, name, arrays[name]) for name in TEXTS if name in arrays}
    shape, dtype = _feature_shape(path)
    _check_arrays(path, arrays, shape)
    names = [composed(name) for name in arrays["class_names"].tolist()]
    labels = [names[int(index)] for index in arrays["labels"]]
    splits = arrays["split"].tolist() if "split" in arrays else [None] * shape[0]
    stamp = stamp_of(path)
    entries = [
        Entry(str(row), label, stamp, split)
        for row, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    return Source(
        "features",
        str(path),
        _feature_classes(arrays, names),
        entries,
        row_reader(lambda: _load_features(path)),
        dtype,
        shape[1],
        published="split" in arrays,
    )


def row_reader(load: Callable[[], np.ndarray]) -> Callable[[Entry], bytes]:
    """Reads the row that an entry names by its number; `load` gives all rows (n, d), and is called once."""
    held: list[np.ndarray] = []
    lock = Lock()

    def read(entry: Entry) -> bytes:
        with lock:
            if not held:
                held.append(load())
        row = held[0][int(entry.source)]
        if not np.isfinite(row).all():
            raise PictureError("holds values that are not finite")
        return row.tobytes()

    return read


def _texts(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """An array of text as str; roles are folded as those of a classes.csv are."""
    if array.dtype.kind not in "US":
        raise SourceError(f"{path}: {name} is {array.dtype}; expected text")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}: {name} holds {error.object[:40]!r}; expected UTF-8") from None
    return np.char.lower(np.char.strip(array)) if name == "role" else array


def _feature_shape(path: Path) -> tuple[tuple[int, int], str]:
    """Shape and dtype from the header alone: the array itself may be large."""
    with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
        major, _ = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
    if len(shape) != 2 or dtype.kind != "f" or 0 in shape:
        raise SourceError(f"{path}: features is {dtype} of shape {shape}; expected floats of shape (n, d)")
    return (int(shape[0]), int(shape[1])), dtype.newbyteorder("<").name


def _load_features(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            array = file["features"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is damaged ({error})") from None
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> None:
    missing = [name for name in ("labels", "class_names", "role") if name not in arrays]
    if missing:
        raise SourceError(f"{path} has no array {', '.join(missing)}: it has features, {', '.join(arrays)}")
    rows, classes = shape[0], arrays["class_names"].size
    wanted = {"labels": (rows,), "split": (rows,), "class_names": (classes,), "role": (classes,)}
    wanted |= dict.fromkeys(("description", "group", "synset"), (classes,))
    for name, array in arrays.items():
        expected = wanted.get(name)
        fits = array.shape == expected if expected else array.ndim == 2 and array.shape[0] == classes
        if not fits:
            text = f"{expected}" if expected else f"({classes}, k): one row per class"
            raise SourceError(f"{path}: {name} is of shape {array.shape}; expected {text}")
        if not expected and array.dtype.kind not in "fiub":
            raise SourceError(f"{path}: the class matrix {name} is {array.dtype}; expected numbers")
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu" or (rows and (labels.min() < 0 or labels.max() >= classes)):
        raise SourceError(
            f"{path}: labels must be whole numbers from 0 to {classes - 1}, indices into class_names"
        )
    if "split" in arrays:
        _check_given_splits(path, arrays)


def _check_given_splits(path: Path, arrays: dict[str, np.ndarray]) -> None:
    splits, roles = arrays["split"], arrays["role"][arrays["labels"]]
    unknown = sorted(set(splits.tolist()) - set(GIVEN_SPLITS))
    if unknown:
        raise SourceError(
            f"{path}: unknown split {', '.join(unknown[:LISTED])}; expected {', '.join(GIVEN_SPLITS)}"
        )
    wrong = np.flatnonzero((splits == "test_unseen") != (roles == UNSEEN))
    if len(wrong):
        row = int(wrong[0])
        raise SourceError(
            f"{path}: {len(wrong)} rows contradict their class, the first of them row {row}: {splits[row]} "
            f"of a {roles[row]} class; test_unseen belongs to unseen classes, the others to seen ones"
        )


def _feature_classes(arrays: dict[str, np.ndarray], names: list[str]) -> ClassTable:
    frame = pd.DataFrame({"name": names, "role": arrays["role"]})
    for text in ("description", "group", "synset"):
        if text in arrays:
            frame[text] = arrays[text]
    matrices = {
        name: pd.DataFrame(
            array.astype(np.float32), columns=[str(column) for column in range(array.shape[1])]
        )
        for name, array in arrays.items()
        if array.ndim == 2
    }
    return ClassTable(frame, matrices)
