"""Prefect servers that ask for a password: whose it is, and what is said where it is missing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.flows.deploy import deploy
from ayeaye.flows.prefect_api import PrefectApi

PASSWORD = "ann:secret"


@pytest.fixture
def guarded() -> Iterator[tuple[str, list[str | None]]]:
    """The API of a server that refuses everything but its health, and the passwords that it was told."""
    told = list[str | None]()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            healthy = self.path.endswith("/health")
            if not healthy:
                told.append(self.headers.get("Authorization"))
            body = b"true" if healthy else b'{"detail": "Unauthorized"}'
            self.send_response(200 if healthy else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api", told
    server.shutdown()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("params.yaml", "prefect.yaml"):
        shutil.copyfile(Path(__file__).parents[2] / name, tmp_path / name)
    return Workspace(tmp_path)


def test_a_server_that_asks_for_a_password_is_told_of_with_both_variables(
    workspace: Workspace, guarded: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    with pytest.raises(
        WorkspaceError, match=r"\(401\): set PREFECT_API_AUTH_STRING .* PREFECT_SERVER_API_AUTH"
    ):
        deploy(workspace, PrefectApi(guarded[0]), print)
    assert guarded[1] == [None]


def test_the_workspaces_own_server_is_asked_with_its_own_password(
    workspace: Workspace, guarded: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", PASSWORD)
    api = PrefectApi.own(guarded[0])
    with pytest.raises(WorkspaceError, match="401"):
        deploy(workspace, api, print)
    assert guarded[1] == ["Basic YW5uOnNlY3JldA=="]
    assert api.environment()["PREFECT_API_AUTH_STRING"] == PASSWORD
