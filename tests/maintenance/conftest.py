"""Fixture: a copy of a workspace with a history, for a test to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import Place


@pytest.fixture
def place(retrained: Place, tmp_path: Path) -> Place:
    """A copy for a test to change."""
    return retrained.copy(tmp_path)
