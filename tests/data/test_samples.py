"""The small pictures that travel with a classifier."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from small_sources import CLASSES, Place, picture, write_source

from ayeaye.core.errors import BundleError
from ayeaye.data.samples import FILE, THUMBNAIL, TO_TRY, WHOLE, Sample, Samples, choose
from ayeaye.data.table import Dataset

SPLITS = {"class": {"train"}, "try": {"test_seen", "test_unseen"}}


@pytest.fixture
def dataset(place: Place) -> Dataset:
    place.prepare()
    return Dataset.load(place.dataset)


def test_seen_classes_are_shown_by_training_pictures_and_others_are_tried(dataset: Dataset) -> None:
    samples = choose(dataset, 3)
    assert Counter(each.label for each in samples.chosen("class")) == {"okapi": 3, "zebra": 3}
    # All classes have pictures that were held out; the unseen one comes first.
    assert [each.label for each in samples.chosen("try")] == ["aye-aye", "okapi", "zebra"]
    for use, splits in SPLITS.items():
        rows = dataset.manifest[dataset.manifest["split"].isin(splits)]
        made = {Sample.of(use, row.label, dataset.picture(row.id)).id for row in rows.itertuples()}
        assert {each.id for each in samples.chosen(use)} <= made


def test_they_are_the_same_again_and_after_they_were_saved(dataset: Dataset, tmp_path: Path) -> None:
    first = choose(dataset, 2)
    first.save(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    choose(dataset, 2).save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content
    assert Samples.load(tmp_path) == first
    assert [each.label for each in first.chosen("class", ["okapi"])] == ["okapi", "okapi"]
    assert first.chosen(labels=["nobody"]) == []


def test_so_many_bytes_are_shared_out_evenly(dataset: Dataset) -> None:
    whole = choose(dataset, 4).chosen("class")
    room = sum(len(each.jpeg) for each in whole) // 2
    fewer = choose(dataset, 4, most_bytes=room).chosen("class")
    assert sum(len(each.jpeg) for each in fewer) <= room
    counts = Counter(each.label for each in fewer)
    assert abs(counts["okapi"] - counts["zebra"]) <= 1


def test_of_many_classes_a_few_are_tried(tmp_path: Path) -> None:
    rows = [{**CLASSES[n % 2 * 2], "name": f"animal {n:02d}"} for n in range(20)]
    for number, row in enumerate(rows):
        row["description"] += f" It is number {number}."
    source = write_source(tmp_path / "source", rows, {row["name"]: 6 for row in rows})
    place = Place(tmp_path / "work", source)
    place.prepare()
    tried = choose(Dataset.load(place.dataset), 1).chosen("try")
    unseen = {row["name"] for row in rows if row["role"] == "unseen"}
    assert len({each.label for each in tried}) == TO_TRY
    assert [each.label in unseen for each in tried] == [True] * 5 + [False] * 3


def test_without_photographs_of_unseen_classes_seen_ones_are_tried(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", CLASSES, {"okapi": 8, "zebra": 8})
    place = Place(tmp_path / "work", source)
    place.prepare()
    assert [each.label for each in choose(Dataset.load(place.dataset), 1).chosen("try")] == ["okapi", "zebra"]


def test_none_are_written_where_none_are_wanted(dataset: Dataset, tmp_path: Path) -> None:
    choose(dataset, 0).save(tmp_path)
    assert not (tmp_path / FILE).exists()
    assert Samples.load(tmp_path) == Samples()


def test_large_ones_become_small_and_say_nothing_of_where_they_were_taken() -> None:
    exif = Image.Exif()
    exif[0x010E] = "my garden"
    content = picture(0, 900, "JPEG", exif=exif)
    for use, side in (("class", THUMBNAIL), ("try", WHOLE)):
        sample = Sample.of(use, "okapi", content)
        with Image.open(io.BytesIO(sample.jpeg)) as made:
            assert made.size == (sample.width, sample.height) == (side, side)
        assert b"my garden" in content
        assert b"my garden" not in sample.jpeg


@pytest.mark.parametrize("damage", [b"", b"no parquet", None])
def test_a_damaged_file_raises_meaningful_error(
    dataset: Dataset, tmp_path: Path, damage: bytes | None
) -> None:
    choose(dataset, 1).save(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(BundleError, match="dvc checkout"):
        Samples.load(tmp_path)
