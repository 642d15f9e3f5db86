"""Fixtures: the databases that the service can keep things in, and services, all real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import databases
import pytest
import services
from small_bundle import write_bundle
from sqlalchemy import URL

from ayeaye.service.database import locate
from ayeaye.service.served import Served


@pytest.fixture
def proxied(postgres: databases.Server) -> Iterator[tuple[databases.Proxy, URL]]:
    """A proxy before a database of PostgreSQL, which can be made to stand still, and the address through it."""
    proxy = databases.Proxy(postgres.port)
    url = postgres.create("proxied")
    yield proxy, url.set(port=proxy.port, query={"connect_timeout": "2"})
    proxy.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return locate(tmp_path / "state")
    return request.getfixturevalue("postgres").create("test")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a backbone: pictures of colours, told apart by attributes."""
    folder = tmp_path_factory.mktemp("colours") / "classifier"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of features, its classes described in words."""
    folder = tmp_path_factory.mktemp("animals") / "classifier"
    services.write_animals(folder)
    return folder


@pytest.fixture
def client(colours: Path, tmp_path: Path) -> Iterator[services.TestClient]:
    """A service of pictures in this process, asked from its own machine."""
    with services.within(Served(colours, tmp_path / "state", version=3)) as (client, _):
        yield client


@pytest.fixture
def words(animals: Path, tmp_path: Path) -> Iterator[services.TestClient]:
    """A service of features in this process."""
    with services.within(Served(animals, tmp_path / "state", version=4)) as (client, _):
        yield client


@pytest.fixture(scope="session")
def server(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Server]:
    """A service of pictures as BentoML runs it, with two workers; tests leave its classes as they were."""
    folder = tmp_path_factory.mktemp("server")
    with services.serving(colours, folder / "state", folder, workers=2) as server:
        yield server
