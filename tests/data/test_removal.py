"""Pictures taken out of shards, manifest and embeddings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.core.errors import DataError
from ayeaye.data import removal
from ayeaye.data.prepare_dataset import manifest_bytes
from ayeaye.data.shards import Picture, shard_name, write_shard
from ayeaye.data.table import MANIFEST, read_frame, shard_ids


def id_of(number: int) -> str:
    return hashlib.sha256(bytes([number])).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of pictures 0–4 and 4–9, so that 4 lies in both; the manifest lists all but 9."""
    rows = {}
    for numbers in (range(5), range(4, 10)):
        name = write_shard(tmp_path / "shards", [Picture(id_of(n), bytes([n]), 1, 1) for n in numbers])
        for row, id in enumerate(sorted(map(id_of, numbers))):
            rows.setdefault(id, (name, row))
    listed = [(id_of(n), *rows[id_of(n)], "a", "train", f"{n}.png") for n in range(9)]
    (tmp_path / "manifest.parquet").write_bytes(manifest_bytes(pd.DataFrame(listed, columns=list(MANIFEST))))
    return tmp_path


def contents(folder: Path) -> dict[str, list[str]]:
    return {path.stem: shard_ids(path) for path in (folder / "shards").glob("*.parquet")}


def check(folder: Path, left: list[int]) -> None:
    """Every row of the manifest leads to its picture, in the order of the sources."""
    frame, shards = read_frame(folder / "manifest.parquet", MANIFEST), contents(folder)
    assert frame["id"].tolist() == [id_of(n) for n in left]
    for row in frame.itertuples():
        assert shards[str(row.shard)][int(row.row)] == row.id  # type: ignore[arg-type]
    assert set(shards) == set(frame["shard"])
    assert all(shard_name(ids) == name for name, ids in shards.items())


@pytest.mark.parametrize(
    ("numbers", "left"),
    [
        pytest.param([2], [0, 1, 3, 4, 5, 6, 7, 8], id="one of one shard"),
        pytest.param([4], [0, 1, 2, 3, 5, 6, 7, 8], id="in two shards"),
        pytest.param([9], list(range(9)), id="in no manifest"),
        pytest.param([0, 1, 2, 3, 4], [5, 6, 7, 8], id="all of a shard"),
    ],
)
def test_a_picture_goes_from_every_shard_that_holds_it(
    folder: Path, numbers: list[int], left: list[int]
) -> None:
    gone = {id_of(n) for n in numbers}
    removal.take_out(folder, gone)
    check(folder, left)
    assert all(gone.isdisjoint(ids) for ids in contents(folder).values())
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert removal.take_out(folder, gone) == {}
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == before


def test_embeddings_lose_the_row_and_keep_the_others(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    shards = contents(folder)
    values = {id_of(n): float(n) for n in range(10)}
    for name, ids in shards.items():
        np.save(cache / f"{name}.npy", np.array([[values[id]] for id in ids], np.float32))
    names = removal.take_out(folder, {id_of(4)}, [cache])
    assert set(names) == set(shards)
    after = contents(folder)
    assert {path.stem for path in cache.glob("*.npy")} == set(after) == set(names.values())
    for name, ids in after.items():
        assert np.load(cache / f"{name}.npy").ravel().tolist() == [values[id] for id in ids]


@pytest.mark.parametrize("step", ["write_shard", "_rows_without", "write_atomic", "drop_unused"])
def test_killed_in_any_step_it_is_completed_by_the_next_call(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Killed(BaseException):
        pass

    cache = tmp_path_factory.mktemp("cache")
    for name, ids in contents(folder).items():
        np.save(cache / f"{name}.npy", np.zeros((len(ids), 1), np.float32))

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(removal, step, killed)
        removal.take_out(folder, {id_of(2), id_of(4)}, [cache])
    removal.take_out(folder, {id_of(2), id_of(4)}, [cache])
    check(folder, [0, 1, 3, 5, 6, 7, 8])
    assert {path.stem for path in cache.glob("*.npy")} == set(contents(folder))


def test_ids_are_kept_one_a_line_and_given_by_their_first_digits(tmp_path: Path) -> None:
    path, ids = tmp_path / "removed.txt", sorted(map(id_of, range(3)))
    assert removal.read(path) == frozenset()
    removal.note(path, ids[:2])
    removal.note(path, ids[1:])
    assert path.read_text().split() == ids
    assert removal.read(path) == frozenset(ids)
    assert removal.resolve(ids[0][:8].upper(), ids) == ids[0]
    assert removal.resolve("f" * 64, ids) == "f" * 64, "what is not here yet can be kept out"
    alike = [f"abcdef{digit}" + "0" * 57 for digit in "01"]
    for given, complaint in (("abc", "at least the first 6 digits"), ("abcdef", "2 pictures begin with it"),
                             ("0123456789", "no dataset"), ("../etc/passwd", "not the id")):  # fmt: skip
        with pytest.raises(DataError, match=complaint):
            removal.resolve(given, alike)
    path.write_text("not an id\n")
    with pytest.raises(DataError, match="expected one SHA-256 a line"):
        removal.read(path)
