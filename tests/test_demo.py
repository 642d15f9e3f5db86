"""The demo as `make demo` runs it, and whether the drawn animals are a fair test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import bestiary
import pytest
import workspaces
from workspaces import Place

from ayeaye.core.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> tuple[Place, str]:
    """The demo's workspace after it ended, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    done = workspaces.ayeaye("demo", folder, environment=environment)
    assert done.code == 0, done.err
    return Place(folder, folder, environment), done.out


def test_the_demo_ends_with_the_champion_and_a_recognised_aye_aye(demo: tuple[Place, str]) -> None:
    place, said = demo
    assert "Version 1 is champion" in said
    assert "aye-aye.png: aye-aye (never seen, only described)" in said
    assert f"serve --workspace {place.root}" in said


def test_unseen_animals_are_named_from_their_descriptions(demo: tuple[Place, str]) -> None:
    place, _ = demo
    figures = place.read("reports/metrics.json")
    assert figures["T1"] >= 0.60
    assert figures["H"] >= 0.50


@pytest.mark.soak
def test_wrong_descriptions_are_worth_nothing_and_an_untrained_backbone_little(
    demo: tuple[Place, str],
) -> None:
    place, _ = demo
    workspace = Workspace(place.root)
    assert abs(bestiary.shuffled(workspace)["T1"] - place.read("reports/metrics.json")["chance"]) <= 0.08
    assert bestiary.untrained(workspace)["T1"] < 0.35


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_three_bestiaries_are_as_fair(tmp_path: Path) -> None:
    out = tmp_path / "bestiaries.json"
    program = Path(__file__).parents[1] / "bench" / "bestiary.py"
    subprocess.run([sys.executable, program, "--out", str(out)], check=True)
    for row in json.loads(out.read_text()):
        assert row["trained"]["T1"] >= 0.60, row
        assert row["trained"]["H"] >= 0.50, row
        assert row["untrained"]["T1"] < 0.35, row
        assert abs(row["shuffled"]["T1"] - row["chance"]) <= 0.08, row
