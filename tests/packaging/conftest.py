"""Fixtures: a small real bundle, its Bento, and the running service."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from bentos import golden_of, recipe_for
from small_bundle import write_bundle

from ayeaye.core.processes import free_port
from ayeaye.packaging.bento import BentoStore, GoldenRequest, Recipe


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "classifier"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With a dot, as in a workspace: BentoML treats such folders otherwise.
    return tmp_path_factory.mktemp("workspace") / ".ayeaye" / "bentoml"


@pytest.fixture(scope="session")
def recipe(bundle: Path) -> Recipe:
    return recipe_for(bundle)


@pytest.fixture(scope="session")
def tag(recipe: Recipe, home: Path) -> str:
    return BentoStore(home).build(recipe)


@pytest.fixture(scope="session")
def golden(bundle: Path) -> list[GoldenRequest]:
    return golden_of(bundle)


@pytest.fixture(scope="session")
def service(tag: str, home: Path) -> Iterator[httpx.Client]:
    """What `ayeaye serve` runs, on a port."""
    port = free_port()
    program = (
        "import sys; from pathlib import Path;"
        "from ayeaye.core.params import Serve; from ayeaye.packaging.bento import BentoStore;"
        "from ayeaye.packaging.server import exec_server;"
        "settings = Serve(host='localhost', port=int(sys.argv[3]), state=sys.argv[2] + '/state');"
        "exec_server(BentoStore(Path(sys.argv[2])), sys.argv[1], settings)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tag, str(home), str(port)], start_new_session=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(600):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.HTTPError:
                    assert process.poll() is None
                time.sleep(0.1)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
