"""What nothing needs: found, shown, and removed when asked to."""

from __future__ import annotations

import json
import shutil

import pytest
import workspaces
from retrained import ADDED, snapshot
from workspaces import Place

from ayeaye.core.workspace import Workspace
from ayeaye.maintenance import garbage
from ayeaye.packaging.bento import BentoStore
from ayeaye.release import promotion
from ayeaye.release.registry import EVIDENCE
from ayeaye.versioning import commits, dvc, git, stores

pytestmark = pytest.mark.slow


def test_what_nothing_needs_is_shown_and_then_removed(place: Place) -> None:
    workspace = Workspace(place.root)
    registry = promotion.registry_of(workspace)
    path = place.root / "models" / "classifier" / "bundle.json"
    bundle, content = path.read_bytes(), json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "temperature": content["temperature"] * 1.01}))
    refused = promotion.register(workspace, git.head(workspace))
    path.write_bytes(bundle)
    registry.tag(refused, gate="refused")
    stale = workspace.state / "embeddings" / "0123456789abcdef-01234567" / "shard.npy"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"x" * 1000)
    unused = BentoStore(workspace.bentos).folder("ayeaye:v9-00000000")
    shutil.copytree(BentoStore(workspace.bentos).folder(str(place.status["champion"]["bento"])), unused)
    before = snapshot(place.root)

    shown = place("gc", "--keep", 1, "--json")
    assert shown.code == 0, shown.err
    kinds = {item["kind"]: item for item in shown.json["items"]}
    assert set(kinds) >= {"embeddings", "bento"}
    assert "version" not in kinds, "the newest one is kept"
    assert kinds["embeddings"]["bytes"] == 1000
    assert not shown.json["removed"] and snapshot(place.root) == before
    registry.tag(refused, gate="refused")

    # A fourth one makes the third old.
    path.write_text(json.dumps({**content, "temperature": content["temperature"] * 1.02}))
    newest = promotion.register(workspace, git.head(workspace))
    path.write_bytes(bundle)
    registry.tag(newest, gate="refused")
    assert "Nothing was removed" in place("gc", "--keep", 1).out
    done = place("gc", "--keep", 1, "--yes", "--json")
    assert done.code == 0, done.err
    assert [item["name"] for item in done.json["items"] if item["kind"] == "version"] == [
        "version 3 of ayeaye"
    ]
    assert place("gc", "--keep", 1, "--json").json["items"] == []
    assert not stale.exists() and not unused.exists()

    left = set(registry.artifacts(3))
    assert {"manifest.parquet", "metrics.json", "predictions.parquet", "card.html"} <= left <= set(EVIDENCE)
    assert registry.metrics(3)["H"] > 0
    denied = place("promote", 3, "--force")
    assert denied.code == 1 and "was removed by `ayeaye gc`" in denied.err

    # Champion and previous are whole, and what they were trained on is, too.
    status = place.status
    assert (status["champion"]["version"], status["previous"]["version"], status["agrees"]) == (2, 1, True)
    for number in (1, 2):
        assert (registry.bundle(number) / "bundle.json").is_file()
        assert BentoStore(workspace.bentos).is_intact(str(promotion.record_of(workspace).bento(number)))
    with stores.objects(workspace) as objects:
        for digest in commits.datasets(workspace):
            files = objects.listing(digest)
            assert all(objects.has(store, each) for store in objects.stores for each in files.values())
    assert place("rollback").code == 0

    # The same bundle again: the version is whole again, and may be promoted.
    path.write_text(json.dumps({**content, "temperature": content["temperature"] * 1.01}))
    assert promotion.register(workspace, git.head(workspace)).number == 3
    assert "removed" not in registry.version(3).tags
    assert (registry.bundle(3) / "bundle.json").is_file()


def test_data_on_the_remote_go_only_when_asked_for_and_when_no_version_needs_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(place.root)
    for number in range(2):
        workspaces.add_pictures(place.source, ADDED, [30 + number])
        place("prepare")
        dvc.add_dataset(workspace)
        git.commit(workspace, "More", [dvc.DATASET])
        dvc.push_dataset(workspace)
    datasets = list(commits.datasets(workspace))
    assert len(datasets) == 4
    with stores.objects(workspace) as objects:
        alone = set(objects.listing(datasets[1]).values()) - {
            each for other in (0, 2, 3) for each in objects.listing(datasets[other]).values()
        }
        assert alone
    assert place("gc", "--yes", "--json").json["removed"]
    with stores.objects(workspace) as objects:
        assert all(objects.has("remote", each) and not objects.has("cache", each) for each in alone)
    with workspace.lock():
        items = garbage.find(workspace, remote=True)
        assert {item.kind for item in items} == {"remote"}
        for item in items:
            item.remove()
    with stores.objects(workspace) as objects:
        assert not any(objects.has("remote", each) for each in alone)
        for digest in (datasets[0], datasets[2], datasets[3]):
            assert all(objects.has("remote", each) for each in objects.listing(digest).values())


def test_a_workspace_without_garbage_says_so(trained: Place) -> None:
    done = trained("gc")
    assert (done.code, done.out) == (0, "Nothing to remove: everything is needed.\n")
