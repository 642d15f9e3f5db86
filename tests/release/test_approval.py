"""What passed the gate waits for a person's word, and the word is kept."""

from __future__ import annotations

import pytest
from workspaces import Place

from ayeaye.core.errors import ReleaseError
from ayeaye.core.workspace import Workspace
from ayeaye.pipeline.progress import Progress
from ayeaye.release import approval, promotion
from ayeaye.release.promotion import Judgement, record_of, registry_of
from ayeaye.release.registry import CHALLENGER, CHAMPION, Version

pytestmark = pytest.mark.slow
FLOW = f"{promotion.FLOW} (ann)"


@pytest.fixture
def waiting(candidate: tuple[Workspace, Version]) -> tuple[Workspace, Version, Judgement]:
    """Version 2 passed the gate, its Bento is packed, and it waits."""
    workspace, version = candidate
    judgement = promotion.judge(workspace, version, Progress())
    tag = promotion.pack(workspace, version)
    promotion.settle(workspace, version, judgement, FLOW)
    approval.wait(workspace, version, tag, judgement, FLOW)
    return workspace, registry_of(workspace).version(2), judgement


def aliased(workspace: Workspace, alias: str) -> int | None:
    version = registry_of(workspace).alias(alias)
    return version.number if version else None


def test_a_version_waits_once_and_is_challenger_meanwhile(
    waiting: tuple[Workspace, Version, Judgement],
) -> None:
    workspace, version, judgement = waiting
    assert approval.waits(workspace, version, judgement)
    approval.wait(workspace, version, "ayeaye:v2-0", judgement, FLOW)
    promotion.project(workspace)
    assert [(entry.action, entry.to) for entry in record_of(workspace).entries()] == [
        ("promote", 1),
        ("pending", 2),
    ]
    assert (aliased(workspace, CHALLENGER), aliased(workspace, CHAMPION)) == (2, 1)


def test_what_is_approved_is_tried_and_champion(waiting: tuple[Workspace, Version, Judgement]) -> None:
    workspace, _, _ = waiting
    before = record_of(workspace).entries()
    assert approval.approve(workspace, 2, dry_run=True)["dry_run"]
    assert record_of(workspace).entries() == before
    said = list[str]()
    done = approval.approve(workspace, 2, reason="looks right", actor="ann", say=said.append)
    assert (done["champion"], done["before"]) == (2, 1)
    assert any(line.startswith("Trying ayeaye:v2-") for line in said)
    last = record_of(workspace).entries()[-1]
    assert (last.action, last.to, last.actor, last.why) == ("promote", 2, "ann", ("looks right",))
    assert set(last.figures) >= {"T1", "H"}
    assert (aliased(workspace, CHALLENGER), aliased(workspace, CHAMPION)) == (None, 2)
    entries = record_of(workspace).entries()
    assert approval.approve(workspace, 2)["champion"] == 2  # as after a call that was killed
    assert record_of(workspace).entries() == entries
    with pytest.raises(ReleaseError, match="version 1 does not wait for approval, none does"):
        approval.approve(workspace, 1)


def test_what_is_refused_stays_so(waiting: tuple[Workspace, Version, Judgement]) -> None:
    workspace, version, judgement = waiting
    with pytest.raises(ReleaseError, match="say why"):
        approval.refuse(workspace, 2, reason=" ")
    with pytest.raises(ReleaseError, match="version 1 is champion"):
        approval.refuse(workspace, 1, reason="old")
    approval.refuse(workspace, 2, reason="okapis look wrong", actor="ann")
    assert not approval.waits(workspace, version, judgement)
    left = promotion.set_aside(workspace, 2)
    assert left is not None and left.why == ("okapis look wrong",)
    assert aliased(workspace, CHALLENGER) is None
    with pytest.raises(ReleaseError, match=r"did not pass the gate .*okapis look wrong"):
        promotion.promote(workspace, 2)


@pytest.mark.soak
def test_a_retrain_ends_with_a_version_that_waits(copied: Place) -> None:
    copied.set("release.approval=manual", "train.folds=4")
    first = copied.retrain()
    assert (first["outcome"], first["champion"]) == ("pending", 1)
    assert "ayeaye approve 2" in first["message"]
    assert copied.retrain() == first
    status = copied.status
    assert (status["champion"]["version"], status["pending"]["version"], status["agrees"]) == (1, 2, True)
    assert "Version 2 waits" in copied("status").out
    done = copied("refuse", 2, "--reason", "not this week", "--json")
    assert done.code == 0, done.err
    after = copied.retrain()
    assert (after["outcome"], after["champion"]) == ("unchanged", 1)
    assert "not this week" in after["message"]
    log = copied("log", "--json").json
    assert [(each["action"], each["from"], each["to"]) for each in log] == [
        ("refuse", 1, 2), ("pending", 1, 2), ("promote", None, 1),
    ]  # fmt: skip
    assert "not this week" in " ".join(copied("log").out.split())
