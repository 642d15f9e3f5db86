"""A workspace worked by hand: stages one by one, DVC's own commands, settings while something else is at work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import workspaces
from workspaces import Place

from ayeaye.core.workspace import STAGES, Workspace

HOLD = """
import sys, time; from pathlib import Path
from ayeaye.core.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with workspace.lock() if sys.argv[2] == "lock" else workspace.stage():
    print("held", flush=True); time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    source = workspaces.write_features(tmp_path / "features.npz")
    settings = ("prepare.source=features", "classes.source=attributes", "evaluate.bootstrap=100")
    return workspaces.make(tmp_path / "workspace", source, {}, *settings, "train.repeats=1")


@contextmanager
def held(place: Place, what: str, seconds: float) -> Iterator[None]:
    """Another process that holds the workspace, or a stage of it, for a while."""
    command = [sys.executable, "-c", HOLD, str(place.root), what, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield


def dvc(place: Place, *arguments: str) -> str:
    environment = {**os.environ, **Workspace(place.root).environment()}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=place.root, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def fingerprints(place: Place, name: str) -> str:
    return (place.root / ".ayeaye" / name).read_text()


def test_a_fresh_workspace_tells_dvc_what_its_stages_are_made_of(place: Place) -> None:
    listed = [line.partition(":")[0] for line in fingerprints(place, "code.yaml").splitlines()]
    assert sorted(listed) == sorted(STAGES)
    assert 'classes: "none"' in fingerprints(place, "inputs.yaml")


def test_what_dvc_compares_is_brought_up_to_date_by_settings_prepare_and_stages(
    place: Place, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("words\n")
    place.set(f"classes.corpus={corpus}")
    said = [fingerprints(place, "inputs.yaml")]
    for number, command in enumerate(("prepare", "classes")):
        corpus.write_text("other words" * (number + 1))
        assert place(command).code == 0
        said.append(fingerprints(place, "inputs.yaml"))
    assert len(set(said)) == 3
    (place.root / ".ayeaye" / "code.yaml").write_text('classes: "of an older ayeaye"\n')
    corpus.write_text("more")
    assert place("prepare", "--dry-run").code == 0
    assert fingerprints(place, "inputs.yaml") == said[-1]
    assert place("classes").code == 0
    assert "older" not in fingerprints(place, "code.yaml")


@pytest.mark.slow
def test_dvc_runs_the_stages_by_hand_and_shows_what_changed(place: Place) -> None:
    assert place("prepare").code == 0
    assert "Running stage 'evaluate'" in dvc(place, "repro")
    assert "Data and pipelines are up to date" in dvc(place, "repro")
    subprocess.run(["git", "add", "--all"], cwd=place.root, check=True)
    author = ("-c", "user.name=me", "-c", "user.email=me@localhost")
    subprocess.run(["git", *author, "commit", "--quiet", "-m", "By hand"], cwd=place.root, check=True)

    place.set("train.mapper=eszsl")
    again = dvc(place, "repro")
    assert "Running stage 'train'" in again and "Running stage 'embed'" not in again
    page = Path(dvc(place, "plots", "diff").strip().removeprefix("file://")).read_text()
    assert page.count("<img") >= 2 and "HEAD" in page

    # Weights that are given are no longer chosen in training, also where they leave the class space as it was.
    place.set("classes.weights=[1.0]")
    assert "Running stage 'train'" in dvc(place, "repro")


def test_a_stage_that_waits_for_another_says_so(place: Place) -> None:
    assert place("prepare").code == 0
    with held(place, "stage", 2):
        done = place("classes")
    assert done.code == 0
    assert "Another run is at work in this workspace" in done.err


def test_settings_wait_for_a_run_that_is_at_work(place: Place) -> None:
    with held(place, "lock", 2):
        before = time.monotonic()
        done = place("set", "train.seed=1")
    assert done.code == 0
    assert time.monotonic() - before > 1
    assert "Another run is at work in this workspace" in done.err
    with held(place, "lock", 2):
        done = workspaces.ayeaye("init", place.root, "--set", "train.seed=2")
    assert "Another run is at work in this workspace" in done.err
    assert Workspace(place.root).params.train.seed == 2
