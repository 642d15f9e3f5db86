"""Fixtures: a small source, and the shared real data where it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_sources import CLASSES, Place, write_source


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two seen classes of twelve pictures and an unseen one of four."""
    source = write_source(tmp_path / "source", CLASSES, {"okapi": 12, "zebra": 12, "aye-aye": 4})
    return Place(tmp_path / "work", source)


@pytest.fixture
def shared_data() -> Path:
    """The real data for development; tests that need it are skipped where it is not."""
    path = Path(os.environ.get("AYEAYE_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path
