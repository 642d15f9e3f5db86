"""What `ayeaye serve` says of itself, and the lock that it holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ayeaye.core.errors import ReleaseError
from ayeaye.core.workspace import Workspace
from ayeaye.packaging.serving_state import ServingState, hold_serving, serving_folder


def test_a_workspace_is_served_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with hold_serving(workspace):
        ServingState("a:v1", 1, "http://0.0.0.0:9").write(workspace)
        with (
            pytest.raises(ReleaseError, match=f"already served by process {os.getpid()} on http://0.0.0.0:9"),
            hold_serving(workspace),
        ):
            pass


def test_what_serves_is_observed_while_it_serves_and_what_it_answers_counts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert ServingState.observe(workspace) is None
    with hold_serving(workspace):
        ServingState("a:v1", 1, "http://127.0.0.1:9", coming="a:v2").write(workspace)
        found = ServingState.observe(workspace)
        assert found and (found.bento, found.version, found.coming) == (None, None, "a:v2")
    assert ServingState.observe(workspace) is None
    with hold_serving(workspace):
        assert not (serving_folder(workspace) / "state.json").exists(), "of one that was killed"
