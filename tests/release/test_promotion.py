"""The release protocol: what follows from the record, and what becomes of a champion."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import Place

from ayeaye.release import promotion
from ayeaye.workspace import Workspace

FLOW = f"{promotion.FLOW} (ann)"


@pytest.fixture
def bare(tmp_path: Path) -> Workspace:
    """Folders of a workspace, and nothing in them."""
    return Workspace(tmp_path)


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


@pytest.mark.slow
def test_a_champion_is_tried_within_the_limits_it_was_packed_with(copied: Place) -> None:
    copied.set("serve.max_bytes=100")
    trial = promotion.try_champion(Workspace(copied.root))
    assert trial.refused == 1  # the broken file alone
