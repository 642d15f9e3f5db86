"""Shards: named by what they hold, the same bytes every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ayeaye.data.shards import Picture, ShardWriter, drop_unused, places_on_disk, shard_name, write_shard
from ayeaye.data.table import shard_ids


def pictures(count: int, length: int = 100) -> list[Picture]:
    contents = [bytes([number % 256]) * length + str(number).encode() for number in range(count)]
    return [Picture(hashlib.sha256(content).hexdigest(), content, 4, 3) for content in contents]


def test_a_shard_is_named_after_its_sorted_ids_and_its_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a", pictures(150))
    again = write_shard(tmp_path / "b", pictures(150)[::-1])
    assert first == again == shard_name(picture.id for picture in pictures(150))
    ids = shard_ids(tmp_path / "a" / f"{first}.parquet")
    assert ids == sorted(picture.id for picture in pictures(150))
    contents = [(tmp_path / part / f"{first}.parquet").read_bytes() for part in "ab"]
    assert contents[0] == contents[1]


def test_a_writer_cuts_shards_by_size_and_knows_every_place(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 1000)
    taken = [writer.add(picture) for picture in pictures(25) + pictures(3)]
    writer.flush()
    assert taken == [True] * 25 + [False] * 3
    assert len(writer.names) == 3
    assert writer.places == places_on_disk(tmp_path, set())


def test_a_writer_without_a_folder_names_the_same_shards(tmp_path: Path) -> None:
    writers = ShardWriter(tmp_path, 1000), ShardWriter(None, 1000)
    for writer in writers:
        for picture in pictures(25):
            writer.add(picture)
        writer.flush()
    assert writers[0].places == writers[1].places


def test_damaged_shards_hold_nothing_and_used_ones_come_first(tmp_path: Path) -> None:
    whole, part = write_shard(tmp_path, pictures(10)), write_shard(tmp_path, pictures(4))
    known = {picture.id for picture in pictures(4)}
    for used in (whole, part):
        places = places_on_disk(tmp_path, {used})
        assert {places[id][0] for id in known} == {used}
    (tmp_path / f"{part}.parquet").write_bytes(b"PAR1 damaged PAR1")
    assert {shard for shard, _ in places_on_disk(tmp_path, {part}).values()} == {whole}


def test_a_shard_whose_ids_do_not_give_its_name_holds_nothing(tmp_path: Path) -> None:
    own, other = write_shard(tmp_path, pictures(3)), write_shard(tmp_path, pictures(5))
    (tmp_path / f"{other}.parquet").rename(tmp_path / "0123456789abcdef.parquet")
    assert {shard for shard, _ in places_on_disk(tmp_path, set()).values()} == {own}


def test_unused_shards_are_dropped(tmp_path: Path) -> None:
    kept, dropped = write_shard(tmp_path, pictures(3)), write_shard(tmp_path, pictures(5))
    assert drop_unused(tmp_path, {kept}) == [dropped]
    assert [path.stem for path in tmp_path.iterdir()] == [kept]
