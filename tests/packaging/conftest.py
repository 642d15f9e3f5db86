"""Fixture: a small real bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundle import write_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "classifier"
    write_bundle(folder)
    return folder
