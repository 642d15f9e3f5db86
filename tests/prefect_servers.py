"""A Prefect server as a person at the command line, and as its API, has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx


class Server:
    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home)}

    def prefect(self, *arguments: str, cwd: Path, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env={**self.environment, **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        return self._ask("GET", path).json()

    def post(self, path: str, /, **content: Any) -> Any:
        return self._ask("POST", path, json=content).json()

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Asked again, as by Prefect's own client, while the server says that its database is busy."""
        for _ in range(10):
            answer = httpx.request(method, f"{self.url}/{path}", timeout=30, **content)
            if answer.status_code != 503:
                break
            time.sleep(1)
        return answer.raise_for_status()

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        return self.post("flow_runs/filter", deployments={"id": {"any_": [deployment]}})

    def start_run(self, deployment: str) -> dict[str, Any]:
        """A run of a deployment that no worker knows of, and that is said to run."""
        run = self.post(f"deployments/{deployment}/create_flow_run", state={"type": "PENDING"})
        self.set_state(run["id"], "RUNNING")
        return run

    def set_state(self, run: str, type: str, message: str | None = None) -> None:
        state = {"type": type, "message": message}
        answer = self.post(f"flow_runs/{run}/set_state", state=state, force=True)
        assert answer["status"] == "ACCEPT", answer

    def emit(self, event: str, resource: str, deployment: str) -> None:
        """An event about a resource of a deployment, as its client would send it."""
        related = {
            "prefect.resource.id": f"prefect.deployment.{deployment}",
            "prefect.resource.role": "deployment",
        }
        content = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": {"prefect.resource.id": resource},
            "related": [related],
            "payload": {"message": "emitted by a test"},
        }
        self._ask("POST", "events", json=[content])
