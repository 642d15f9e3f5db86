"""Who a workspace is, wherever it lies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from workspaces import ayeaye

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.files import digest_folder
from ayeaye.core.workspace import PLACES, Workspace
from ayeaye.flows.place import open_workspace
from ayeaye.versioning import dvc, layout


@pytest.fixture
def original(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "original")
    (made.state / "prefect").mkdir(parents=True)
    (made.state / "prefect" / "prefect.db").write_bytes(b"schedules of the original")
    assert made.settle() is None
    return made


def copied(original: Workspace, root: Path) -> Workspace:
    return Workspace(shutil.copytree(original.root, root))


def test_a_workspace_that_was_moved_stays_who_it_is(original: Workspace, tmp_path: Path) -> None:
    before = original.identity
    moved = Workspace(original.root.rename(tmp_path / "moved"))
    assert moved.settle() is None
    assert moved.identity == before
    assert moved.places == (str(original.root), str(moved.root))
    assert (moved.state / "prefect" / "prefect.db").is_file()
    assert not original.root.exists()


def test_one_that_is_restored_elsewhere_after_the_original_is_lost_stays_who_it_is(
    original: Workspace, tmp_path: Path
) -> None:
    before, backup, place = original.identity, tmp_path / "backup.tar", tmp_path / "new" / "machine"
    subprocess.run(["tar", "-cf", backup, "-C", original.root, "."], check=True)
    shutil.rmtree(original.root)
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xf", backup, "-C", place], check=True)
    assert Workspace(place).settle() is None
    assert Workspace(place).identity == before


def test_a_copy_is_noticed_once_and_is_one_of_its_own(original: Workspace, tmp_path: Path) -> None:
    before, identity = digest_folder(original.root), original.identity
    copy = copied(original, tmp_path / "copy")
    assert copy.settle() == str(original.root)
    assert copy.settle() is None
    assert copy.identity != identity
    assert not (copy.state / "prefect").exists()
    assert digest_folder(original.root) == before
    # Of the two it is the original that stays who it was, also when the copy is moved.
    assert Workspace(copy.root.rename(tmp_path / "other")).settle() is None
    assert (original.settle(), original.identity) == (None, identity)


def test_a_copy_of_what_was_moved_before_is_noticed_too(original: Workspace, tmp_path: Path) -> None:
    moved = Workspace(original.root.rename(tmp_path / "moved"))
    moved.settle()
    assert copied(moved, tmp_path / "copy").settle() == str(moved.root)
    assert copied(moved, original.root).settle() == str(moved.root)


def test_the_same_folder_under_another_path_is_no_copy(original: Workspace, tmp_path: Path) -> None:
    """As in a container, whose host's name and mount are others; both keep working in turn."""
    identity, mount = original.identity, tmp_path / "mount"
    mount.symlink_to(original.root)
    for _ in range(PLACES):
        for place in (Workspace(mount), original):
            assert place.settle() is None
            assert place.identity == identity
    assert original.places == (str(mount), str(original.root))


def test_a_copy_of_a_link_to_the_state_is_refused_with_what_to_do(
    original: Workspace, tmp_path: Path
) -> None:
    (original.root / "params.yaml").write_text("{}\n")
    original.state.rename(tmp_path / "large disk")
    original.state.symlink_to(tmp_path / "large disk")
    identity = original.identity
    copy = Workspace(tmp_path / "copy")
    subprocess.run(["cp", "-a", original.root, copy.root], check=True)
    with pytest.raises(
        WorkspaceError, match=rf"a link to the state of {original.root}, which is still there"
    ):
        copy.settle()
    assert (original.settle(), original.identity) == (None, identity)
    copy.state.unlink()
    shutil.copytree(tmp_path / "large disk", copy.state)
    assert copy.settle() == str(original.root)
    moved = Workspace(original.root.rename(tmp_path / "moved"))
    assert (moved.settle(), moved.identity) == (None, identity)


@pytest.mark.parametrize("part", [".ayeaye/mlflow", "release", ".dvc"])
def test_a_copy_with_a_link_to_a_part_of_its_original_is_refused_with_what_to_do(
    original: Workspace, tmp_path: Path, part: str
) -> None:
    (tmp_path / "large disk").mkdir()
    (original.root / part).symlink_to(tmp_path / "large disk")
    copy = Workspace(tmp_path / "copy")
    subprocess.run(["cp", "-a", original.root, copy.root], check=True)
    for _ in range(2):
        with pytest.raises(
            WorkspaceError, match=rf"{part} is a link out of this copy of {original.root}: put a"
        ):
            copy.settle()
    (copy.root / part).unlink()
    (copy.root / part).mkdir()
    assert copy.settle() == str(original.root) and copy.identity != original.identity


def test_a_copy_of_a_git_worktree_is_refused(original: Workspace, tmp_path: Path) -> None:
    (original.root / ".git").write_text(f"gitdir: {tmp_path}/other/.git/worktrees/original\n")
    copy = copied(original, tmp_path / "copy")
    with pytest.raises(
        WorkspaceError, match=r"\.git leads to the git history of .*`git worktree add` instead"
    ):
        copy.settle()


def test_the_places_of_one_that_wanders_are_bounded(original: Workspace, tmp_path: Path) -> None:
    root = original.root
    for number in range(2 * PLACES):
        root = root.rename(tmp_path / f"place-{number}")
        Workspace(root).settle()
    assert len(Workspace(root).places) == PLACES
    assert Workspace(root).places[-1] == str(root)


def test_settings_of_files_in_the_workspace_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("shop/photos", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ayeaye("init", "shop", "--set", "prepare.path=shop/photos").code == 0
    made = Workspace(tmp_path / "shop")
    assert made.params.prepare.path == "photos"
    assert made.resolve("photos") == tmp_path / "shop" / "photos"
    assert ayeaye("set", "--workspace", "shop", "prepare.path=elsewhere").code == 0
    assert Workspace(made.root).params.prepare.path == str(tmp_path / "elsewhere")


def test_a_remote_outside_is_found_from_wherever_the_workspace_lies(tmp_path: Path) -> None:
    made = Workspace(tmp_path / "deep" / "in" / "shop")
    layout.init(made, [f"prepare.remote={tmp_path / 'remote'}"])
    _push(made)
    moved = Workspace(made.root.rename(tmp_path / "shop"))
    with dvc.opened(moved) as repo:
        assert repo.config["remote"][dvc.REMOTE]["url"] == str(tmp_path / "remote")
    dvc.pull_dataset(moved)
    assert not (tmp_path / "deep" / "in" / "shop").exists()


def _push(workspace: Workspace) -> None:
    workspace.dataset.mkdir(parents=True)
    (workspace.dataset / "manifest.parquet").write_bytes(b"manifest")
    dvc.add_dataset(workspace)
    dvc.push_dataset(workspace)


def test_a_run_from_before_a_move_is_of_the_workspace_at_its_new_place(
    original: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in original.environment():
        monkeypatch.delenv(variable, raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        (original.root / name).write_text("{}\n")
    old = str(original.root)
    moved = Workspace(original.root.rename(tmp_path / "moved"))
    with pytest.raises(WorkspaceError, match=r"if it was moved, `ayeaye deploy` where it lies now"):
        open_workspace(old)
    monkeypatch.setenv("AYEAYE_WORKSPACE", str(moved.root))  # as the worker of its platform has it
    assert open_workspace(old) == moved
    assert open_workspace(str(moved.root)) == moved
    with pytest.raises(WorkspaceError, match="is not a workspace"):
        open_workspace(str(tmp_path / "another"))
    # What lies there now is not the worker's.
    copy = copied(moved, Path(old))
    assert open_workspace(old) == copy
