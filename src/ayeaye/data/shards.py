"""Immutable shards: Parquet files of original bytes, named after the ids they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError
from ayeaye.core.files import replacing
from ayeaye.data.table import shard_ids

# Small row groups make reading a single picture cheap.
ROWS_PER_GROUP = 64
SCHEMA = pa.schema(
    [("id", pa.string()), ("bytes", pa.binary()), ("width", pa.int32()), ("height", pa.int32())]
)


@dataclass(frozen=True)
class Picture:
    """The original bytes of one picture; `id` is their SHA-256."""

    id: str
    content: bytes
    width: int
    height: int


def shard_name(ids: Iterable[str]) -> str:
    """First 16 hexadecimal digits of the SHA-256 over the sorted ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def write_shard(folder: Path, pictures: list[Picture]) -> str:
    """Writes one shard, its rows sorted by id, and gives its name; a sound one there is left alone."""
    name = shard_name(picture.id for picture in pictures)
    path = folder / f"{name}.parquet"
    if _ids_if_sound(path):
        return name
    with (
        replacing(path) as part,
        pq.ParquetWriter(
            part, SCHEMA, compression="none", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        rows = sorted(pictures, key=lambda picture: picture.id)
        for start in range(0, len(rows), ROWS_PER_GROUP):
            writer.write_table(_arrow(rows[start : start + ROWS_PER_GROUP]))
    return name


def _arrow(pictures: list[Picture]) -> pa.Table:
    columns = [
        [picture.id for picture in pictures],
        [picture.content for picture in pictures],
        [picture.width for picture in pictures],
        [picture.height for picture in pictures],
    ]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@dataclass
class ShardWriter:
    """Collects new pictures into shards of about `shard_bytes`; with no folder it only names them."""

    folder: Path | None
    shard_bytes: int
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    _waiting: dict[str, Picture] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, picture: Picture) -> bool:
        """Takes a picture in; False for an id that it holds already."""
        if picture.id in self.places or picture.id in self._waiting:
            return False
        self._waiting[picture.id] = picture
        self._bytes += len(picture.content)
        if self._bytes >= self.shard_bytes:
            self.flush()
        return True

    def flush(self) -> None:
        """Writes what is waiting; `places` then knows the shard and row of every picture taken in."""
        if not self._waiting:
            return
        name = shard_name(self._waiting)
        if self.folder is not None:
            write_shard(self.folder, list(self._waiting.values()))
        self.places.update({id: (name, row) for row, id in enumerate(sorted(self._waiting))})
        self.names.append(name)
        self._waiting, self._bytes = {}, 0


def places_on_disk(folder: Path, used: set[str]) -> dict[str, tuple[str, int]]:
    """Shard and row of every picture in the shards of a folder; shards that are `used` come first.

    A shard whose ids do not give its name is damaged, or no shard, and is left out.
    """
    places: dict[str, tuple[str, int]] = {}
    for path in sorted(folder.glob("*.parquet"), key=lambda path: (path.stem not in used, path.stem)):
        for row, id in enumerate(_ids_if_sound(path)):
            places.setdefault(id, (path.stem, row))
    return places


def _ids_if_sound(path: Path) -> list[str]:
    try:
        ids = shard_ids(path)
    except DataError:
        return []
    return ids if shard_name(ids) == path.stem else []


def drop_unused(folder: Path, used: set[str]) -> list[str]:
    """Removes the shards that no manifest row refers to, and gives their names."""
    unused = [path for path in sorted(folder.glob("*.parquet")) if path.stem not in used]
    for path in unused:
        path.unlink()
    return [path.stem for path in unused]
