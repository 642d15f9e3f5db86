"""Who a workspace is, wherever it lies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ayeaye.files import digest_folder
from ayeaye.workspace import PLACES, Workspace


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


def test_the_places_of_one_that_wanders_are_bounded(original: Workspace, tmp_path: Path) -> None:
    root = original.root
    for number in range(2 * PLACES):
        root = root.rename(tmp_path / f"place-{number}")
        Workspace(root).settle()
    assert len(Workspace(root).places) == PLACES
    assert Workspace(root).places[-1] == str(root)
