"""The release protocol: what follows from the record, and what becomes of a champion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workspaces import Place

from ayeaye.errors import TrialFailed
from ayeaye.pipeline.progress import Progress
from ayeaye.release import bento, promotion
from ayeaye.release.registry import CHALLENGER, CHAMPION, Version
from ayeaye.workspace import Workspace

FLOW = f"{promotion.FLOW} (ann)"


@pytest.fixture
def bare(tmp_path: Path) -> Workspace:
    """Folders of a workspace, and nothing in them."""
    return Workspace(tmp_path)


def test_a_workspace_keeps_its_identity_beside_its_record(bare: Workspace) -> None:
    (bare.root / "params.yaml").write_text("release: {}\n")
    assert promotion.registry_of(bare).owner == promotion.registry_of(Workspace(bare.root)).owner != ""


@pytest.mark.parametrize(
    ("moves", "left"),
    [
        pytest.param(
            [("promote", 1, FLOW), ("promote", 2, FLOW), ("rollback", 1, "ann")], True, id="rollback"
        ),
        pytest.param([("promote", 1, FLOW), ("promote", 2, FLOW), ("promote", 1, "ann")], True, id="promote"),
        pytest.param([("promote", 2, FLOW), ("promote", 3, FLOW)], False, id="by the flow"),
        pytest.param(
            [("promote", 2, FLOW), ("promote", 1, "ann"), ("promote", 3, FLOW)], True, id="since then"
        ),
        pytest.param(
            [("promote", 2, FLOW), ("promote", 1, "ann"), ("promote", 2, "ann")], False, id="and back"
        ),
        pytest.param([("promote", 2, FLOW), ("promote", 2, "ann"), ("refuse", 2, FLOW)], False, id="again"),
    ],
)
def test_a_version_that_a_person_left_is_rolled_back_until_a_person_returns_to_it(
    bare: Workspace, moves: list[tuple[str, int, str]], left: bool
) -> None:
    for action, to, actor in moves:
        promotion.record_of(bare).append(action, to, actor=actor)  # type: ignore[arg-type]
    assert promotion.rolled_back(bare, 2) is left


@pytest.fixture
def candidate(copied: Place) -> tuple[Workspace, Version]:
    """A workspace with a champion, and a version 2 of another bundle that nobody has judged yet."""
    path = copied.root / "models" / "classifier" / "bundle.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "temperature": content["temperature"] * 1.01}))
    workspace = Workspace(copied.root)
    version = promotion.register(workspace, "c" * 40)
    assert version.number == 2
    return workspace, version


def aliased(workspace: Workspace, alias: str) -> int | None:
    version = promotion.registry_of(workspace).alias(alias)
    return version.number if version else None


@pytest.mark.slow
def test_a_candidate_is_challenger_until_it_is_refused_or_champion(
    candidate: tuple[Workspace, Version],
) -> None:
    workspace, version = candidate
    judgement = promotion.judge(workspace, version, Progress())
    assert judgement.decision.verdict == "promoted"
    assert aliased(workspace, CHALLENGER) == 2
    failed = promotion.fail_trial(judgement, TrialFailed("no answer"))
    promotion.settle(workspace, version, failed, FLOW)
    assert aliased(workspace, CHALLENGER) is None
    assert promotion.judge(workspace, promotion.registry_of(workspace).version(2), Progress()) == judgement
    promotion.settle(workspace, version, judgement, FLOW)
    promotion.crown(workspace, version, "ayeaye:v2-0", actor=FLOW, why=[])
    assert (aliased(workspace, CHALLENGER), aliased(workspace, CHAMPION)) == (None, 2)


@pytest.mark.slow
def test_a_trial_that_fails_is_made_once_more(copied: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that was too busy to start the service in time."""
    outcomes: list[object] = [
        TrialFailed("not ready after 120 s"),
        "tried",
        TrialFailed("a"),
        TrialFailed("b"),
    ]

    def trial(*arguments: object, **options: object) -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(bento, "trial", trial)
    said = list[str]()
    assert promotion.try_champion(Workspace(copied.root), said.append) == "tried"
    assert said == ["not ready after 120 s; trying once more."]
    with pytest.raises(TrialFailed, match="b"):
        promotion.try_champion(Workspace(copied.root))


@pytest.mark.slow
def test_a_champion_is_tried_within_the_limits_it_was_packed_with(copied: Place) -> None:
    copied.set("serve.max_bytes=100")
    trial = promotion.try_champion(Workspace(copied.root))
    assert trial.refused == 1  # the broken file alone
