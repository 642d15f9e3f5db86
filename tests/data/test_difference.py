"""What has changed from one dataset to another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ayeaye.data.difference import compare
from ayeaye.data.table import ClassTable, Dataset


def dataset(rows: list[tuple[str, str, str]], classes: list[tuple[str, str, str, float]]) -> Dataset:
    manifest = pd.DataFrame(
        [(id, "s", 0, label, split, f"{id}.png") for id, label, split in rows],
        columns=["id", "shard", "row", "label", "split", "source"],
    )
    frame = pd.DataFrame([each[:3] for each in classes], columns=["name", "role", "description"])
    matrices = {"attributes": pd.DataFrame({"ears": [each[3] for each in classes]})}
    return Dataset(Path(), manifest, ClassTable(frame, matrices), "images")


BEFORE = dataset(
    [("1", "okapi", "train"), ("2", "okapi", "test_seen"), ("3", "zebra", "train"), ("4", "zebra", "train")],
    [("okapi", "seen", "legs", 0), ("zebra", "seen", "stripes", 0), ("dodo", "unseen", "extinct", 0)],
)
AFTER = dataset(
    [
        ("1", "zebra", "train"),
        ("2", "okapi", "train"),
        ("4", "zebra", "train"),
        ("5", "aye-aye", "test_unseen"),
    ],
    [("okapi", "unseen", "legs", 0), ("zebra", "seen", "many stripes", 1), ("aye-aye", "unseen", "ears", 1)],
)


def test_classes_pictures_labels_and_splits_are_told_apart() -> None:
    found = compare(BEFORE, AFTER)
    assert (found.classes_added, found.classes_removed) == (["aye-aye"], ["dodo"])
    assert [tuple(row) for row in found.classes_changed.itertuples(index=False)] == [
        ("okapi", "role", "seen", "unseen"),
        ("zebra", "description", "stripes", "many stripes"),
        ("zebra", "attributes", "", ""),
    ]
    assert found.added["id"].tolist() == ["5"]
    assert found.removed["id"].tolist() == ["3"]
    assert found.relabelled.to_dict("records") == [{"id": "1", "before": "okapi", "after": "zebra"}]
    assert found.moved.to_dict("records") == [
        {"id": "2", "before": "test_seen", "after": "train", "label": "okapi"}
    ]
    counts = {name: values for name, *values in found.counts.itertuples(index=False)}
    assert counts == {
        "aye-aye": [0, 1, 1, 0],
        "dodo": [0, 0, 0, 0],
        "okapi": [2, 1, 0, 0],
        "zebra": [2, 2, 0, 1],
    }
    assert not found.nothing


def test_a_dataset_does_not_differ_from_itself() -> None:
    found = compare(AFTER, AFTER)
    assert found.nothing
    assert (found.counts["before"] == found.counts["after"]).all()


def test_backwards_it_is_the_other_way_round() -> None:
    there, back = compare(BEFORE, AFTER), compare(AFTER, BEFORE)
    assert (there.added.equals(back.removed), there.removed.equals(back.added)) == (True, True)
    assert (there.classes_added, there.classes_removed) == (back.classes_removed, back.classes_added)
