"""A Prefect server for one run: the one that is configured, else one of our own that ends with us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ayeaye.errors import WorkspaceError
from ayeaye.flows import platform
from ayeaye.processes import free_port, start, stop
from ayeaye.workspace import Workspace

STARTUP_SECONDS = 90


@contextmanager
def server(workspace: Workspace) -> Iterator[Callable[[], str]]:
    """Yields a function that waits for a Prefect API and gives its URL: PREFECT_API_URL where it is set, else that
    of the platform where it is up, else of a server in the workspace that has begun to start.

    Prefect's own ephemeral server outlives a run that is killed; this one does not.
    """
    if configured := os.environ.get("PREFECT_API_URL"):
        yield lambda: configured
        return
    if known := platform.running(workspace):
        yield lambda: platform.Ports(**known["ports"]).prefect_api
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    home = workspace.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        **workspace.environment(),
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        # One flow at a time: what serves schedules and pages is not needed.
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    with (home / "server.log").open("wb") as log:
        process = start(command, env=environment, cwd=home, log=log)
        try:
            yield lambda: _await(url, process, home / "server.log")
        finally:
            stop(process, patience=5)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WorkspaceError(f"Prefect's server ended at once with code {process.returncode}: see {log}")
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return url
        except httpx.HTTPError:
            time.sleep(0.1)
    raise WorkspaceError(f"Prefect's server did not answer within {STARTUP_SECONDS} s: see {log}")
