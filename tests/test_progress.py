"""The bars of a stage reach the terminal of who started the pipeline, through DVC between them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import workspaces

STAGE = """
from ayeaye.pipeline.progress import Progress
with Progress().task("counting pictures", 2) as advance:
    advance(2)
print("not for the terminal")
"""
RUN = """
import sys; from pathlib import Path
from ayeaye.core.workspace import Workspace; from ayeaye.versioning.running import Stages
with Stages(Workspace(Path(sys.argv[1])), ["count"]) as stages:
    print(stages.wait("count"))
"""


@pytest.mark.slow
def test_bars_of_a_stage_reach_the_terminal_and_what_it_prints_does_not(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    assert workspaces.ayeaye("init", root).code == 0
    (root / "stage.py").write_text(STAGE)
    (root / "dvc.yaml").write_text(f"stages:\n  count:\n    cmd: {sys.executable} stage.py\n")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(root)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        assert (done.returncode, done.stdout) == (0, b"True\n")
        shown = os.read(ours, 100_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"counting pictures" in shown
    assert b"not for the terminal" not in shown
