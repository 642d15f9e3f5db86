"""Images taken down from all that a workspace keeps of them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces
from retrained import ADDED, MOVED, data, digest_of
from workspaces import Place

from ayeaye.core.workspace import Workspace
from ayeaye.data.shards import shard_name
from ayeaye.data.table import Dataset
from ayeaye.maintenance import takedown
from ayeaye.versioning import stores

pytestmark = pytest.mark.slow


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
