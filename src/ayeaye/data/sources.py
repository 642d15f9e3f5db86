"""Where pictures and classes come from: the drawn bestiary, a folder of photographs, a file of features."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import os
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayeaye import params
from ayeaye.data.table import SEEN, TEXT, UNSEEN, ClassTable
from ayeaye.errors import PictureError, SourceError

ROLES = (SEEN, UNSEEN)
REQUIRED = ("name", "role", "description")
KNOWN = (*REQUIRED, "synonyms", "group", "synset")
IGNORED_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db")
GIVEN_SPLITS = ("train", "test_seen", "test_unseen")
LISTED = 5
MAX_BYTES = params.Prepare().max_bytes


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


def open_source(params: params.Prepare, resolve: Callable[[str], Path]) -> Source:
    """The source that `prepare.source` names; raises SourceError with what is wrong with it."""
    if params.source == "bestiary":
        source = bestiary(params)
    elif not params.path:
        wanted = (
            "folder with images/ and classes.csv" if params.source == "folder" else ".npz file of features"
        )
        raise SourceError(
            f"prepare.path is not set: with prepare.source={params.source} it names the {wanted}"
        )
    elif params.source == "folder":
        source = folder(resolve(params.path), params.max_bytes)
    else:
        source = features(resolve(params.path))
    check_classes(source.classes, source.origin)
    check_entries(source)
    return source


# ---- the bestiary ----


def bestiary(params: params.Prepare) -> Source:
    """Drawn animals; a picture is drawn when it is read."""
    from ayeaye.data import bestiary as drawn

    animals = drawn.species(params.species, params.seed)
    by_name = {animal.name: animal for animal in animals}
    # A change of the drawing code must draw again.
    code = hashlib.sha256(Path(drawn.__file__).read_bytes()).hexdigest()[:16]
    stamp = f"{code} {params.seed} {params.species}"
    entries = [
        Entry(f"{animal.name}/{index:04d}.png", animal.name, stamp)
        for animal in animals
        for index in range(params.pictures)
    ]

    def read(entry: Entry) -> bytes:
        index = int(Path(entry.source).stem)
        content = io.BytesIO()
        drawn.draw(by_name[entry.label], index, params.seed).save(content, "PNG")
        return content.getvalue()

    return Source("images", "the bestiary", class_table(drawn.table(animals)), entries, read)


# ---- a folder ----


def folder(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """`images/<class>/*` and `classes.csv`: name, role, description, optional synonyms, group, synset, and
    any further columns of numbers as attributes (those named `<matrix>/<column>` as that matrix).

    Hidden files and links that lead outside are ignored.
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
    images = (path / "images").resolve()
    entries = list(_pictures(images))
    if not entries:
        raise SourceError(f"{path / 'images'} holds no pictures: expected images/<class>/*")
    known = set(classes.names)
    strangers = Counter(entry.label for entry in entries if entry.label and entry.label not in known)
    if strangers:
        named = [
            f"{name} ({count})" + _nearest(name, classes.names) for name, count in sorted(strangers.items())
        ]
        raise SourceError(
            f"{path / 'images'}: pictures of classes without a row in classes.csv: {_listed(named)}; "
            "add the rows or remove the folders"
        )

    def read(entry: Entry) -> bytes:
        if not entry.label:
            raise PictureError("lies in no class folder: expected images/<class>/*")
        file = images / entry.source
        try:
            length = file.stat().st_size
            if length > max_bytes:
                raise PictureError(f"{length:,} bytes; at most {max_bytes:,} are allowed")
            return file.read_bytes()
        except OSError as error:
            raise PictureError(f"cannot be read ({error.strerror or error})") from None

    return Source("images", str(path), classes, entries, read)


def read_classes(path: Path) -> ClassTable:
    """A classes.csv; raises SourceError for missing columns, unknown roles, cells that are no numbers."""
    rows = _csv_rows(path)
    header = [cell.strip().lower() if cell.strip().lower() in KNOWN else cell.strip() for cell in rows[0][1]]
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
        record["name"] = unicodedata.normalize("NFC", record["name"])
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
    return class_table(
        pd.concat([frame[[*REQUIRED, "synonyms"]], frame[_present(header)], pd.DataFrame(attributes)], axis=1)
    )


def _present(header: list[str]) -> list[str]:
    return [name for name in ("group", "synset") if name in header]


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
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
            f"expected {', '.join(REQUIRED)}, separated by commas"
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
                f"other than {', '.join(KNOWN)} are attributes{_nearest(column, KNOWN)}"
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
    return [word for word in (part.strip() for part in re.split(r"[;|,]", cell)) if word]


def _pictures(images: Path) -> Iterator[Entry]:
    """All files below `images`, sorted; a file beside the class folders has no label."""
    folders = [images]
    found = []
    while folders:
        with os.scandir(folders.pop()) as items:
            for item in items:
                if item.name.startswith(".") or item.name.lower() in IGNORED_FILES:
                    continue
                if item.is_symlink() and not _inside(Path(item.path), images):
                    continue
                if item.is_dir(follow_symlinks=False):
                    folders.append(Path(item.path))
                elif item.is_file():
                    # A name that is not UTF-8 cannot be written down: its file is not found, and rejected.
                    name = os.fsencode(Path(item.path).relative_to(images)).decode(
                        "utf-8", "backslashreplace"
                    )
                    found.append((name, item.stat()))
    for source, stat in sorted(found, key=lambda pair: pair[0]):
        label = unicodedata.normalize("NFC", source.partition("/")[0]) if "/" in source else ""
        yield Entry(source, label, f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")


def _inside(link: Path, images: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_relative_to(images) and target.is_file()


def _parts(path: Path) -> dict[str, bool]:
    return {"classes.csv": (path / "classes.csv").is_file(), "images/": (path / "images").is_dir()}


# ---- features ----


def features(path: Path) -> Source:
    """An .npz of features (n, d), labels (n,), split (n,), class_names (C,), role (C,), matrices (C, k).

    Optional text arrays (C,): description, group, synset. Without `split` one is drawn as for pictures.
    """
    if not path.is_file():
        raise SourceError(f"prepare.path: no file {path}; expected an .npz of features")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "features"}
            if "features" not in file.files:
                raise SourceError(f"{path} has no array features: it has {', '.join(file.files)}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise SourceError(f"{path} is not an .npz of plain arrays ({error})") from None
    shape, dtype = _feature_shape(path)
    _check_arrays(path, arrays, shape)
    names = [unicodedata.normalize("NFC", str(name)) for name in arrays["class_names"]]
    labels = [names[int(index)] for index in arrays["labels"]]
    splits = [str(value) for value in arrays["split"]] if "split" in arrays else [None] * shape[0]
    stat = path.stat()
    stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    entries = [
        Entry(str(row), label, stamp, split)
        for row, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    held: list[np.ndarray] = []

    def read(entry: Entry) -> bytes:
        if not held:
            held.append(_load_features(path))
        row = held[0][int(entry.source)]
        if not np.isfinite(row).all():
            raise PictureError("holds values that are not finite")
        return row.tobytes()

    return Source("features", str(path), _feature_classes(arrays, names), entries, read, dtype, shape[1])


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
    splits, roles = arrays["split"].astype(str), arrays["role"].astype(str)[arrays["labels"]]
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
    frame = pd.DataFrame({"name": names, "role": arrays["role"].astype(str)})
    for text in ("description", "group", "synset"):
        if text in arrays:
            frame[text] = arrays[text].astype(str)
    matrices = {
        name: pd.DataFrame(
            array.astype(np.float32), columns=[str(column) for column in range(array.shape[1])]
        )
        for name, array in arrays.items()
        if array.ndim == 2
    }
    return ClassTable(frame, matrices)


# ---- what holds for every source ----


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
        raise SourceError(f"{origin}: classes listed twice: {_listed(twice)}; give each class one row")
    wrong = frame[~frame["role"].isin(ROLES)]
    if len(wrong):
        named = [f"{row['name']} ({row['role']!r})" for _, row in wrong.iterrows()]
        raise SourceError(f"{origin}: unknown role of {_listed(named)}; expected seen or unseen")
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
                f"{origin}: seen classes with {fault}: {_listed(note)}; add photographs (at least two, "
                "better twenty) or give them the role unseen"
            )


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.8)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
