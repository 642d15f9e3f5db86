"""A workspace with a history: versions made again, datasets compared, pictures taken down, garbage removed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import workspaces
from workspaces import Place

from ayeaye.core.workspace import Workspace
from ayeaye.data.shards import shard_name
from ayeaye.data.table import Dataset
from ayeaye.maintenance import garbage, takedown
from ayeaye.packaging.bento import BentoStore
from ayeaye.release import promotion
from ayeaye.release.registry import EVIDENCE
from ayeaye.versioning import commits, dvc, git, stores

pytestmark = pytest.mark.slow

ADDED, MOVED = "paint 000", "paint 001"


@pytest.fixture(scope="module")
def retrained(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """After a second retrain: three pictures more of one class, one picture of it under another."""
    place = trained.copy(tmp_path_factory.mktemp("retrained"))
    workspaces.add_pictures(place.source, ADDED, range(20, 23))
    (place.source / "images" / ADDED / "000.png").rename(place.source / "images" / MOVED / "900.png")
    place.set("train.mapper=eszsl")
    assert place.retrain()["champion"] == 2
    return place


@pytest.fixture
def place(retrained: Place, tmp_path: Path) -> Place:
    """A copy for a test to change."""
    return retrained.copy(tmp_path)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def data(place: Place, *arguments: object) -> workspaces.Done:
    command, *rest = arguments
    return workspaces.ayeaye("data", command, "--workspace", place.root, *rest, environment=place.environment)


def snapshot(root: Path) -> dict[str, str]:
    """Every file of a workspace but logs, locks and what DVC and git remember of what they have looked at."""
    passing = (".git/", ".dvc/tmp/", ".ayeaye/logs/", ".ayeaye/prefect/", ".ayeaye/dvc/", "params.yaml")
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {
        name: digest_of(path.read_bytes())
        for name, path in files.items()
        if not name.startswith(passing) and not name.endswith((".lock", "/lock", "mlflow.db"))
    }


# Reproduce


def test_a_version_is_made_again_bit_by_bit_in_a_workspace_of_its_own(place: Place, tmp_path: Path) -> None:
    before, commits = snapshot(place.root), git.head(Workspace(place.root))
    # Nothing of the original but its history and its remote may be needed.
    shutil.rmtree(place.root / ".dvc" / "cache")
    into = tmp_path / "again"
    planned = place("reproduce", 1, "--into", into, "--dry-run", "--json").json
    assert (planned["version"], planned["begun"], planned["folder"]) == (1, False, str(into))
    assert not into.exists()
    done = place("reproduce", 1, "--into", into, "--json")
    assert done.code == 0, done.err
    made = done.json
    assert (made["verdict"], made["differences"], made["version"]) == ("identical", [], 1)
    first = next(each for each in place.status["candidates"] if each["version"] == 1)
    assert made["bundle"] == {"recorded": first["bundle_digest"], "reproduced": first["bundle_digest"]}
    assert made["labels"]["share"] == 1 and made["labels"]["pictures"] > 0
    assert (made["code"]["changed"], made["inputs"]) == ([], [])
    assert not any((into / ".ayeaye").glob("mlflow/*.db")), "registers nothing"
    after = {name: digest for name, digest in before.items() if not name.startswith(".dvc/cache/")}
    assert snapshot(place.root) == after
    assert git.head(Workspace(place.root)) == commits

    # What a kill left is taken up: one stage is to be done again, the finished ones are not.
    trained_at = (into / "data" / "embeddings").stat().st_mtime_ns
    shutil.rmtree(into / "reports")
    assert place("reproduce", 1, "--into", into, "--dry-run", "--json").json["begun"]
    again = place("reproduce", 1, "--into", into, "--json")
    assert again.json["verdict"] == "identical"
    assert (into / "data" / "embeddings").stat().st_mtime_ns == trained_at

    other = place("reproduce", "champion", "--into", into)
    assert other.code == 1
    assert "is there already, and not to reproduce version 2" in other.err
    inside = place("reproduce", 1, "--into", place.root / "again")
    assert inside.code == 1 and "lies in the workspace itself" in inside.err
    unknown = place("reproduce", 9)
    assert unknown.code == 1 and "has no version 9" in unknown.err


@pytest.mark.soak
def test_a_version_made_again_by_other_means_is_different_and_says_where(
    place: Place, tmp_path: Path
) -> None:
    # The file of weights has changed since.
    other = tmp_path / "other.pth"
    shutil.copyfile(Workspace(place.root).params.embed.weights or "", other)
    place.set(f"embed.weights={other}")
    subprocess.run(["git", "commit", "-qam", "Other weights"], cwd=place.root, check=True)
    registry = promotion.registry_of(Workspace(place.root))
    registry.tag(2, git_commit=git.head(Workspace(place.root)), ayeaye_version="0.0.1")
    import torch

    network = torch.load(other, weights_only=True)
    flipped = {name: value.flip(0) if value.ndim else value for name, value in network.items()}
    torch.save(flipped, other)
    done = place("reproduce", "champion", "--into", tmp_path / "again", "--json")
    assert done.code == 3, done.err
    made = done.json
    assert made["verdict"] == "different"
    assert any("test images get another label" in each for each in made["differences"])
    assert [each["name"] for each in made["inputs"]] == ["weights"]
    assert "has changed since version 2 was made" in done.err


def test_code_and_files_that_have_changed_since_are_named(place: Place, tmp_path: Path) -> None:
    from ayeaye.maintenance import reproduction

    workspace = Workspace(place.root)
    version = promotion.registry_of(workspace).version(2)
    assert set(version.tags["code"].split()) == {
        f"{stage}={digest}" for stage, digest in workspace.fingerprints().items()
    }
    assert reproduction.compare_code(workspace, version).note == ""
    assert reproduction.compare_inputs(workspace, version) == []

    weights, corpus = tmp_path / "other.pth", tmp_path / "corpus.txt"
    weights.write_bytes(b"others")
    place.set(f"embed.weights={weights}", "classes.corpus=nowhere.txt")
    named = {each.name: each for each in reproduction.compare_inputs(Workspace(place.root), version)}
    assert set(named) == {"weights", "corpus"} and not corpus.exists()
    assert named["weights"].now == digest_of(b"others")
    assert "stage classes reads is not there since version 2 was made" in named["corpus"].note

    code = workspace.state / "code.yaml"
    code.write_text(code.read_text().replace(workspace.fingerprints()["train"], "0" * 64))
    made = dataclasses.replace(
        version, tags={**version.tags, "ayeaye_version": "0.0.1", "code_commit": "abc+changes"}
    )
    said = reproduction.compare_code(workspace, made)
    assert said.changed == ["train"]
    assert "ayeaye 0.0.1 at commit abc+changes" in said.note and "`git checkout abc`" in said.note


def test_small_differences_are_equivalent(retrained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ayeaye.maintenance import reproduction

    workspace = Workspace(retrained.root)
    registry = promotion.registry_of(workspace)
    version = registry.version(2)
    assert reproduction.compare(registry, version, workspace).verdict == "identical"
    elsewhere = dataclasses.replace(version, tags={**version.tags, "bundle_digest": "0" * 64})
    assert reproduction.compare(registry, elsewhere, workspace).verdict == "equivalent"
    recorded = registry.metrics(version)
    for change, verdict in ((0.0019, "equivalent"), (0.0021, "different")):
        changed = {**recorded, "H": recorded["H"] + change}
        monkeypatch.setattr(registry, "metrics", lambda version, changed=changed: changed)
        assert reproduction.compare(registry, elsewhere, workspace).verdict == verdict


@pytest.mark.parametrize(("wrong", "of", "share"), [(1, 1000, 0.999), (2, 1000, 0.998)])
def test_labels_are_compared_picture_by_picture_and_fold_by_fold(wrong: int, of: int, share: float) -> None:
    from ayeaye.maintenance import reproduction

    before = pd.DataFrame({"id": [f"{n:04d}" for n in range(of)], "fold": 0, "answer": "a"})
    after = before.sample(frac=1, random_state=0).reset_index(drop=True)
    after.loc[: wrong - 1, "answer"] = "b"
    agreement = reproduction.LabelAgreement.of
    assert agreement(before, after) == reproduction.LabelAgreement(of, of - wrong, share)
    assert agreement(before, after.iloc[wrong:]).equal == of - wrong


# Differences


def test_two_datasets_are_compared_without_being_checked_out(
    retrained: Place, trained: Place, tmp_path: Path
) -> None:
    page = tmp_path / "diff.html"
    done = data(retrained, "diff", "1", "champion", "--out", page, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert {(row["label"]) for row in found["added"]} == {ADDED}
    assert {row["id"] for row in found["added"]} == {
        digest_of(workspaces.paint(ADDED, n)) for n in range(20, 23)
    }
    assert found["removed"] == []
    assert found["relabelled"] == [
        {"id": digest_of(workspaces.paint(ADDED, 0)), "before": ADDED, "after": MOVED}
    ]
    counts = {row["name"]: row for row in found["counts"]}
    assert counts[ADDED] == {"name": ADDED, "before": 8, "after": 10, "added": 3, "removed": 0}
    html = page.read_text()
    assert html.count("<img") >= 4
    assert "Under another class: 1" in html and "http" not in html

    assert data(retrained, "diff", found["before"]["digest"][:8], "1").out.startswith("Nothing has changed")
    said = data(retrained, "diff", "2", "1").out
    assert "0 added, 3 removed" in said
    unknown = data(retrained, "diff", "abcdef0", "now")
    assert unknown.code == 1
    assert "no dataset of this workspace has it" in unknown.err


# Takedowns


def picture_of(place: Place, split: str, label: str) -> str:
    manifest = Dataset.load(place.root / "data" / "dataset").manifest
    rows = manifest[(manifest["split"] == split) & (manifest["label"] == label)]
    return str(rows.sort_values("id")["id"].iloc[0])


def holds(root: Path, content: bytes, passing: tuple[str, ...] = ()) -> list[str]:
    """Files below a folder with these bytes in them; those of the released versions apart."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file()
        and not str(path.relative_to(root)).startswith(passing)
        and content in path.read_bytes()
    ]


def test_a_takedown_leaves_nothing_of_a_picture_and_keeps_it_out(place: Place) -> None:
    workspace = Workspace(place.root)
    id = picture_of(place, "train", "paint 100")  # the first one of a class is shown in the bundle
    content = Dataset.load(workspace.dataset).picture(id)
    kept = Workspace(place.root).feedback / "paint 100" / id
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    before = Dataset.load(workspace.dataset)
    (shard,) = set(before.manifest.loc[before.manifest["id"] == id, "shard"])
    embeddings = {path.parent: np.load(path) for path in workspace.state.glob(f"embeddings/*/{shard}.npy")}
    assert embeddings

    planned = data(place, "remove", id[:10], "--dry-run", "--json").json
    assert planned["removed"] == [id] and planned["dry_run"]
    assert len(holds(place.root, content)) >= 4, "dataset, cache, remote and feedback"

    done = data(place, "remove", id[:10], "--reason", "asked for", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert holds(place.root, content) == []
    assert holds(place.source, content), "the source is not ours to change"
    assert result["purged"]["cache"] >= 1 and result["purged"]["remote"] >= 1
    assert {row["version"]: (row["is"], row["learned"]) for row in result["versions"]} == {
        2: ("champion", 1),
        1: ("previous", 1),
    }
    assert all(row["shown_by_service"] for row in result["versions"])
    assert not (place.root / "models" / "classifier" / "samples.parquet").exists()

    after = Dataset.load(workspace.dataset)
    assert set(before.manifest["id"]) - set(after.manifest["id"]) == {id}
    assert all(
        after.picture(str(each)) == before_content(place, str(each)) for each in after.manifest["id"][:5]
    )
    (left,) = set(after.manifest["shard"]) - set(before.manifest["shard"])
    assert shard not in set(after.manifest["shard"])
    ids = before_ids(before, shard, embeddings)
    assert left == shard_name([each for each in ids if each != id])
    for folder, X in embeddings.items():
        row = sorted(ids).index(id)
        np.testing.assert_array_equal(np.load(folder / f"{left}.npy"), np.delete(X, row, axis=0))

    assert (place.root / "data" / "removed.txt").read_text() == f"{id}\n"
    git = subprocess.run(
        ["git", "log", "-1", "--format=%B", "--name-only"], cwd=place.root, capture_output=True, text=True
    )
    assert "asked for" in git.stdout and "data/removed.txt" in git.stdout and "data/dataset.dvc" in git.stdout
    assert place.status["champion"]["version"] == 2, "the champion goes on"

    manifest = (workspace.dataset / "manifest.parquet").read_bytes()
    summary = place("prepare", "--json").json
    assert (summary["withheld"], summary["new"], summary["rejected"]) == (1, 0, 0)
    assert (workspace.dataset / "manifest.parquet").read_bytes() == manifest
    assert place("prepare", "--json").json["withheld"] == 1

    lost = place("reproduce", 1, "--into", place.root.parent / "again")
    assert lost.code == 1
    assert "1 of the images it was made with were removed by `ayeaye data remove`" in lost.err
    again = data(place, "remove", id[:10], "--json")
    assert again.code == 0, again.err
    assert (again.json["objects"], again.json["shards"]) == ({}, [])


def before_content(place: Place, id: str) -> bytes:
    found = {digest_of(path.read_bytes()): path for path in place.source.rglob("*.png")}
    return found[id].read_bytes()


def before_ids(before: Dataset, shard: str, embeddings: Mapping[Path, np.ndarray]) -> list[str]:
    """All ids of a shard that was fully listed."""
    ids = before.manifest.loc[before.manifest["shard"] == shard, "id"].tolist()
    assert {len(X) for X in embeddings.values()} == {len(ids)}
    return ids


def test_a_takedown_that_was_killed_is_completed_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = picture_of(place, "test_unseen", "paint 012")
    content = Dataset.load(place.root / "data" / "dataset").picture(id)

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    workspace = Workspace(place.root)
    steps = (
        (takedown.removal, "drop_unused"),
        (takedown.dvc, "add_dataset"),
        (takedown.dvc, "push_dataset"),
        (stores.Objects, "remove"),
    )
    for where, name in steps:
        with monkeypatch.context() as patch:
            patch.setattr(where, name, killed)
            with pytest.raises(Killed), workspace.lock():
                takedown.remove(workspace, [id])
    with workspace.lock():
        result = takedown.remove(workspace, [id[:12]])
    assert result.purged["remote"] >= 1
    # Small copies of what was only tested stay where versions are kept, and they are named.
    assert holds(place.root, content) == []
    assert id not in set(Dataset.load(workspace.dataset).manifest["id"])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("abc", "at least the first 6 digits"),
        ("0123456789", "no dataset of this workspace has such a picture"),
    ],
)
def test_what_is_no_picture_is_refused(retrained: Place, given: str, complaint: str) -> None:
    done = data(retrained, "remove", given)
    assert done.code == 1
    assert complaint in done.err
    assert not (retrained.root / "data" / "removed.txt").exists()


# Garbage


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


def test_the_id_of_a_copy_takes_the_picture_down_under_every_class(tmp_path: Path) -> None:
    source = workspaces.write_paints(tmp_path / "paints", pictures=2)
    twice = (source / "images" / ADDED / "000.png").read_bytes()
    (source / "images" / MOVED / "twice.png").write_bytes(twice)
    settings = ("prepare.source=folder", f"prepare.path={source}", "prepare.duplicates=keep")
    root = tmp_path / "shop"
    sets = [word for setting in settings for word in ("--set", setting)]
    assert workspaces.ayeaye("init", root, *sets).code == 0
    assert workspaces.ayeaye("prepare", "--workspace", root).code == 0
    rows = Dataset.load(root / "data" / "dataset").manifest.set_index("source")["id"]
    ids = {rows[f"{ADDED}/000.png"], rows[f"{MOVED}/twice.png"]}
    for id in ids:
        done = workspaces.ayeaye("data", "remove", "--workspace", root, id, "--dry-run", "--json")
        assert set(done.json["removed"]) == ids, done.err
