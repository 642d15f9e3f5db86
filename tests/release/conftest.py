"""Fixtures: a small real bundle, and a workspace with a candidate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_bundle import write_bundle
from workspaces import Place

from ayeaye.core.workspace import Workspace
from ayeaye.release import promotion
from ayeaye.release.registry import Version


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "classifier"
    write_bundle(folder)
    return folder


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
