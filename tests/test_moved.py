"""A workspace that is moved, copied or restored: what it holds is found through it, and nothing else is touched."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from prefect_servers import Server
from workspaces import Place, ayeaye

from ayeaye.core.workspace import Workspace
from ayeaye.flows import deploy

pytestmark = pytest.mark.slow
NAME = "a 100%41 place #1; why?"  # what ends an address, or is taken for an escape in one


def contents(root: Path) -> dict[str, str]:
    """What every file, link and folder of a tree is, and when the files were written."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"link to {path.readlink()}"
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = f"{digest} {path.stat().st_mtime_ns}"
        else:
            found[str(path)] = "folder"
    return found


def looked_at(place: Place) -> None:
    """What a person does first with a trained workspace."""
    status = place.status
    assert (status["champion"]["version"], status["agrees"]) == (1, True)
    assert status["workspace"] == str(place.root)
    assert place("card").code == 0
    picture = next((place.source / "images" / "paint 200").glob("*.png"))
    answer = place("classify", picture, "--json")
    assert (answer.code, answer.json["label"]) == (0, "paint 200"), answer.err
    assert place.retrain()["outcome"] == "unchanged"
    assert naming(place.root) == [Path(".ayeaye", "id")]


def worked_in(place: Place) -> None:
    """All that changes what is released."""
    place.set("train.folds=4")
    assert place.retrain()["champion"] == 2
    assert place("rollback", "--reason", "as a test").code == 0
    assert place("promote", 2).code == 0
    compared = place("compare", 1, 2, "--json")
    assert compared.code == 0, compared.err
    repaired = place("repair", "--json")
    assert (repaired.code, repaired.json["left"]) == (0, [])
    assert place("gc", "--keep", "1", "--yes", "--json").code == 0
    assert place.status["agrees"]
    assert naming(place.root) == [Path(".ayeaye", "id")]


def naming(root: Path) -> list[Path]:
    """The files of a workspace that hold its path, and so are wrong once it is moved.

    Not what DVC remembers: it does so by path, anew for each.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    files = [path for path in files if not path.is_relative_to(root / ".ayeaye" / "dvc")]
    return [path.relative_to(root) for path in files if str(root).encode() in path.read_bytes()]


def test_what_was_moved_goes_on_and_the_old_place_stays_empty(copied: Place, tmp_path: Path) -> None:
    identity = Workspace(copied.root).identity
    place = Place(copied.root.rename(tmp_path / NAME), copied.source, copied.environment)
    shutil.rmtree(
        place.root / ".ayeaye" / "bentoml"
    )  # a lost Bento is packed anew from the registry's bundle
    assert place("repair").code == 0
    looked_at(place)
    worked_in(place)
    assert Workspace(place.root).identity == identity
    assert not copied.root.exists()


def test_a_lost_bundle_is_put_back_where_the_workspace_lies_now(copied: Place, tmp_path: Path) -> None:
    place = Place(copied.root.rename(tmp_path / "moved"), copied.source, copied.environment)
    artifacts = place.root / ".ayeaye" / "mlflow" / "artifacts"
    (bundle,) = artifacts.glob("*/artifacts/model/bundle")
    before = {path: digest.split()[0] for path, digest in contents(bundle).items()}
    shutil.rmtree(bundle)
    assert place("repair").code == 0
    assert {path: digest.split()[0] for path, digest in contents(bundle).items()} == before
    assert not copied.root.exists()


def test_a_copy_works_on_its_own_files_alone(trained: Place, tmp_path: Path) -> None:
    Workspace(trained.root).settle()
    before = contents(trained.root)
    root = tmp_path / "copy"
    subprocess.run(["cp", "-a", trained.root, root], check=True)
    copy = Place(root, trained.source, trained.environment)
    said = copy("status").err
    assert f"{root} is a copy of {trained.root}: it goes on as a workspace of its own" in said
    assert "copy" not in copy("status").err
    looked_at(copy)
    worked_in(copy)
    assert contents(trained.root) == before
    assert Workspace(root).identity != Workspace(trained.root).identity


def test_a_restored_backup_goes_on_at_another_place(copied: Place, tmp_path: Path) -> None:
    identity, backup = Workspace(copied.root).identity, tmp_path / "backup.tar"
    subprocess.run(["tar", "-cf", backup, "-C", copied.root, "."], check=True)
    shutil.rmtree(copied.root)
    place = Place(tmp_path / "restored" / "shop", copied.source, copied.environment)
    place.root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", backup, "-C", place.root], check=True)
    looked_at(place)
    assert Workspace(place.root).identity == identity
    assert not copied.root.exists()


def test_schedules_follow_a_move_and_are_not_taken_from_a_workspace_that_is_there(
    server: Server, tmp_path: Path
) -> None:
    environment = {"PREFECT_API_URL": server.url}

    def deployed(root: Path) -> tuple[int, str]:
        done = ayeaye("deploy", "--workspace", root, environment=environment)
        return done.code, done.err

    first = tmp_path / "first"
    assert ayeaye("init", first).code == 0
    path = first / "prefect.yaml"
    path.write_text(path.read_text().replace("- name: ", "- name: moving-"))
    assert deployed(first)[0] == 0
    before = server.get("deployments/name/retrain/moving-weekly-retrain")

    second = Path(shutil.copytree(first, tmp_path / "second"))
    code, said = deployed(second)
    assert code == 1
    assert f"that of {first}: give those of {second} names of their own" in said
    assert server.get("deployments/name/retrain/moving-weekly-retrain") == before

    moved = first.rename(tmp_path / "moved")
    assert deployed(moved)[0] == 0
    after = server.get("deployments/name/retrain/moving-weekly-retrain")
    assert (after["id"], after["parameters"]) == (before["id"], {"workspace": str(moved)})
    assert deploy.plan(Workspace(moved)).deployments[0] == "moving-weekly-retrain"
    code, said = deployed(second)
    assert code == 1 and f"that of {moved}" in said
