"""The class table and the dataset on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sources import Place

from ayeaye.core.errors import DataError
from ayeaye.data.table import ClassTable, Dataset


def table() -> ClassTable:
    frame = pd.DataFrame(
        {
            "name": ["okapi", "zebra", "aye-aye"],
            "role": ["seen", "seen", "unseen"],
            "description": ["a", None, float("nan")],
            "synonyms": [["forest giraffe"], [], ["Daubentonia", "aye"]],
            "pretend_unseen": [True, False, False],
        }
    )
    numbers = pd.DataFrame({"neck": [1, 0, 0.5], "a/b": [3, 2, 1]})
    return ClassTable(
        frame, {"attributes": numbers, "wiki2vec": pd.DataFrame(np.eye(3), columns=["0", "1", "2"])}
    )


def test_a_class_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table().write(tmp_path / "classes.parquet")
    again = ClassTable.read(tmp_path / "classes.parquet")
    pd.testing.assert_frame_equal(again.frame, table().frame)
    for name, matrix in table().matrices.items():
        pd.testing.assert_frame_equal(again.matrices[name], matrix)
    assert again.digest() == table().digest()


def test_missing_texts_are_empty_strings() -> None:
    assert table().frame["description"].tolist() == ["a", "", ""]
    assert table().frame["group"].tolist() == ["", "", ""]


def test_rows_are_taken_by_mask_and_by_number() -> None:
    unseen = table().take(~table().seen)
    assert unseen.names == ["aye-aye"]
    assert unseen.matrices["attributes"].to_numpy().tolist() == [[0.5, 1.0]]
    assert table().take(np.array([2, 0])).names == ["aye-aye", "okapi"]


def test_the_digest_follows_texts_and_numbers() -> None:
    changed = table()
    changed.matrices["attributes"].iloc[0, 0] = 7
    renamed = ClassTable(table().frame.assign(description="x"), table().matrices)
    assert len({table().digest(), changed.digest(), renamed.digest()}) == 3


def test_a_dataset_gives_every_picture_it_lists(place: Place) -> None:
    place.prepare()
    dataset = Dataset.load(place.dataset)
    for row in dataset.manifest.itertuples():
        assert dataset.picture(row.id) == (place.source / "images" / row.source).read_bytes()
    by_shard = [pair for shard in dataset.shards() for pair in dataset.pictures(shard)]
    assert sorted(id for id, _ in by_shard) == sorted(dataset.manifest["id"])
    assert [dataset.classes.names[i] for i in dataset.labels] == dataset.manifest["label"].tolist()
    with pytest.raises(DataError, match=r"no picture abc"):
        dataset.picture("abc")


def test_a_missing_or_damaged_dataset_says_what_to_do(place: Place) -> None:
    with pytest.raises(DataError, match=r"holds no dataset: run `ayeaye prepare`"):
        Dataset.load(place.dataset)
    place.prepare()
    dataset = Dataset.load(place.dataset)
    manifest = place.dataset / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"manifest.parquet is damaged"):
        Dataset.load(place.dataset)
    dataset.shard_path(dataset.shards()[0]).unlink()
    with pytest.raises(DataError, match=r"is not there: run `dvc checkout`"):
        dataset.picture(dataset.manifest["id"].iloc[0])


def test_files_that_do_not_belong_together_are_refused(place: Place) -> None:
    place.prepare()
    classes = ClassTable.read(place.dataset / "classes.parquet")
    classes.take(np.array([0, 2])).write(place.dataset / "classes.parquet")
    with pytest.raises(DataError, match=r"the class table does not \(zebra\)"):
        Dataset.load(place.dataset)
