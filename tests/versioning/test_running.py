"""Stages that are followed: what each tells of itself, and of its errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import workspaces

from ayeaye.core.errors import StageFailed, UnknownWords
from ayeaye.core.workspace import Workspace
from ayeaye.versioning.running import Stages

TELLS = "from ayeaye.core.errors import *; from ayeaye.versioning.running import tell_error; import sys; "
LONG = 'Größe, 大きさ, "q"\n' * 400


def stages(root: Path, *programs: str) -> Workspace:
    """A workspace whose stages `one`, `two`, … are these programs."""
    assert workspaces.ayeaye("init", root).code == 0
    lines = ["stages:"]
    for name, program in zip(("one", "two", "three"), programs, strict=False):
        (root / f"{name}.py").write_text(program)
        lines += [f"  {name}:", f"    cmd: {sys.executable} {name}.py", f"    deps: [{name}.py]"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    return Workspace(root)


def run(workspace: Workspace, names: Sequence[str]) -> list[bool]:
    with Stages(workspace, list(names)) as running:
        found = [running.wait(name) for name in names]
    assert not list(workspace.state.glob("stages-*"))
    return found


@pytest.mark.slow
def test_stages_are_followed_and_what_has_not_changed_is_said(tmp_path: Path) -> None:
    workspace = stages(tmp_path / "shop", "", "")
    assert run(workspace, ["one", "two"]) == [True, True]
    (workspace.root / "two.py").write_text("print('anew')")
    assert run(workspace, ["one", "two"]) == [False, True]


@pytest.mark.slow
def test_an_error_arrives_as_itself_however_long_and_in_whatever_script(tmp_path: Path) -> None:
    workspace = stages(
        tmp_path / "shop", "", f"{TELLS}tell_error(UnknownWords({json.dumps(LONG)})); sys.exit(1)"
    )
    with pytest.raises(UnknownWords) as caught, Stages(workspace, ["one", "two"]) as running:
        assert running.wait("one")
        running.wait("two")
    said = str(caught.value)
    assert said.endswith("…") and LONG.startswith(said.rstrip("…")) and len(said) > 1000


@pytest.mark.slow
def test_a_stage_that_tells_nothing_fails_with_the_last_that_it_printed(tmp_path: Path) -> None:
    workspace = stages(tmp_path / "shop", "print('unheard of'); raise SystemExit(4)")
    with pytest.raises(StageFailed, match=r"stage one failed .*exited with 4\): unheard of; what it printed"):
        run(workspace, ["one"])
