"""What disagrees with the promotion record is said, and mended where it can be."""

from __future__ import annotations

import shutil

import pytest
from workspaces import Place

from ayeaye.core.errors import ReleaseError, WorkspaceBusy
from ayeaye.core.workspace import Workspace
from ayeaye.packaging.bento import BentoStore
from ayeaye.release import promotion, status
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.release.registry import CHAMPION, Version

pytestmark = pytest.mark.slow


def parts(workspace: Workspace) -> list[str]:
    return [each.part for each in status.disagreements(workspace)]


def test_whatever_is_lost_around_the_record_is_brought_back(copied: Place) -> None:
    workspace = Workspace(copied.root)
    registry, tag = registry_of(workspace), record_of(workspace).state().bento
    assert tag is not None
    assert parts(workspace) == []

    registry.set_alias(CHAMPION, None)
    registry.tag(1, bento="ayeaye:v1-other")
    assert parts(workspace) == ["aliases", "aliases"]
    assert "the alias champion is at version none, the record says version 1" in copied("status").out
    done = copied("repair", "--dry-run", "--json")
    assert (done.code, len(done.json["found"]), len(done.json["left"])) == (0, 2, 2)
    assert copied("repair").code == 0
    assert parts(workspace) == []

    (registry.bundle(1) / "mapper.safetensors").write_bytes(b"rubbish")
    staged = workspace.bentos / ".staging" / "tmpx" / "context"  # of a build that was killed at its very end
    staged.mkdir(parents=True)
    assert parts(workspace) == ["bundle"]
    assert copied("repair").code == 0
    assert parts(workspace) == []
    assert not (workspace.bentos / ".staging").exists()

    shutil.rmtree(BentoStore(workspace.bentos).folder(tag))
    remains = workspace.release / ".decision.json.0.part"
    remains.write_text("half")
    assert parts(workspace) == ["bento"]
    assert copied("repair").code == 0
    assert parts(workspace) == []
    assert not remains.exists()
    assert record_of(workspace).state().champion == 1

    shutil.rmtree(BentoStore(workspace.bentos).folder(tag))
    shutil.rmtree(registry.bundle(1))
    done = copied("repair", "--json")
    assert done.code == 1
    assert [each["part"] for each in done.json["left"]] == ["bundle", "bento"]
    assert "retrain to make it again" in done.err


def test_a_record_whose_end_is_gone_promotes_nothing(candidate: tuple[Workspace, Version]) -> None:
    """Each line of what is left still follows the one before: only the registry knows that there was more."""
    workspace, _ = candidate
    promotion.crown(workspace, registry_of(workspace).version(2), "ayeaye:v2-0", actor="ann", why=[])
    path = record_of(workspace).path
    whole = path.read_text()
    path.write_text(whole.splitlines(keepends=True)[0])
    assert "record" in parts(workspace)
    for change in (lambda: promotion.rollback(workspace), lambda: promotion.project(workspace)):
        with pytest.raises(ReleaseError):
            change()
    with pytest.raises(ReleaseError, match="holds 1 entries, and the registry knows of 2"):
        promotion.promote(workspace, 2, force=True)
    assert len(record_of(workspace).entries()) == 1
    assert status.repair(workspace)["left"]
    path.write_text(whole)
    assert "record" not in parts(workspace)
    path.write_text(whole.splitlines(keepends=True)[0])
    assert status.repair(workspace, accept_record=True)["left"] == []
    assert registry_of(workspace).alias(CHAMPION).number == 1  # type: ignore[union-attr]


def test_what_cannot_be_served_gives_way_to_what_still_serves(candidate: tuple[Workspace, Version]) -> None:
    workspace, version = candidate
    served = record_of(workspace).state().bento
    assert served is not None
    promotion.crown(workspace, version, "ayeaye:v2-0", actor="ann", why=["better"])
    failing = {"version": 1, "tag": served, "failed": "ayeaye:v2-0", "reason": "does not start"}
    with workspace.lock(), pytest.raises(WorkspaceBusy):
        promotion.restore(workspace, **failing)
    assert promotion.restore(workspace, **failing)
    assert not promotion.restore(workspace, **failing)  # the champion is another one by now
    state = record_of(workspace).state()
    assert (state.champion, state.previous, state.bento) == (1, None, served)
    last = record_of(workspace).entries()[-1]
    assert (last.action, last.why) == ("restore", ("ayeaye:v2-0: does not start",))
    assert promotion.set_aside(workspace, 2) == last
    assert parts(workspace) == []


def test_a_word_on_a_version_does_not_wait_while_a_retrain_trains(
    candidate: tuple[Workspace, Version],
) -> None:
    workspace, version = candidate
    place = Place(workspace.root, workspace.root, {})
    promotion.crown(workspace, version, "ayeaye:v2-0", actor="ann", why=["better"])
    with workspace.lock(releasing=False):  # as a retrain holds it
        with workspace.releasing(), pytest.raises(WorkspaceBusy), workspace.releasing(timeout=0):
            pass
        # With the dataset half written, too.
        (workspace.dataset / "manifest.parquet").rename(workspace.root / "away.parquet")
        assert place("rollback", "--reason", "now").code == 0
        assert place("refuse", "2", "--reason", "too dark").code == 0
    (workspace.root / "away.parquet").rename(workspace.dataset / "manifest.parquet")
    assert record_of(workspace).state().champion == 1
    with workspace.lock(), pytest.raises(WorkspaceBusy), workspace.releasing(timeout=0):
        pass


def test_a_dry_run_of_a_retrain_says_what_would_run_and_does_nothing(copied: Place) -> None:
    before = {
        path: path.read_bytes() for path in (copied.root / "data" / "dataset").rglob("*") if path.is_file()
    }
    assert copied("retrain", "--dry-run", "--json").json["stages"] == []
    copied.set("train.folds=4")
    assert copied("retrain", "--dry-run", "--json").json["stages"] == ["train", "evaluate"]
    (copied.source / "images" / "paint 000" / "000.png").unlink()
    planned = copied("retrain", "--dry-run", "--json").json
    assert planned["dataset"]["removed"] == 1
    assert sorted(planned["stages"]) == ["classes", "embed", "evaluate", "train"]
    assert planned["follows"] == "a version, the gate, and a promotion if it passes"
    assert before == {path: path.read_bytes() for path in before}
    assert copied.status["champion"]["version"] == 1
    done = copied("set", "release.epsilon=2", "--dry-run")
    assert done.code == 0 and "epsilon: 2" not in (copied.root / "params.yaml").read_text()
