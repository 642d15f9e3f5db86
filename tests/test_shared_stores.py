"""Caches and remotes that other workspaces may use: what is in them stays, unless they are said to be ours alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import workspaces
from workspaces import Place

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.paths import inside
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import Dataset
from ayeaye.versioning import commits, dvc, git, layout, stores

OTHERS = b"a picture of another project"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that several projects share, with an object of another one."""
    folder = tmp_path / "shared"
    put(folder, OTHERS)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    assert workspaces.ayeaye("init", tmp_path / "shop").code == 0
    return Workspace(tmp_path / "shop")


def put(store: Path, content: bytes) -> str:
    digest = hashlib.md5(content).hexdigest()
    path = store / "files" / "md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """DVC's configuration of the person, which every workspace of theirs follows."""
    folder = tmp_path / "configuration"
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text(text)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(folder))


def shared(workspace: Workspace) -> set[str]:
    with stores.objects(Workspace(workspace.root)) as objects:
        return set(objects.shared)


def pointed(workspace: Workspace, url: str) -> None:
    """The remote as a push of the dataset leaves it."""
    path = workspace.root / ".dvc" / "config"
    path.write_text(f"[core]\n    remote = data\n['remote \"data\"']\n    url = {url}\n")


def said(workspace: Workspace, *settings: str) -> None:
    done = workspaces.ayeaye("set", "--workspace", workspace.root, *settings)
    assert done.code == 0, done.err


def test_inside_follows_links_and_dots(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "home-of-others"
    (home / "a").mkdir(parents=True)
    elsewhere.mkdir()
    (home / "out").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(home / "a")
    (tmp_path / "alias").symlink_to(home)
    assert inside(home / "a" / "not there yet", home) and inside(elsewhere / "back" / "x", home)
    assert inside(tmp_path / "alias" / "a", home) and inside(home / "a", tmp_path / "alias")
    assert not inside(home / "out" / "x", home) and not inside(home / "a" / ".." / ".." / "x", home)
    assert not inside(elsewhere, home)


@pytest.mark.parametrize(
    "configuration",
    ["[cache]\n dir = {0}\n", "['remote \"disk\"']\n url = {0}\n[cache]\n local = disk\n"],
    ids=["dir", "local"],
)
def test_a_cache_of_the_persons_configuration_is_shared_until_it_is_said_not_to_be(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str
) -> None:
    configure(monkeypatch, tmp_path, configuration.format(outside))
    digest = put(outside, OTHERS)
    with stores.objects(workspace) as objects:
        assert objects.has("cache", digest)
        with pytest.raises(
            WorkspaceError, match=r"others may use it.*`ayeaye set prepare\.cache_shared=false`"
        ):
            objects.remove("cache", digest)
        assert objects.has("cache", digest)
    said(workspace, "prepare.cache_shared=false")
    with stores.objects(Workspace(workspace.root)) as objects:
        assert not objects.shared and objects.remove("cache", digest)


def test_what_is_said_of_a_store_holds_for_no_copy_no_clone_and_no_other_store(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {outside}\n")
    pointed(workspace, remote)
    said(workspace, f"prepare.remote={remote}", "prepare.cache_shared=false", "prepare.remote_shared=false")
    assert shared(workspace) == set()
    moved = Workspace(workspace.root.rename(tmp_path / "moved"))
    assert shared(moved) == set()
    copy, clone = Workspace(tmp_path / "copy"), Workspace(tmp_path / "clone")
    subprocess.run(["cp", "-a", moved.root, copy.root], check=True)
    assert shared(copy) == {"cache", "remote"} and shared(moved) == set()
    subprocess.run(["git", "clone", "--quiet", moved.root, clone.root], check=True)
    for name in ("params.yaml", ".dvc/config"):  # as they would be committed
        (clone.root / name).write_bytes((moved.root / name).read_bytes())
    assert shared(clone) == {"cache", "remote"}
    said(copy, "prepare.remote_shared=true")  # of the cache, too, params.yaml says false: nobody said so here
    assert shared(copy) == {"cache", "remote"}
    said(copy, "prepare.remote_shared=false")
    assert shared(copy) == {"cache"}
    said(copy, "prepare.cache_shared=false")  # and again, by a person who knows
    assert shared(copy) == set()
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {tmp_path / 'another'}\n")
    assert shared(moved) == {"cache"}


def test_a_cache_is_ours_where_it_lies_in_the_workspace(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared(workspace) == set()
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {workspace.root}/../shop/cache of ours\n")
    assert shared(workspace) == set()
    configure(monkeypatch, tmp_path, "")
    (workspace.root / ".dvc" / "cache").symlink_to(outside)
    assert shared(workspace) == {"cache"}
    # What another project writes at this moment is not what a killed process of ours left.
    part = outside / "files" / ".others.part"
    part.write_bytes(b"half")
    layout.clear_remains(workspace)
    assert part.exists()


def test_a_remote_is_ours_where_it_lies_in_the_workspace_or_is_said_to_be(
    workspace: Workspace, outside: Path, tmp_path: Path
) -> None:
    pointed(workspace, "../.ayeaye/remote")
    assert shared(workspace) == set()
    for remote in (str(outside), "../shared", f"file://{outside}", "s3://bucket/shop"):
        said(workspace, f"prepare.remote={remote}", "prepare.remote_shared=true")
        pointed(workspace, f"../{remote}" if remote.startswith("..") else remote)
        assert shared(workspace) == {"remote"}
        said(workspace, "prepare.remote_shared=false")
        assert shared(workspace) == set()
    # It was said of the one that params.yaml names, which the next push takes, not of the one before.
    said(workspace, f"prepare.remote={tmp_path / 'new'}")
    assert shared(workspace) == {"remote"}


def test_a_remote_of_the_persons_configuration_is_none_of_ours(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, tmp_path, f"[core]\n remote = theirs\n['remote \"theirs\"']\n url = {outside}\n")
    with stores.objects(workspace) as objects:
        assert set(objects.stores) == {"cache"}


def test_a_clone_has_a_cache_of_its_own_and_leaves_the_remote_alone(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {outside}\n")
    said(workspace, f"prepare.remote={tmp_path / 'remote'}", "prepare.remote_shared=false")
    folder = workspace.dataset
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"ours")
    dvc.add_dataset(workspace)
    commit = git.commit(workspace, "Data", [dvc.DATASET, "params.yaml"])
    dvc.push_dataset(workspace)
    assert shared(workspace) == {"cache"}
    (tmp_path / "clone").mkdir()
    clone = commits.clone(workspace, commit, tmp_path / "clone")
    assert shared(clone) == {"remote"}
    with stores.objects(clone) as objects:
        assert inside(objects.stores["cache"].path, clone.root)
    # The original's cache is found where it is.
    subprocess.run(["rm", "-r", str(tmp_path / "remote")], check=True)
    dvc.pull_dataset(clone)
    assert (clone.dataset / "file").read_bytes() == b"ours"


def test_a_fresh_workspace_has_no_garbage_and_nothing_to_say(
    workspace: Workspace, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {outside}\n[core]\n remote = theirs\n"
                                     f"['remote \"theirs\"']\n url = {outside}\n")  # fmt: skip
    done = workspaces.ayeaye("gc", "--workspace", workspace.root, "--yes", "--remote")
    assert (done.code, done.out, done.err) == (0, "Nothing to remove: everything is needed.\n", "")
    assert held(outside, OTHERS)


def test_the_garbage_of_a_fresh_workspace_that_is_another_users_is_told_in_silence(
    workspace: Workspace,
) -> None:
    if os.getuid() == 0:  # as one that was restored, or mounted in a container
        subprocess.run(["chown", "-R", "1000:1000", workspace.root], check=True)
    done = workspaces.ayeaye("gc", "--workspace", workspace.root)
    assert (done.code, done.out, done.err) == (0, "Nothing to remove: everything is needed.\n", "")


def held(folder: Path, content: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


@pytest.mark.slow
def test_others_lose_nothing_and_what_is_left_of_a_takedown_is_listed(
    copied: Place, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, remote = Workspace(copied.root), tmp_path / "remote"
    configure(monkeypatch, tmp_path, f"[cache]\n dir = {outside}\n")
    subprocess.run(["cp", "-r", f"{copied.root}/.dvc/cache/.", str(outside)], check=True)
    subprocess.run(["rm", "-rf", f"{copied.root}/.dvc/cache"], check=True)
    embeddings = tmp_path / "embeddings"
    (workspace.state / "embeddings").rename(embeddings)
    (workspace.state / "embeddings").symlink_to(embeddings)
    others = embeddings / "0123456789abcdef-01234567" / "shard.npy"
    others.parent.mkdir()
    others.write_bytes(b"others")
    copied.set(f"prepare.remote={remote}")
    dvc.push_dataset(Workspace(copied.root))

    done = copied("gc", "--yes", "--keep", "1")
    assert (done.code, done.out) == (0, "Nothing to remove: everything is needed.\n")
    assert done.err.count("\n") == 1 and "`ayeaye set prepare.cache_shared=false`" in done.err
    assert held(outside, OTHERS) and others.is_file()
    done = copied("gc", "--yes", "--remote")
    assert done.code == 1 and "`ayeaye set prepare.remote_shared=false`" in done.err

    manifest = Dataset.load(workspace.dataset).manifest
    id = str(manifest.loc[manifest["split"] == "train", "id"].iloc[0])
    content = Dataset.load(workspace.dataset).picture(id)
    planned = remove(copied, id, "--dry-run")
    assert {each["where"] for each in planned["left"]} == {
        f"{outside}/files/md5", f"{remote}/files/md5",
        *(str(path.parent) for path in embeddings.glob("*/*.npy") if path != others),
    }  # fmt: skip
    done = workspaces.ayeaye("data", "remove", "--workspace", copied.root, id)
    assert done.code == 1
    assert (
        "Not removed: 1 in " in done.out
        and "`ayeaye set prepare.remote_shared=false`, then run it" in done.out
    )
    assert held(copied.root, content) == []
    assert held(outside, content) and held(remote, content)
    left = remove(copied, id, code=1)["left"]
    assert len(left) == 3 and all(each["things"] for each in left)

    for path in embeddings.glob("*/*.npy"):
        if path != others:
            path.unlink()
    copied.set("prepare.cache_shared=false", "prepare.remote_shared=false")
    assert remove(copied, id)["left"] == []
    assert held(outside, content) == held(remote, content) == []
    assert held(outside, OTHERS) and others.is_file()


def remove(place: Place, *arguments: str, code: int = 0) -> dict[str, Sequence[dict[str, object]]]:
    done = workspaces.ayeaye("data", "remove", "--workspace", place.root, *arguments, "--json")
    assert done.code == code, done.err
    return json.loads(done.out)
