"""Fixtures: a small source."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sources import CLASSES, Place, write_source


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two seen classes of twelve pictures and an unseen one of four."""
    source = write_source(tmp_path / "source", CLASSES, {"okapi": 12, "zebra": 12, "aye-aye": 4})
    return Place(tmp_path / "work", source)
