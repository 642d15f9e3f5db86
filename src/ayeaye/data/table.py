"""The class table and the dataset as they lie on disk, and how to read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError
from ayeaye.core.files import replacing
from ayeaye.core.unicode_checks import comparable, composed, normal

SEEN, UNSEEN = "seen", "unseen"
TEXT = ("name", "role", "description", "group", "synset")
COLUMNS = ("name", "role", "description", "synonyms", "group", "synset", "pretend_unseen")
MANIFEST = ("id", "shard", "row", "label", "split", "source")
QUARANTINE = ("source", "label", "reason")
SPLITS = ("train", "validation", "test_seen", "test_unseen")


@dataclass(frozen=True)
class ClassTable:
    """The classes in a fixed order, C of them.

    `frame` has the columns of COLUMNS, with names, synonyms and groups as `texts.composed` keeps them and
    descriptions in normal form; `matrices` holds class matrices by name, each (C, k) float32 with
    named columns and the index of `frame`.
    """

    frame: pd.DataFrame
    matrices: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame = self.frame.reset_index(drop=True).copy()
        for column in TEXT:
            values = frame[column].tolist() if column in frame else [""] * len(frame)
            kept = normal if column == "description" else composed
            frame[column] = pd.Series(
                [kept(_text(value)) for value in values], dtype=object, index=frame.index
            )
        spelled: dict[str, str] = {}  # a group as it is written first
        frame["group"] = [spelled.setdefault(comparable(group), group) for group in frame["group"]]
        synonyms = frame["synonyms"].tolist() if "synonyms" in frame else [()] * len(frame)
        frame["synonyms"] = pd.Series(
            [[composed(str(word)) for word in row] for row in synonyms], dtype=object, index=frame.index
        )
        frame["pretend_unseen"] = frame["pretend_unseen"].astype(bool) if "pretend_unseen" in frame else False
        matrices = {
            name: matrix.reset_index(drop=True).astype(np.float32) for name, matrix in self.matrices.items()
        }
        object.__setattr__(self, "frame", frame[list(COLUMNS)])
        object.__setattr__(self, "matrices", matrices)

    @property
    def names(self) -> list[str]:
        return self.frame["name"].tolist()

    @property
    def seen(self) -> np.ndarray:
        """(C,) bool."""
        return (self.frame["role"] == SEEN).to_numpy(bool)

    @property
    def pretend_unseen(self) -> np.ndarray:
        """(C,) bool: seen classes that a backbone trained here never sees."""
        return self.frame["pretend_unseen"].to_numpy(bool)

    def index(self) -> dict[str, int]:
        """Row number by class name."""
        return {name: row for row, name in enumerate(self.names)}

    def find(self, name: str) -> str | None:
        """The class that has this name, however it is written, as the table writes it."""
        return self._by_comparable.get(comparable(name))

    @cached_property
    def _by_comparable(self) -> dict[str, str]:
        return {comparable(name): name for name in self.names}

    def take(self, rows: np.ndarray) -> ClassTable:
        """The table of some rows, by number or by mask."""
        rows = np.arange(len(self.frame))[rows]
        return ClassTable(self.frame.iloc[rows], {name: m.iloc[rows] for name, m in self.matrices.items()})

    @classmethod
    def read(cls, path: Path) -> ClassTable:
        table = _read(path)
        missing = [column for column in COLUMNS if column not in table.column_names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}: run `ayeaye prepare` again")
        frame = pd.DataFrame({name: table[name].to_pylist() for name in COLUMNS}, columns=list(COLUMNS))
        columns: dict[str, dict[str, np.ndarray]] = {}
        for name in table.column_names:
            if name not in COLUMNS:
                matrix, _, column = name.partition("/")
                columns.setdefault(matrix, {})[column] = table[name].to_numpy()
        return cls(frame, {name: pd.DataFrame(matrix) for name, matrix in columns.items()})

    def write(self, path: Path) -> None:
        with replacing(path) as part:
            pq.write_table(self.to_arrow(), part)

    def to_arrow(self) -> pa.Table:
        kinds = {"synonyms": pa.list_(pa.string()), "pretend_unseen": pa.bool_()}
        arrays = {name: pa.array(self.frame[name].tolist(), kinds.get(name, pa.string())) for name in COLUMNS}
        for matrix, values in self.matrices.items():
            for column in values:
                arrays[f"{matrix}/{column}"] = pa.array(values[column].to_numpy(np.float32))
        return pa.table(arrays)

    def digest(self) -> str:
        """SHA-256 of every name, text and number, independent of how Parquet lays them out."""
        whole = hashlib.sha256()
        for row in self.frame.itertuples(index=False):
            whole.update(json.dumps(list(row), ensure_ascii=False, default=bool).encode() + b"\n")
        for name, matrix in self.matrices.items():
            whole.update(json.dumps([name, [str(column) for column in matrix]]).encode())
            whole.update(np.ascontiguousarray(matrix.to_numpy(), dtype="<f4").tobytes())
        return whole.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A dataset folder: immutable shards, and the manifest, class table and description over them.

    `manifest` has the columns of MANIFEST, one row per picture, sorted by source; `kind` is `images` or
    `features`; `about` is dataset.json.
    """

    folder: Path
    manifest: pd.DataFrame
    classes: ClassTable
    kind: str
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Raises DataError when there is none, or when its files do not belong together."""
        if not (folder / "dataset.json").is_file() or not (folder / "manifest.parquet").is_file():
            raise DataError(f"{folder} holds no dataset: run `ayeaye prepare`")
        try:
            about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            kind = str(about["kind"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / 'dataset.json'} is damaged ({error}): run `ayeaye prepare`") from None
        manifest = read_frame(folder / "manifest.parquet", MANIFEST)
        classes = ClassTable.read(folder / "classes.parquet")
        strangers = sorted(set(manifest["label"]) - set(classes.names))
        if strangers:
            raise DataError(
                f"{folder}: the manifest knows classes that the class table does not "
                f"({', '.join(strangers[:5])}): run `ayeaye prepare` again"
            )
        return cls(folder, manifest, classes, kind, about)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a row of a `features` dataset."""
        return np.dtype(self.about["dtype"])

    @property
    def labels(self) -> np.ndarray:
        """(n,) int: the row of each picture's class in the class table."""
        return self.manifest["label"].map(self.classes.index()).to_numpy(np.int64)

    def digest(self) -> str:
        """SHA-256 of which pictures, labels, splits and classes the dataset holds."""
        whole = hashlib.sha256(f"{self.kind}\0{self.classes.digest()}\n".encode())
        columns = [self.manifest[name].tolist() for name in ("id", "shard", "row", "label", "split")]
        for row in sorted(zip(*columns, strict=True)):
            whole.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return whole.hexdigest()

    def shards(self) -> list[str]:
        """Names of the shards that the manifest refers to, sorted."""
        return sorted(set(self.manifest["shard"]))

    def shard_path(self, shard: str) -> Path:
        return self.folder / "shards" / f"{shard}.parquet"

    def ids(self, shard: str) -> list[str]:
        """Ids of all pictures in a shard, in its row order."""
        return shard_ids(self.shard_path(shard))

    def pictures(self, shard: str) -> Iterator[tuple[str, bytes]]:
        """All pictures of a shard in its row order, also those that the manifest no longer lists."""
        with _open(self.shard_path(shard)) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["id", "bytes"])
                yield from zip(table["id"].to_pylist(), table["bytes"].to_pylist(), strict=True)

    def features(self, shard: str) -> np.ndarray:
        """(n, d) of a shard of a `features` dataset, in its row order and its own dtype."""
        rows = [np.frombuffer(content, self.dtype) for _, content in self.pictures(shard)]
        return np.stack(rows)

    def picture(self, id: str) -> bytes:
        """The original bytes of one picture; raises DataError when the manifest does not list it."""
        shard, row = self.place(id)
        with _open(self.shard_path(shard)) as file:
            content = content_at(file, row)
        if content is None:
            raise DataError(f"{self.shard_path(shard)} is shorter than the manifest says: run `dvc checkout`")
        return content

    def place(self, id: str) -> tuple[str, int]:
        """Shard and row of a picture; raises DataError when the manifest does not list it."""
        if id not in self._places:
            raise DataError(f"no picture {id} in {self.folder}")
        return self._places[id]

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        rows = zip(self.manifest["id"], self.manifest["shard"], self.manifest["row"], strict=True)
        return {id: (shard, int(row)) for id, shard, row in rows}


def content_at(shard: pq.ParquetFile, row: int) -> bytes | None:
    """The original bytes of one picture of a shard, of which a group of rows is read; None where it is shorter."""
    for group in range(shard.num_row_groups):
        rows = shard.metadata.row_group(group).num_rows
        if row < rows:
            return shard.read_row_group(group, columns=["bytes"])["bytes"][row].as_py()
        row -= rows
    return None


def shard_ids(path: Path) -> list[str]:
    with _open(path) as file:
        return file.read(columns=["id"])["id"].to_pylist()


def read_frame(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Some columns of a Parquet file; raises DataError when it is damaged or lacks one."""
    table = _read(path)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: run `ayeaye prepare` again")
    return table.select(list(columns)).to_pandas()


def _read(path: Path) -> pa.Table:
    with _open(path) as file:
        return file.read()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not there: run `dvc checkout` or `ayeaye prepare`") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged ({error}): restore it with `dvc checkout`, or delete the dataset"
        ) from None


def _text(value: Any) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)
