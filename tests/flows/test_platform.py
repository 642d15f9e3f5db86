"""`ayeaye up` and `ayeaye down`: the whole platform of a workspace, with its champion, on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import workspaces
from prefect_servers import Server
from workspaces import Done, Place, wait_for

from ayeaye.core.processes import free_port
from ayeaye.core.workspace import Workspace
from ayeaye.flows import platform

pytestmark = pytest.mark.slow
SECRETS = {"AYEAYE_TOKEN": "of the service alone", "AYEAYE_SMTP_PASSWORD": "of nothing that runs"}


class Platform:
    """The platform of a workspace, driven as by a person at the command line."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.ports = {name: free_port() for name in ("prefect", "worker", "mlflow", "service")}

    def __call__(self, command: str, *arguments: str) -> Done:
        done = subprocess.run(
            [workspaces.PROGRAM, command, "--workspace", str(self.workspace.root), *arguments],
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | SECRETS,
            capture_output=True,
            text=True,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def up(self, *, expect: int = 0) -> Done:
        ports = [part for name, port in self.ports.items() for part in (f"--{name}-port", str(port))]
        done = self("up", "--json", *ports)
        assert done.code == expect, done.err + self.logs()
        return done

    def server(self, home: Path) -> Server:
        return Server(f"http://127.0.0.1:{self.ports['prefect']}/api", home)

    def logs(self) -> str:
        logs = sorted((self.workspace.state / "logs").glob("*.log"))
        return "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in logs)

    def numbers(self) -> dict[str, int]:
        """The process of each part, and of supervisord."""
        supervisor = platform._Supervisor(self.workspace)
        found = {name: supervisor.pid(name) or 0 for name in self.ports}
        return {**found, "supervisord": supervisor.pid() or 0}

    def processes(self) -> list[str]:
        """Every process that was started for this workspace, but for the zombies."""
        mark, found = f"AYEAYE_WORKSPACE={self.workspace.root}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def started(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Any]]:
    place = trained.copy(tmp_path_factory.mktemp("a place? #1; with 'much' in its 100% name " + "x" * 60))
    place.set("serve.host=127.0.0.2")
    made = Platform(place.root)
    try:
        yield made, made.up().json
    finally:
        made("down")
        assert made.processes() == []


def test_all_of_it_answers(started: tuple[Platform, Any]) -> None:
    _, result = started
    assert list(result["addresses"]) == ["prefect", "mlflow", "service", "worker"]
    for address in result["addresses"].values():
        assert httpx.get(address, timeout=30).status_code == 200
    # The page shows the registry that the flows write to.
    found = httpx.get(
        f"{result['addresses']['mlflow']}/api/2.0/mlflow/registered-models/get",
        params={"name": "ayeaye"},
        timeout=30,
    ).json()
    assert {"alias": "champion", "version": "1"} in found["registered_model"]["aliases"]
    (version,) = found["registered_model"]["latest_versions"]
    # Its files, too: their addresses name no folder.
    card = httpx.get(
        f"{result['addresses']['mlflow']}/get-artifact",
        params={"run_uuid": version["run_id"], "path": "card.html"},
        timeout=30,
    )
    assert (card.status_code, card.text[:9].lower()) == (200, "<!doctype"), card.text[:300]


def test_it_listens_on_loopback_alone_and_the_service_where_it_should(started: tuple[Platform, Any]) -> None:
    made, _ = started
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, port = local.split(":")
                listening.setdefault(int(port, 16), set()).add(address)
    service = made.ports["service"]
    for port in made.ports.values():
        assert listening[port] == {"0200007F" if port == service else "0100007F"}


def test_secrets_are_known_where_they_are_needed(started: tuple[Platform, Any]) -> None:
    made, _ = started
    numbers = made.numbers()
    del numbers["supervisord"]
    for name, number in numbers.items():
        environment = Path(f"/proc/{number}/environ").read_bytes()
        assert (SECRETS["AYEAYE_TOKEN"].encode() in environment) == (name == "service")
        assert SECRETS["AYEAYE_SMTP_PASSWORD"].encode() not in environment


def test_the_schedules_are_deployed(started: tuple[Platform, Any], tmp_path: Path) -> None:
    made, _ = started
    server = made.server(tmp_path)
    found = server.get("deployments/name/retrain/weekly-retrain")
    assert found["parameters"] == {"workspace": str(made.workspace.root)}
    assert server.get("work_pools/ayeaye")["type"] == "process"


def test_up_again_changes_nothing_but_starts_what_is_missing(started: tuple[Platform, Any]) -> None:
    made, result = started
    before = made.numbers()
    platform._Supervisor(made.workspace).control("stop", "worker")
    assert made.up().json == result
    after = made.numbers()
    assert after.pop("worker") not in (0, before.pop("worker"))
    assert after == before


def test_up_at_other_ports_is_refused(started: tuple[Platform, Any]) -> None:
    made, _ = started
    done = made("up", "--prefect-port", str(free_port()))
    assert done.code == 1
    assert "`ayeaye down` first" in done.err


def test_only_runs_of_the_workspace_are_scheduled_again(
    started: tuple[Platform, Any], tmp_path: Path
) -> None:
    made, _ = started
    server = made.server(tmp_path)
    there = server.get("deployments/name/watch/daily-drift-watch")
    other = server.post(
        "deployments/", name="daily-drift-watch", flow_id=server.post("flows/", name="another")["id"],
        parameters={"workspace": "/another"},
    )  # fmt: skip
    ours, theirs = server.start_run(there["id"])["id"], server.start_run(other["id"])["id"]
    platform.free_runs(
        made.workspace, platform.Running.planned(made.workspace, platform.Ports(**made.ports)).api
    )
    states = [server.get(f"flow_runs/{run}")["state"]["type"] for run in (ours, theirs)]
    for run in (ours, theirs):
        server.delete(f"flow_runs/{run}")
    assert states == ["SCHEDULED", "RUNNING"]


def test_a_service_that_is_not_ready_takes_nothing_down(
    started: tuple[Platform, Any],
) -> None:
    made, result = started
    said: list[str] = []
    platform._Supervisor(made.workspace).control("stop", "service")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.2", made.ports["service"]))
        taken.listen()
        before = made.numbers()
        found = platform.up(made.workspace, platform.Ports(**made.ports), said.append)
    assert asdict(found) == result
    assert "The service is not ready yet" in said[-1]
    assert str(made.workspace.state / "logs" / "service.log") in said[-1]
    after = made.numbers()
    assert {**after, "service": 0} == {**before, "service": 0}
    address = f"{result['addresses']['service']}/readyz"
    wait_for(lambda: _answers(address), 120, "the service is not there once it can be")


def test_a_server_elsewhere_is_shown_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("release:\n  tracking: http://ann:secret@mlflow.example.org\n")
    found = platform.Running.planned(Workspace(tmp_path), platform.Ports()).addresses
    assert found["mlflow"] == "http://ann:***@mlflow.example.org"


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("10.0.0.7", "10.0.0.7")])
def test_the_service_is_reached_where_it_listens(tmp_path: Path, host: str, reached: str) -> None:
    (tmp_path / "params.yaml").write_text(f"serve:\n  host: {host}\n")
    found = platform.Running.planned(Workspace(tmp_path), platform.Ports()).addresses
    assert found["service"] == f"http://{reached}:3000"


@pytest.mark.soak
def test_what_fails_is_started_again(started: tuple[Platform, Any]) -> None:
    made, result = started
    before = made.numbers()["service"]
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        if made.numbers()["service"] in (0, before):
            return False
        return _answers(f"{result['addresses']['service']}/readyz")

    wait_for(again, 90, "the service is not there again")


def test_the_command_line_uses_the_server_of_the_platform(
    started: tuple[Platform, Any], tmp_path: Path
) -> None:
    made, _ = started
    server = made.server(tmp_path)
    before = server.post("flow_runs/count")
    done = made("retrain", "--json")
    assert done.code == 0, done.err
    assert done.json["outcome"] == "unchanged"
    assert server.post("flow_runs/count") == before + 1


@pytest.mark.soak
def test_a_killed_platform_leaves_no_process_and_its_run_goes_on_when_it_is_up_again(
    started: tuple[Platform, Any], tmp_path: Path
) -> None:
    made, _ = started
    Place(made.workspace.root, Path(), {}).set("train.folds=2")
    server = made.server(tmp_path)
    deployment = server.get("deployments/name/retrain/weekly-retrain")["id"]
    run = server.post(f"deployments/{deployment}/create_flow_run")["id"]

    def state() -> str:
        return server.get(f"flow_runs/{run}")["state"]["type"]

    wait_for(lambda: state() == "RUNNING", 120, "the run did not start")
    os.kill(made.numbers()["supervisord"], signal.SIGKILL)
    wait_for(lambda: not made.processes(), 30, f"{made.processes()} are left")

    made.up()
    wait_for(lambda: state() in ("COMPLETED", "FAILED", "CRASHED"), 300, "the run does not go on")
    assert state() == "COMPLETED", made.logs()
    status = json.loads(made("status", "--json").out)
    assert (status["champion"]["version"], status["agrees"]) == (2, True)


def test_down_stops_all_of_it(started: tuple[Platform, Any]) -> None:
    made, _ = started
    done = made("down", "--json")
    assert (done.code, done.json["was_up"]) == (0, True), done.err
    assert made.processes() == []
    assert done.err.index("worker") < done.err.index("prefect")
    for port in made.ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert made("down", "--json").json["was_up"] is False


def test_a_port_that_is_taken_is_named_and_nothing_is_started(started: tuple[Platform, Any]) -> None:
    made, _ = started
    made("down")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", made.ports["mlflow"]))
        taken.listen()
        done = made.up(expect=1)
    assert f"port {made.ports['mlflow']} of the mlflow" in done.err
    assert "--mlflow-port" in done.err
    assert made.processes() == []


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
