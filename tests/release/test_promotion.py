"""The release protocol: what follows from the record, and what becomes of a champion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workspaces import Place

from ayeaye.core.errors import RegistryError, SmokeTestFailed
from ayeaye.core.workspace import Workspace
from ayeaye.deployment.serving import current_bento
from ayeaye.packaging.bento import BentoStore
from ayeaye.pipeline.progress import Progress
from ayeaye.release import promotion
from ayeaye.release.registry import CHALLENGER, CHAMPION, Version

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
        pytest.param([("promote", 2, FLOW), ("promote", 3, "ann")], False, id="for a newer one"),
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
    assert (promotion.set_aside(bare, 2) is not None) is left


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
    failed = promotion.fail_trial(judgement, SmokeTestFailed("no answer"))
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
        SmokeTestFailed("not ready after 120 s"),
        "tried",
        SmokeTestFailed("a"),
        SmokeTestFailed("b"),
    ]

    def trial(*arguments: object, **options: object) -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(promotion, "smoke_test", trial)
    said = list[str]()
    assert promotion.try_champion(Workspace(copied.root), said.append) == "tried"
    assert said == ["not ready after 120 s; trying once more."]
    with pytest.raises(SmokeTestFailed, match="b"):
        promotion.try_champion(Workspace(copied.root))


@pytest.mark.slow
def test_a_champion_is_tried_within_the_limits_it_was_packed_with(copied: Place) -> None:
    copied.set("serve.max_bytes=100")
    trial = promotion.try_champion(Workspace(copied.root))
    assert trial.refused == 1  # the broken file alone


def champions_bento(workspace: Workspace) -> Path:
    tag = promotion.record_of(workspace).state().bento
    assert tag
    return BentoStore(workspace.bentos).folder(tag)


@pytest.mark.slow
def test_a_damaged_bento_is_made_again_and_tried_before_it_is_served(
    copied: Place,
) -> None:
    workspace = Workspace(copied.root)
    (champions_bento(workspace) / "src" / "bundle" / "mapper.safetensors").write_bytes(b"rubbish")
    done = copied("classify", copied.source / "images" / "paint 000" / "000.png")
    assert done.code == 1
    assert "is damaged: make it again with `ayeaye promote 1`" in done.err
    copied.set("serve.max_bytes=12345678")
    said = list[str]()
    served = current_bento(Workspace(copied.root), said.append)
    state = promotion.record_of(workspace).state()
    assert served == state.bento
    assert said[0].endswith("is lost, damaged or out of date: version 1 is packed again.")
    assert said[2] == f"Trying {state.bento}."
    assert BentoStore(workspace.bentos).is_intact(served)
    assert BentoStore(workspace.bentos).limits(served).max_bytes == 12345678
    assert (state.champion, state.previous, aliased(workspace, CHAMPION)) == (1, None, 1)
    assert current_bento(Workspace(copied.root), said.append) == served
    assert len(promotion.record_of(workspace).entries()) == 2


@pytest.mark.slow
def test_promoting_the_champion_makes_its_lost_bento_again(copied: Place) -> None:
    workspace = Workspace(copied.root)
    shutil.rmtree(champions_bento(workspace))
    done = copied("promote", 1, "--json")
    assert done.code == 0, done.err
    assert champions_bento(workspace).name in done.json["bento"]
    assert promotion.current(workspace, promotion.registry_of(workspace).version(1))
    assert done.json["champion"] == 1


@pytest.mark.slow
def test_an_intact_bento_is_served_while_mlflow_is_away(copied: Place) -> None:
    copied.set("release.tracking=http://127.0.0.1:9")
    said = list[str]()
    served = current_bento(Workspace(copied.root), said.append)
    assert served == promotion.record_of(Workspace(copied.root)).state().bento
    assert "MLflow cannot be reached" in said[0]
    shutil.rmtree(champions_bento(Workspace(copied.root)))
    with pytest.raises(RegistryError, match="MLflow cannot be reached"):
        current_bento(Workspace(copied.root), print)


@pytest.mark.slow
def test_other_limits_of_the_service_bring_the_champion_a_new_bento_at_the_next_retrain(
    copied: Place,
) -> None:
    before = promotion.record_of(Workspace(copied.root)).state()
    copied.set("serve.max_bytes=12345678")
    outcome = copied.retrain()
    assert (outcome["outcome"], outcome["champion"]) == ("unchanged", 1)
    assert outcome["bento"] != before.bento
    assert outcome["bento"] in outcome["message"]
    assert copied.retrain()["message"] == "Nothing new: version 1 is champion."


@pytest.mark.slow
def test_a_new_evaluation_of_the_champion_is_judged_and_said_and_it_stays_champion(copied: Place) -> None:
    copied.set("evaluate.seed=7", "release.minimum={T1: 1.01}")
    outcome = copied.retrain()
    assert (outcome["outcome"], outcome["champion"], outcome["decision"]["verdict"]) == (
        "unchanged",
        1,
        "refused",
    )
    assert "stays champion, but its new evaluation fails the gate: T1: " in outcome["message"]
    champion = copied.status["champion"]
    assert (champion["version"], champion["gate"]) == (1, "refused")
    again = copied.retrain()
    assert again["message"] == "Nothing new: version 1 is champion."
    assert copied("promote", 1).code == 0
