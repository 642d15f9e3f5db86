"""The Prefect server of one run: started once more where it ends or hangs at its start."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ayeaye.core import processes
from ayeaye.core.environment import amended
from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.flows import server as serving
from ayeaye.flows.server import server

BROKEN = [sys.executable, "-c", "import sys; print('no room'); sys.exit(3)"]
SILENT = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name, value in amended(
        {"PREFECT_SERVER_API_AUTH_STRING": "ann:secret", "HTTP_PROXY": "127.0.0.1:1"}
    ).items():
        monkeypatch.setenv(name, value)
    return Workspace(tmp_path)


def instead(monkeypatch: pytest.MonkeyPatch, *commands: list[str]) -> list[subprocess.Popen[bytes]]:
    """Have the first starts run these commands; gives the processes of all starts."""
    waiting, processes_started = list(commands), list[subprocess.Popen[bytes]]()

    def start(command: list[str], **rest: Any) -> subprocess.Popen[bytes]:
        process = processes.start(waiting.pop(0) if waiting else command, **rest)
        processes_started.append(process)
        return process

    monkeypatch.setattr(serving, "start", start)
    return processes_started


@pytest.mark.slow
def test_a_server_that_ends_at_its_start_is_started_once_more(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, said = instead(monkeypatch, BROKEN), list[str]()
    with server(workspace, said.append) as ready:
        api = ready()
        assert httpx.get(f"{api.url}/flows/count", trust_env=False).status_code != 401
        assert said[0] == "Prefect's server ended with code 3 as it started; starting it once more."
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_a_server_that_hangs_twice_is_an_error_that_names_its_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, said = instead(monkeypatch, SILENT, SILENT), list[str]()
    waits: Callable[..., str | None] = processes.await_start
    monkeypatch.setattr(serving, "await_start", lambda *given: waits(*given, stalled=1))
    log = workspace.state / "prefect" / "server.log"
    with (
        server(workspace, said.append) as ready,
        pytest.raises(WorkspaceError, match=f"did nothing .*: see {log}"),
    ):
        ready()
    assert len(said) == 1 and len(started) == 2
    assert [process.returncode for process in started] == [-signal.SIGTERM, -signal.SIGTERM]
