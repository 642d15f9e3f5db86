"""Fixtures: the databases that the service can keep things in, both real."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import databases
import pytest
from sqlalchemy import URL

from ayeaye.service.database import locate


@pytest.fixture(scope="session")
def postgres() -> Iterator[databases.Server]:
    """A PostgreSQL server; what needs it is skipped where its programs are not."""
    with databases.server() as started:
        yield started


_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return locate(tmp_path / "state")
    return request.getfixturevalue("postgres").create(f"test{next(_numbers)}")
