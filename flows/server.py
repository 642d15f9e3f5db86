"""A Prefect server for one run: the one that is configured, else one of our own that ends with us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from ayeaye.core.environment import configured_prefect
from ayeaye.core.errors import WorkspaceError
from ayeaye.core.processes import await_start, free_port, start, stop
from ayeaye.core.workspace import Workspace
from ayeaye.flows.platform import Running
from ayeaye.flows.prefect_api import PrefectApi

Say = Callable[[str], None]


def known_api(workspace: Workspace) -> PrefectApi | None:
    """Return the API of PREFECT_API_URL, or else of the platform where it is up."""
    configured, running = configured_prefect(), Running.find(workspace)
    if configured and not (running and running.api.url == configured):
        return PrefectApi(configured)
    return running.api if running else None


def deployment_api(workspace: Workspace) -> PrefectApi:
    """Return the API of the platform where it is up, or else of PREFECT_API_URL; raises WorkspaceError."""
    if running := Running.find(workspace):
        return running.api
    if url := configured_prefect():
        return PrefectApi(url)
    raise WorkspaceError(
        "no Prefect server to deploy to: `ayeaye up` starts one, or set PREFECT_API_URL to another, "
        "such as http://127.0.0.1:4200/api"
    )


@contextmanager
def server(workspace: Workspace, say: Say = lambda text: None) -> Iterator[Callable[[], PrefectApi]]:
    """Yield a function that waits for a Prefect API: that of PREFECT_API_URL where it is set, else of the platform
    where it is up, else of a server in the workspace that has begun to start.

    Prefect's own ephemeral server outlives a run that is killed; this one does not.
    """
    if known := known_api(workspace):
        yield lambda: known
        return
    own = _Server(workspace)
    try:
        own.start()
        yield lambda: own.wait(say)
    finally:
        own.stop()


class _Server:
    """A server in the workspace, for one flow at a time: what serves schedules and pages is not needed."""

    def __init__(self, workspace: Workspace) -> None:
        self._home = workspace.state / "prefect"
        self._log = self._home / "server.log"
        # What a person set for a server of theirs, as its database, is not meant for this one.
        given = workspace.environment()
        kept = {name: given[name] for name in given if not name.startswith("PREFECT_")}
        self._environment = kept | {
            "PREFECT_HOME": str(self._home),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self._api = PrefectApi(f"http://127.0.0.1:{port}/api")
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        environment = self._environment | self._api.environment()
        with self._log.open("wb") as log:
            self._process = start([sys.executable, *command], env=environment, cwd=self._home, log=log)

    def stop(self) -> None:
        if self._process:
            stop(self._process, patience=5)

    def wait(self, say: Say) -> PrefectApi:
        """Return its API once it answers; raises WorkspaceError where it does not, when started once more."""
        if reason := self._await(say):
            say(f"{reason}; starting it once more.")
            self.stop()
            self.start()
            if reason := self._await(say):
                raise WorkspaceError(f"{reason}: see {self._log}")
        return self._api

    def _await(self, say: Say) -> str | None:
        process = self._process
        assert process

        def ready() -> bool:
            try:
                return httpx.get(f"{self._api.url}/health", timeout=5, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        def ended() -> str | None:
            code = process.poll()
            return None if code is None else f"Prefect's server ended with code {code} as it started"

        return await_start("Prefect's server", ready, ended, lambda: process.pid, say)
