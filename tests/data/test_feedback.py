"""Accepted feedback beside a source: its pictures are as any other of the dataset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from small_sources import CLASSES, Place, picture, write_csv, write_source

from ayeaye.core.errors import SourceError
from ayeaye.data.prepare_dataset import quarantine
from ayeaye.data.sources.feedback import keep, kept
from ayeaye.data.table import Dataset


def test_an_accepted_picture_is_one_of_the_dataset(place: Place) -> None:
    place.prepare()
    before = Dataset.load(place.dataset).manifest.set_index("id")
    content = picture(1000)
    id = hashlib.sha256(content).hexdigest()
    keep(place.feedback, "okapi", content)
    summary = place.prepare()
    assert (summary.new, summary.removed, summary.rejected) == (1, 0, 0)
    dataset = Dataset.load(place.dataset)
    after = dataset.manifest.set_index("id")
    assert (after.loc[id, "label"], after.loc[id, "source"]) == ("okapi", f"feedback/okapi/{id}")
    assert after.loc[id, "split"] in ("train", "validation", "test_seen")
    assert dataset.picture(id) == content
    assert after.loc[before.index, "split"].equals(before["split"])


def test_nothing_changes_when_it_is_prepared_or_kept_again(place: Place) -> None:
    path = keep(place.feedback, "okapi", picture(1000))
    place.prepare()
    before = place.files()
    assert keep(place.feedback, "okapi", picture(1000)) == path
    summary = place.prepare()
    assert not summary.changed and summary.decoded == 0 and place.files() == before


def test_a_picture_that_the_source_has_too_is_a_duplicate(place: Place) -> None:
    keep(place.feedback, "okapi", (place.source / "images" / "okapi" / "003.png").read_bytes())
    summary = place.prepare()
    assert (summary.duplicates, summary.pictures) == (1, 28)


def test_a_picture_of_an_unseen_class_is_for_the_test_alone(place: Place) -> None:
    keep(place.feedback, "aye-aye", picture(1000))
    assert place.prepare().splits["test_unseen"] == 5


def test_feedback_that_is_removed_leaves_the_dataset(place: Place) -> None:
    path = keep(place.feedback, "okapi", picture(1000))
    place.prepare()
    path.unlink()
    assert place.prepare().removed == 1


def test_a_broken_picture_and_one_of_an_unknown_class_are_in_quarantine(place: Place) -> None:
    keep(place.feedback, "okapi", picture(1000)[:-30])
    keep(place.feedback, "quagga", picture(1001))
    place.prepare(max_rejected=0.1)
    broken, unknown = quarantine(place.dataset).to_dict("records")
    assert (broken["label"], unknown["label"]) == ("okapi", "quagga")
    assert "damaged or truncated" in broken["reason"]
    assert unknown["reason"] == "accepted feedback of a class that is not in the class table: quagga"


def test_a_class_that_is_known_later_takes_its_pictures_in(place: Place) -> None:
    keep(place.feedback, "quagga", picture(1001))
    assert place.prepare().rejected == 1
    row = {"name": "quagga", "role": "unseen", "description": "Stripes in front, brown behind."}
    write_csv(place.source / "classes.csv", [*CLASSES, row])
    summary = place.prepare()
    assert (summary.rejected, summary.new, summary.splits["test_unseen"]) == (0, 1, 5)


def test_a_class_may_have_its_photographs_from_feedback_alone(tmp_path: Path) -> None:
    rows = [*CLASSES, {"name": "quagga", "role": "seen", "description": "Stripes in front, brown behind."}]
    place = Place(tmp_path / "work", write_source(tmp_path / "source", rows, {"okapi": 4, "zebra": 4}))
    keep(place.feedback, "quagga", picture(1001))
    with pytest.raises(SourceError, match="a single picture: quagga"):
        place.prepare()
    keep(place.feedback, "quagga", picture(1002))
    assert place.prepare().pictures == 10


def test_a_picture_that_contradicts_the_source_is_not_learned_from(place: Place) -> None:
    id = keep(place.feedback, "zebra", (place.source / "images" / "okapi" / "003.png").read_bytes()).name
    assert place.prepare(max_rejected=0.1).rejected == 2
    assert quarantine(place.dataset)["source"].tolist() == ["okapi/003.png", f"feedback/zebra/{id}"]


@pytest.mark.parametrize("name", ["a/b", ".hidden", "100 %", "100%2Fb", "..", "naïve 文"])
def test_a_class_of_any_name_has_a_folder(tmp_path: Path, name: str) -> None:
    path = keep(tmp_path / "feedback", name, b"content")
    assert path.parent.parent == tmp_path / "feedback"
    assert kept(tmp_path / "feedback") == {hashlib.sha256(b"content").hexdigest(): name}


def test_a_source_of_features_takes_no_pictures(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "features.npz",
        features=np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32),
        labels=np.repeat([0, 1, 2], 4),
        class_names=np.array(["okapi", "zebra", "aye-aye"]),
        role=np.array(["seen", "seen", "unseen"]),
        attributes=np.eye(3, dtype=np.float32),
    )
    place = Place(tmp_path / "work", tmp_path / "features.npz")
    keep(place.feedback, "okapi", picture(1000))
    assert place.prepare(source="features").pictures == 12
