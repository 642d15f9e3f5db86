"""Fixtures of the end-to-end tests: a Prefect server, a retrained workspace, its running service."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import databases
import httpx
import pytest
import shared
import workspaces
from prefect_servers import Server
from retrained import ADDED, MOVED
from workspaces import SHARED, Place, wait_for

from ayeaye.core.processes import free_port, start, stop

# Prefect reads it when it is first imported; nothing of a test belongs into a home folder.
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="ayeaye-prefect-"))


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shared.open_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shared.close_folder()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow goes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def prefect_server() -> str:
    """The URL of a Prefect API with its scheduler, for as long as the tests run."""

    def begin(home: Path) -> str:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
        shared.keep("prefect", command, environment, home)
        wait_for(lambda: _answers(f"{url}/health"), 120, "Prefect's server does not answer")
        return url

    return str(shared.once("prefect", begin)[1])


@pytest.fixture(scope="session")
def server(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(prefect_server, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="session")
def environment(prefect_server: str) -> Mapping[str, str]:
    """What every command of the end-to-end tests finds in its environment."""
    return {"PREFECT_API_URL": prefect_server}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a small workspace of pictures."""
    weights = workspaces.write_checkpoint(tmp_path_factory.mktemp("weights") / "random.pth")
    return ("prepare.source=folder", f"embed.weights={weights}", *workspaces.SMALL)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str], small: tuple[str, ...]
) -> Place:
    """A workspace after its first retrain, which promoted; tests that change something take a copy."""

    def make(folder: Path) -> Place:
        source = workspaces.write_paints(folder / "paints")
        return _retrained(workspaces.make(folder / "workspace", source, environment, *small))

    return _made_once("trained", make, tmp_path_factory, environment)


@pytest.fixture(scope="session")
def twice(trained: Place, tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Place:
    """The same after a changed parameter has made version 2 champion."""

    def make(folder: Path) -> Place:
        place = trained.copy(folder)
        place.set("train.folds=4")
        return _retrained(place)

    return _made_once("twice", make, tmp_path_factory, environment)


def _retrained(place: Place) -> Place:
    done = subprocess.run(
        [workspaces.PROGRAM, "retrain", "--json", "--workspace", str(place.root)],
        env={**os.environ, **place.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (place.root.parent / "outcome.json").write_text(done.stdout)
    return place


def _made_once(
    name: str,
    make: Callable[[Path], Place],
    tmp_path_factory: pytest.TempPathFactory,
    environment: Mapping[str, str],
) -> Place:
    """A copy, for one worker, of what `make` makes once."""

    def outcome(folder: Path) -> str:
        make(folder)
        return (folder / "outcome.json").read_text()

    made, text = shared.once(name, outcome)
    folder = tmp_path_factory.mktemp(name)
    (folder / "outcome.json").write_text(text)
    return Place(made / "workspace", made / "paints", environment).moved(folder / "workspace")


@pytest.fixture(scope="session")
def service(trained: Place) -> Iterator[str]:
    """The URL of the champion's Bento, served by `ayeaye serve`."""
    port = free_port()
    command = [workspaces.PROGRAM, "serve", "--workspace", str(trained.root), "--port", str(port)]
    log = trained.root.parent / "serve.log"
    with log.open("wb") as output:
        process = start(command, env=os.environ, cwd=trained.root.parent, log=output)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(f"{url}/readyz"), 120, "the service is not ready")
            yield url
        finally:
            stop(process)


@pytest.fixture(scope="session")
def postgres() -> databases.Server:
    """A PostgreSQL server; what needs it is skipped where its programs are not."""
    return databases.server()


@pytest.fixture
def shared_data() -> Path:
    """The real data for development; tests that need it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture
def copied(trained: Place, tmp_path: Path) -> Place:
    """A workspace that begins as the trained one, for a test to change."""
    return trained.copy(tmp_path)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def retrained(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """After a second retrain: three pictures more of one class, one picture of it under another."""
    place = trained.copy(tmp_path_factory.mktemp("retrained"))
    workspaces.add_pictures(place.source, ADDED, range(20, 23))
    (place.source / "images" / ADDED / "000.png").rename(place.source / "images" / MOVED / "900.png")
    place.set("train.mapper=eszsl")
    assert place.retrain()["champion"] == 2
    return place
