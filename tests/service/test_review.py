"""`ayeaye data review`: feedback is decided, and what is accepted is in the next dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import workspaces
from PIL import Image
from workspaces import Place, paint

from ayeaye.core.workspace import Workspace
from ayeaye.data.sources.feedback import keep
from ayeaye.data.table import Dataset
from ayeaye.service.review import Review, store_of
from ayeaye.service.store import Store

SEEN = "paint 000"
UNSEEN = workspaces.UNSEEN[0]
_numbers = count()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("reviewed")
    place = workspaces.make(
        folder / "workspace",
        workspaces.write_paints(folder / "paints", pictures=2),
        {},
        "prepare.source=folder",
    )
    done = place("prepare")
    assert done.code == 0, done.err
    return place


@pytest.fixture
def workspace(prepared: Place) -> Workspace:
    return Workspace.find(prepared.root)


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    opened = store_of(workspace)
    yield opened
    opened.close()


def give(store: Store, label: str, content: bytes | None = None) -> int:
    return store.give(f"answer {next(_numbers)}", label, "ann", content, model_version=1).id


def review(place: Place, *options: object, code: int = 0) -> Any:
    done = workspaces.ayeaye("data", "review", "--workspace", place.root, "--json", *options)
    assert done.code == code, done.err
    return done.json


def test_pending_feedback_is_listed(prepared: Place, store: Store) -> None:
    id = give(store, SEEN, paint(SEEN, 50))
    (listed,) = [each for each in review(prepared)["pending"] if each["id"] == id]
    assert listed["label"] == SEEN and listed["picture_bytes"] > 0 and listed["status"] == "pending"
    shown = workspaces.ayeaye("data", "review", "--workspace", prepared.root)
    assert shown.code == 0 and SEEN in shown.out and "ann" in shown.out
    store.decide(id, False, "rea")


def test_an_accepted_picture_is_in_the_next_dataset(prepared: Place, store: Store) -> None:
    content = paint(SEEN, 51)
    id = give(store, SEEN.upper(), content)  # as the class table writes it, whatever the caller wrote
    (decided,) = review(prepared, "--accept", id)["decided"]
    assert decided["outcome"] == f"enters the next dataset as {SEEN}"
    assert store.picture(id) is None  # it lies in the workspace now
    first = prepared("prepare", "--json").json
    assert (first["new"], first["rejected"]) == (1, 0)
    name = hashlib.sha256(content).hexdigest()
    manifest = Dataset.load(prepared.root / "data" / "dataset").manifest.set_index("id")
    assert (manifest.loc[name, "label"], manifest.loc[name, "source"]) == (SEEN, f"feedback/{SEEN}/{name}")
    (again,) = review(prepared, "--accept", id)["decided"]
    assert (again["status"], again["outcome"]) == ("accepted", "as it was before")
    assert not prepared("prepare", "--json").json["changed"]


def test_a_dry_run_says_what_would_come_of_it_and_decides_nothing(prepared: Place, store: Store) -> None:
    content = paint(SEEN, 57)
    good, bad = give(store, SEEN, content), give(store, "paint 0000", paint(SEEN, 58))
    found = review(
        prepared, "--accept", good, "--accept", bad, "--reject", good, "--reason", "r", "--dry-run", code=1
    )
    assert found["dry_run"]
    accepted, refused, rejected = found["decided"]
    assert (accepted["status"], accepted["outcome"]) == ("accepted", f"enters the next dataset as {SEEN}")
    assert "no such class" in refused["error"]
    assert rejected["status"] == "rejected"
    assert store.find(good).status == "pending" and store.picture(good) == content
    store.decide(good, False, "rea", "dark")
    (conflict,) = review(prepared, "--accept", good, "--dry-run", code=1)["decided"]
    assert "it stays so" in conflict["error"]
    store.decide(bad, False, "rea")


def test_a_picture_of_an_unseen_class_is_said_to_be_for_the_test_alone(prepared: Place, store: Store) -> None:
    id = give(store, UNSEEN, paint(UNSEEN, 52))
    assert "for the test alone" in review(prepared, "--accept", id)["decided"][0]["outcome"]


def test_feedback_without_a_picture_says_what_it_counts_for(prepared: Place, store: Store) -> None:
    id = give(store, "a class of run time")
    assert "monitoring alone" in review(prepared, "--accept", id)["decided"][0]["outcome"]


def test_a_label_that_the_class_table_does_not_have_is_refused(prepared: Place, store: Store) -> None:
    id = give(store, "paint 0000", paint(SEEN, 53))
    (refused,) = review(prepared, "--accept", id, code=1)["decided"]
    assert "the class table has no such class (did you mean paint 000?)" in refused["error"]
    assert "`ayeaye prepare`" in refused["error"]
    assert store.find(id).status == "pending" and store.find(id).has_picture


def test_a_picture_that_is_there_under_another_label_is_refused(
    prepared: Place, workspace: Workspace, store: Store
) -> None:
    keep(workspace.feedback, SEEN, paint(SEEN, 60))
    for number, where in ((0, "dataset"), (60, "accepted feedback")):
        id = give(store, UNSEEN, paint(SEEN, number))
        (refused,) = review(prepared, "--accept", id, code=1)["decided"]
        assert f"the same picture is in the {where} as {SEEN}" in refused["error"]
        store.decide(id, False, "rea")


def test_a_file_that_is_no_picture_is_refused(prepared: Place, store: Store) -> None:
    id = give(store, SEEN, b"<script>")
    (refused,) = review(prepared, "--accept", id, code=1)["decided"]
    assert "not a picture of a known format" in refused["error"]
    store.decide(id, False, "rea")


def test_a_rejection_needs_a_reason_and_is_recorded(prepared: Place, store: Store) -> None:
    id = give(store, SEEN, paint(SEEN, 54))
    refused = workspaces.ayeaye("data", "review", "--workspace", prepared.root, "--reject", id)
    assert refused.code == 2 and "--reason" in refused.err
    review(prepared, "--reject", id, "--reason", "blurred")
    found = store.find(id)
    assert (found.status, found.reason, found.has_picture) == ("rejected", "blurred", False)


def test_one_that_cannot_be_decided_does_not_stop_the_others(prepared: Place, store: Store) -> None:
    id = give(store, "anything")
    decided = review(prepared, "--accept", 9999, "--accept", id, code=1)["decided"]
    assert decided[0] == {"id": 9999, "error": "there is no feedback 9999"}
    assert decided[1]["status"] == "accepted"


def test_pending_pictures_are_written_anew_to_be_looked_at(
    prepared: Place, store: Store, tmp_path: Path
) -> None:
    id, other = give(store, SEEN, paint(SEEN, 55)), give(store, SEEN, b"<script>")
    review(prepared, "--pictures", tmp_path / "look")
    with Image.open(tmp_path / "look" / f"{id}.png") as picture:
        assert picture.size == (40, 40)
    assert not (tmp_path / "look" / f"{other}.png").exists()
    for each in (id, other):
        store.decide(each, False, "rea")


def test_a_review_that_was_killed_is_completed_by_the_next(
    prepared: Place, workspace: Workspace, store: Store
) -> None:
    content = paint(SEEN, 56)
    id = give(store, SEEN, content)
    store.decide(id, True, "rea")  # and no more
    assert not list(workspace.feedback.rglob(hashlib.sha256(content).hexdigest()))
    review(prepared)
    (path,) = workspace.feedback.rglob(hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content and store.picture(id) is None


def test_the_store_is_where_the_parameters_say(prepared: Place, tmp_path: Path) -> None:
    assert "/.ayeaye/service/service.db" in repr(store_of(Workspace.find(prepared.root)))
    refused = workspaces.ayeaye("set", "--workspace", prepared.root, "serve.database=mysql://u:secret@h/d")
    assert refused.code == 1 and "secret" not in refused.err and "postgresql+psycopg://" in refused.err
    unreachable = "serve.database=postgresql://u:secret@127.0.0.1:1/d"
    done = workspaces.ayeaye("set", "--workspace", prepared.root, f"serve.state={tmp_path}", unreachable)
    assert done.code == 0
    failed = workspaces.ayeaye("data", "review", "--workspace", prepared.root)
    assert failed.code == 1 and "secret" not in failed.err and "127.0.0.1" in failed.err
    chosen = Workspace.find(prepared.root).params
    assert "secret" not in repr(chosen) and "secret" not in str(chosen.model_dump(mode="json"))
    prepared.set("serve.database=")
    assert str(tmp_path) in repr(store_of(Workspace.find(prepared.root)))
    prepared.set("serve.state=.ayeaye/service")
    assert Review(Workspace.find(prepared.root), store_of(Workspace.find(prepared.root))).deliver() == 0


def test_the_store_is_where_the_service_is_told_to_keep_it(
    prepared: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables go before params.yaml, as for `ayeaye serve`: else the review would look at another store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AYEAYE_STATE", "here")
    assert f"{tmp_path}/here/service.db" in repr(store_of(Workspace.find(prepared.root)))
    monkeypatch.setenv("AYEAYE_DATABASE", f"sqlite:///{tmp_path}/its.db")
    assert f"{tmp_path}/its.db" in repr(store_of(Workspace.find(prepared.root)))
    prepared.set(f"serve.database=sqlite:///{tmp_path}/other.db")
    monkeypatch.setenv("AYEAYE_DATABASE", "")
    assert f"{tmp_path}/here/service.db" in repr(store_of(Workspace.find(prepared.root)))
    prepared.set("serve.database=")
