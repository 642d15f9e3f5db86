"""Git and DVC of a workspace: what is committed, what is ignored, and what they say when they cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import workspaces

from ayeaye.core.errors import RemoteError, WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.versioning import dvc, git, layout, stores

COMMITTED = ("dvc.lock", "data/dataset.dvc", "data/.gitignore", "models/.gitignore", "reports/.gitignore")
LOCAL = (".ayeaye/code.yaml", "checks/index.html", "release/record.jsonl")


def ignored(root: Path) -> set[str]:
    done = subprocess.run(
        ["git", "check-ignore", *COMMITTED, *LOCAL], cwd=root, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_a_workspace_does_not_mind_what_a_person_ignores_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ignore").write_text("*.lock\n*.dvc\ndata/\nmodels\n")
    (tmp_path / "gitconfig").write_text(f"[core]\n\texcludesFile = {tmp_path / 'ignore'}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    root = tmp_path / "workspace"
    assert workspaces.ayeaye("init", root).code == 0
    assert ignored(root) == set(LOCAL)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    git.commit(Workspace(root), "Retrain", ["dvc.lock"])
    assert git.run(Workspace(root), "ls-files", "dvc.lock") == "dvc.lock"


def test_a_dry_run_of_init_checks_and_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    done = workspaces.ayeaye("init", root, "--set", "train.folds=5", "--dry-run")
    assert done.code == 0 and "params.yaml" in done.out
    refused = workspaces.ayeaye("init", root, "--set", "train.folds=one", "--dry-run")
    assert refused.code == 1 and "train.folds" in refused.err
    assert not root.exists()


@pytest.mark.parametrize(
    "name", ["a, b #1 = 50% 'c' \"d\"; [e] é", "-rf", "~nobody-of-this-name", "%(user)s", "{a}"]
)
def test_any_folder_can_be_the_remote(tmp_path: Path, name: str) -> None:
    root, remote = tmp_path / "workspace", tmp_path / name
    assert workspaces.ayeaye("init", root, "--set", f"prepare.remote={remote}").code == 0
    workspace = Workspace(root)
    workspace.dataset.mkdir(parents=True)
    (workspace.dataset / "file").write_bytes(b"kept")
    dvc.add_dataset(workspace)
    if name in ("%(user)s", "{a}"):
        with pytest.raises(RemoteError, match=r"has {, } or %\(…\)s in its name"):
            dvc.push_dataset(workspace)
        layout.clear_remains(workspace)
        return
    dvc.push_dataset(workspace)
    with stores.objects(workspace) as objects:
        (digest,) = objects.listing(dvc.dataset_digest(workspace)).values()
        assert objects.has("remote", digest)
    assert [path.read_bytes() for path in remote.rglob("*") if path.name == digest[2:]] == [b"kept"]
    dvc.push_dataset(workspace)  # what was written is read as it was meant


def test_a_name_that_dvc_cannot_take_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = workspaces.ayeaye("init", tmp_path / "shop {b}")
    assert done.code == 1 and "has { or } in its name, which DVC cannot take" in done.err
    assert not list(tmp_path.iterdir())


def test_the_repository_can_be_a_workspace(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copy(Path(__file__).parents[1] / ".gitignore", tmp_path)
    assert ignored(tmp_path) == set(LOCAL)


def test_git_is_quoted_with_its_reason_and_without_its_hints(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("dvc.lock\n")
    (tmp_path / "dvc.lock").write_text("")
    with pytest.raises(WorkspaceError, match=r"git add failed: .*ignored by one of your .*: dvc\.lock$"):
        git.commit(Workspace(tmp_path), "Retrain", ["dvc.lock"])
