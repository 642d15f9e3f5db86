"""Pictures taken out of a dataset for good: out of its shards and its manifest, and never taken in again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence, Set
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError
from ayeaye.core.files import replacing, write_atomic
from ayeaye.data.prepare_dataset import manifest_bytes
from ayeaye.data.shards import Picture, drop_unused, shard_name, write_shard
from ayeaye.data.table import MANIFEST, read_frame, shard_ids

ID = re.compile(r"[0-9a-f]{64}")
SHORTEST = 6  # digits of a prefix


def read(path: Path) -> frozenset[str]:
    """Ids of pictures that were removed; none where nothing ever was. Raises DataError for a damaged list."""
    if not path.is_file():
        return frozenset()
    lines = path.read_text(encoding="utf-8").split()
    if wrong := [line for line in lines if not ID.fullmatch(line)]:
        raise DataError(f"{path} holds {wrong[0][:80]!r}: expected one SHA-256 a line; restore it with git")
    return frozenset(lines)


def note(path: Path, ids: Collection[str]) -> None:
    """Add ids to the list."""
    known = read(path)
    if not known.issuperset(ids):
        write_atomic(path, "".join(f"{id}\n" for id in sorted(known.union(ids))).encode())


def resolve(given: str, known: Iterable[str]) -> str:
    """The id that is meant by a SHA-256 or by the beginning of a known one; raises DataError where that is not one.

    A whole SHA-256 need not be known: what is not here yet can be kept out all the same.
    """
    wanted = given.strip().lower()
    if ID.fullmatch(wanted):
        return wanted
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},63}}", wanted):
        raise DataError(
            f"{given!r} is not the id of a picture: expected its SHA-256, or at least the first {SHORTEST} digits of "
            "it, as `sha256sum FILE` and the column id of data/dataset/manifest.parquet give it"
        )
    found = sorted({id for id in known if id.startswith(wanted)})
    if len(found) != 1:
        many = f"{len(found)} pictures begin with it ({', '.join(id[:12] for id in found[:3])}, …): give more digits"
        raise DataError(f"{given!r}: {many if found else 'no dataset of this workspace has such a picture'}")
    return found[0]


def take_out(folder: Path, ids: Set[str], embeddings: Sequence[Path] = ()) -> dict[str, str | None]:
    """Take pictures out of the shards and the manifest of a dataset folder.

    `embeddings` are folders with a `<shard>.npy` (n, d) of some of its shards: they lose the rows, and are named
    after the new shards. Returns the new name of each shard that was rewritten, None for one of which nothing is
    left. Killed anywhere, the manifest is the old or the new one, and the next call completes what is missing.
    """
    names: dict[str, str | None] = {}
    places: dict[str, tuple[str, int]] = {}
    for path in sorted((folder / "shards").glob("*.parquet")):
        held = shard_ids(path)
        if ids.isdisjoint(held):
            continue
        stay = [row for row, id in enumerate(held) if id not in ids]
        names[path.stem] = _without(path, stay)
        left = names[path.stem]
        if left:
            places |= {held[row]: (left, number) for number, row in enumerate(stay)}
        for place in embeddings:
            _rows_without(place, path.stem, left, stay)
    frame = read_frame(folder / "manifest.parquet", MANIFEST)
    left_over = frame[~frame["id"].isin(list(ids))]
    where = [
        places[id] if shard in names else (shard, row)
        for id, shard, row in zip(left_over["id"], left_over["shard"], left_over["row"], strict=True)
    ]
    manifest = left_over.assign(shard=[shard for shard, _ in where], row=[row for _, row in where])
    manifest = manifest.astype(frame.dtypes)
    if not manifest.equals(frame):
        write_atomic(folder / "manifest.parquet", manifest_bytes(manifest))
    # The old ones last: they alone say which rows of which embeddings had to go.
    drop_unused(folder / "shards", set(manifest["shard"]))
    return names


def _without(path: Path, stay: Sequence[int]) -> str | None:
    """A new shard of some rows beside the old one; returns its name."""
    if not stay:
        return None
    rows = pq.read_table(path).take(pa.array(stay)).to_pylist()
    pictures = [Picture(row["id"], row["bytes"], row["width"], row["height"]) for row in rows]
    name = shard_name(picture.id for picture in pictures)
    written = write_shard(path.parent, pictures)
    assert written == name
    return name


def _rows_without(folder: Path, shard: str, left: str | None, stay: Sequence[int]) -> None:
    old = folder / f"{shard}.npy"
    if not old.is_file():
        return
    if left and not (folder / f"{left}.npy").is_file():
        X = np.load(old, allow_pickle=False)
        with replacing(folder / f"{left}.npy") as part, part.open("wb") as file:
            np.save(file, X[list(stay)])
    old.unlink()
