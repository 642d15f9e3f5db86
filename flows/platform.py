"""The whole platform of one workspace on one machine, under supervisord.

    prefect   the Prefect server and its page; schedules, alerts
    mlflow    the MLflow server: the page of the workspace's own registry (not where release.tracking is elsewhere)
    worker    runs what the Prefect server says is due
    service   the champion's Bento, once there is a champion

All of it listens on loopback alone, but for the service where `serve.host` says otherwise, keeps its state and its
logs in the workspace, starts again when it fails (each time a second later), and dies with supervisord, however that
ends. The state lies in `.ayeaye/platform`:

    supervisord.conf, supervisord.pid, supervisor.sock, addresses.json
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from filelock import FileLock

from ayeaye.core.environment import configured_prefect, of_own_prefect
from ayeaye.core.errors import WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import sqlite_uri
from ayeaye.core.processes import alive, await_start, guarded
from ayeaye.core.workspace import Workspace
from ayeaye.release.record import Record
from ayeaye.release.registry import shown

Say = Callable[[str], None]
HOST = "127.0.0.1"
SOCKET = (
    "/proc/self/cwd/supervisor.sock"  # supervisord is at home there; the address of a socket has to be short
)
STARTS = 2  # of a part, until it is given up
LOG_BYTES, LOGS = 10_000_000, 5
# How long each may take to end, in the order in which they are stopped: a worker whose server is gone hangs.
STOP_SECONDS = {"worker": 30, "service": 45, "mlflow": 15, "prefect": 15}
STOPPED = "Stopped with the platform; goes on when that is up again."
SERVICE_ONLY = "AYEAYE_TOKEN"  # what protects the service is no business of what runs beside it


@dataclass(frozen=True)
class Ports:
    """Where the parts listen."""

    prefect: int = 4200
    worker: int = 4201
    mlflow: int = 5000
    service: int = 3000

    @property
    def prefect_api(self) -> str:
        return f"http://{HOST}:{self.prefect}/api"


def up(workspace: Workspace, ports: Ports, say: Say) -> dict[str, Any]:
    """Start what is not running yet, wait until all of it answers, and deploy; returns `addresses` by part.

    Raises WorkspaceError where a port is taken or a part does not start; what was started is then stopped again.
    A service that is not ready in time is told of alone: all else is of use without it, and it is tried on.
    """
    found = {"addresses": addresses(workspace, ports), "ports": asdict(ports)}
    with _alone(workspace):
        if known := running(workspace):
            other = [
                f"{name} at {address}, not {found['addresses'][name]}"
                for name, address in known["addresses"].items()
                if address != found["addresses"][name]
            ]
            if other:
                raise WorkspaceError(
                    f"the platform of {workspace.root} is up with {', '.join(other)}: `ayeaye down` first"
                )
            _bring_up(workspace, ports, say, resumed=True)
            return known
        if number := _number(workspace):
            _stop(workspace, number, ports, say)  # what an `up` that was killed left half done
        programs = _programs(workspace, ports)
        _require_free(ports, programs)
        _make_registry(workspace, programs)
        process = _start_supervisor(workspace, ports, programs)
        try:
            _await_supervisor(workspace, process)
            _bring_up(workspace, ports, say, resumed=False)
            write_atomic(_folder(workspace) / "addresses.json", json.dumps(found, indent=2).encode())
            return found
        except BaseException:
            _stop(workspace, process.pid, ports, say)
            raise


def down(workspace: Workspace, say: Say) -> bool:
    """Stop all of it, the worker before the server it talks to; returns whether there was anything to stop."""
    with _alone(workspace):
        number, known = _number(workspace), running(workspace)
        if number is None:
            return False
        _stop(workspace, number, Ports(**known["ports"]) if known else None, say)
        return True


def plan(workspace: Workspace, ports: Ports) -> dict[str, Any]:
    """What `up` would start, and the addresses; raises WorkspaceError where a port is taken."""
    programs, is_up = _programs(workspace, ports), running(workspace) is not None
    if not is_up:
        _require_free(ports, programs)
    return {"up": is_up, "programs": ", ".join(programs), "addresses": addresses(workspace, ports)}


def prefect_api(workspace: Workspace) -> str:
    """The API of the platform that is up, else PREFECT_API_URL; raises WorkspaceError where there is neither."""
    if known := running(workspace):
        return Ports(**known["ports"]).prefect_api
    if url := configured_prefect():
        return url
    raise WorkspaceError(
        "no Prefect server to deploy to: `ayeaye up` starts one, or set PREFECT_API_URL to another, "
        "such as http://127.0.0.1:4200/api"
    )


def running(workspace: Workspace) -> dict[str, Any] | None:
    """The `addresses` and `ports` of a platform that is up, or None."""
    if _number(workspace) is None:
        return None
    try:
        return json.loads((_folder(workspace) / "addresses.json").read_bytes())
    except FileNotFoundError:
        return None


def addresses(workspace: Workspace, ports: Ports) -> dict[str, str]:
    """By part, what a browser opens; of the worker, whether it is well."""
    return {
        "prefect": f"http://{HOST}:{ports.prefect}",
        "mlflow": shown(_elsewhere(workspace, ports) or f"http://{HOST}:{ports.mlflow}"),
        "service": f"http://{_reached(workspace.params.serve.host)}:{ports.service}",
        "worker": f"http://{HOST}:{ports.worker}/health",
    }


# The programs


@dataclass(frozen=True)
class _Program:
    """A part: its arguments to Python, and where it listens."""

    arguments: list[str]
    port: int
    ready: str  # a path that answers 200
    autostart: bool = True
    host: str = HOST


def _programs(workspace: Workspace, ports: Ports) -> dict[str, _Program]:
    from ayeaye.flows.deploy import read

    programs = {
        "prefect": _Program(
            ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect)],
            ports.prefect,
            "/api/health",
        )
    }
    if not _elsewhere(workspace, ports):
        programs["mlflow"] = _Program(
            ["-m", "mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1"],
            ports.mlflow,
            "/health",
        )
    # What needs the server is started once that answers.
    pool = read(workspace)["pools"][0]
    worker = [
        "worker",
        "start",
        "--pool",
        pool,
        "--type",
        "process",
        "--name",
        "ayeaye",
        "--with-healthcheck",
    ]
    programs["worker"] = _Program(
        ["-m", "prefect", *worker, "--install-policy", "never"], ports.worker, "/health", autostart=False
    )
    programs["service"] = _Program(
        ["-m", "ayeaye", "serve", "--wait", "--port", str(ports.service)],
        ports.service,
        "/readyz",
        autostart=False,
        host=workspace.params.serve.host,
    )
    return programs


def _reached(host: str) -> str:
    """Where, from this machine, what listens there is reached."""
    return HOST if host == "0.0.0.0" else host  # noqa: S104


def _elsewhere(workspace: Workspace, ports: Ports) -> str | None:
    """The address of an MLflow server that is not the platform's own."""
    tracking = workspace.params.release.tracking or ""
    parts = urlsplit(tracking)
    if parts.scheme not in ("http", "https"):
        return None
    own = parts.hostname in (HOST, "localhost") and parts.port == ports.mlflow
    return None if own else tracking


def _environment(workspace: Workspace, ports: Ports) -> dict[str, str]:
    """Of every part; a person's own settings of Prefect's and MLflow's stores win, see docs/platform.md."""
    from ayeaye.flows import alerts

    tracking, mlflow = workspace.params.release.tracking, workspace.state / "mlflow"
    sqlite = sqlite_uri(mlflow / "mlflow.db")
    backend = tracking if tracking and not tracking.startswith("http") else None
    stores = {
        # In the server's memory, its default, leases are lost with it and their slots are taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "MLFLOW_ARTIFACTS_DESTINATION": (mlflow / "artifacts").as_uri(),
        "MLFLOW_BACKEND_STORE_URI": sqlite,
    }
    fixed = {
        "AYEAYE_WORKSPACE": str(workspace.root),
        "PREFECT_HOME": str(workspace.state / "prefect"),
        "PREFECT_API_URL": ports.prefect_api,
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
        "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
            f"{name}{port}" for name in (HOST, "localhost") for port in ("", ":*")
        ),
    }
    if backend or not tracking:
        fixed["MLFLOW_BACKEND_STORE_URI"] = backend or sqlite  # what the flows write to, and nothing else
        fixed["MLFLOW_REGISTRY_STORE_URI"] = fixed["MLFLOW_BACKEND_STORE_URI"]
    given = of_own_prefect(workspace.environment())
    # The secrets of the alerts lie in Prefect's blocks by the time anything is sent.
    return {**stores, **{name: given[name] for name in given if name not in alerts.SECRETS}, **fixed}


def _configuration(programs: dict[str, _Program]) -> str:
    """supervisord.conf; it names no folder of the workspace, which could hold what ends a value in it."""
    sections = [
        f"[unix_http_server]\nfile={SOCKET}\nchmod=0700",
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        f"[supervisorctl]\nserverurl=unix://{SOCKET}",
        "[supervisord]\npidfile=supervisord.pid\n" + _log("logfile", "supervisord"),
    ]
    for place, (name, program) in enumerate(programs.items()):
        command = shlex.join([sys.executable, *program.arguments]).replace("%", "%%")
        without = "" if name == "service" else f'environment={SERVICE_ONLY}=""\n'
        sections.append(
            f"[program:{name}]\ncommand={command}\npriority={place}\nautostart={str(program.autostart).lower()}\n"
            "autorestart=true\nstartsecs=5\nstartretries=1000000\nkillasgroup=true\nredirect_stderr=true\n"
            f"stopwaitsecs={STOP_SECONDS[name]}\n{without}" + _log("stdout_logfile", name)
        )
    return "\n\n".join(sections) + "\n"


def _log(key: str, name: str) -> str:
    return f"{key}=../logs/{name}.log\n{key}_maxbytes={LOG_BYTES}\n{key}_backups={LOGS}"


# Starting


def _require_free(ports: Ports, programs: dict[str, _Program]) -> None:
    for name, program in programs.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((program.host, program.port))
            except OSError as error:
                host = " or mend serve.host," if name == "service" else ""
                raise WorkspaceError(
                    f"port {program.port} of the {name} cannot be listened on at {program.host} ({error.strerror}): "
                    f"give another one with --{name}-port,{host} or stop what listens there"
                ) from None


def _make_registry(workspace: Workspace, programs: dict[str, _Program]) -> None:
    """The registry's tables in one piece, which a server that is killed while it makes them would not leave."""
    there = (workspace.state / "mlflow" / "mlflow.db").is_file()
    if "mlflow" in programs and not workspace.params.release.tracking and not there:
        from ayeaye.release import promotion

        promotion.registry_of(workspace).versions()


def _start_supervisor(
    workspace: Workspace, ports: Ports, programs: dict[str, _Program]
) -> subprocess.Popen[bytes]:
    folder = _folder(workspace)
    for needed in (folder, workspace.state / "logs", workspace.state / "prefect"):
        needed.mkdir(parents=True, exist_ok=True)
    (folder / "addresses.json").unlink(missing_ok=True)
    write_atomic(folder / "supervisord.conf", _configuration(programs).encode())
    return subprocess.Popen(
        # Without -E it would itself be guarded, and die with this command.
        [
            sys.executable,
            "-E",
            "-m",
            "supervisor.supervisord",
            "--nodaemon",
            "--configuration",
            "supervisord.conf",
        ],
        env=guarded(_environment(workspace, ports)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await_supervisor(workspace: Workspace, process: subprocess.Popen[bytes]) -> None:
    def ended() -> str | None:
        code = process.poll()
        return None if code is None else f"supervisord ended with code {code}"

    reason = await_start("supervisord", lambda: _number(workspace) == process.pid, ended, lambda: process.pid)
    if reason:
        raise WorkspaceError(f"{reason}: see {workspace.state / 'logs' / 'supervisord.log'}")


def _bring_up(workspace: Workspace, ports: Ports, say: Say, *, resumed: bool) -> None:
    from ayeaye.flows.deploy import deploy

    programs = _programs(workspace, ports)
    with _supervisor(workspace) as supervisor:
        servers = [name for name in programs if programs[name].autostart]
        for name in servers:
            _start(supervisor, name)
        for name in servers:
            say(f"Waiting for {name}.")
            _await(workspace, supervisor, name, programs[name], say)
        if not resumed:
            _free_runs(workspace, ports)
        deploy(workspace, ports.prefect_api, say)
        for name in ("worker", "service"):
            _start(supervisor, name)
        say("Waiting for worker.")
        _await(workspace, supervisor, "worker", programs["worker"], say)
        if Record(workspace.release / "record.jsonl").state().champion is None:
            say("The service waits for the first champion: prefect deployment run retrain/weekly-retrain")
            return
        say("Waiting for service.")
        try:
            _await(workspace, supervisor, "service", programs["service"], say)
        except WorkspaceError as error:
            say(f"The service is not ready yet, and is tried on: {error}")


def _start(supervisor: Any, name: str) -> None:
    if supervisor.getProcessInfo(name)["statename"] not in ("RUNNING", "STARTING", "BACKOFF"):
        supervisor.startProcess(name, False)


def _await(workspace: Workspace, supervisor: Any, name: str, program: _Program, say: Say) -> None:
    url = f"http://{_reached(program.host)}:{program.port}{program.ready}"
    starts: set[int] = set()

    def ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=5, trust_env=False).is_success
        return False

    def ended() -> str | None:
        found = supervisor.getProcessInfo(name)
        starts.update({found["start"]} - {0})
        # supervisord starts it again, which may help where the machine was busy.
        if len(starts) <= STARTS and found["statename"] != "FATAL":
            return None
        return f"{name} does not start ({found['spawnerr'] or 'it ends at once'})"

    def wait() -> str | None:
        return await_start(
            name, ready, ended, lambda: supervisor.getProcessInfo(name)["pid"], say, longest=300
        )

    reason = wait()
    if reason and len(starts) == 1:  # it hangs
        say(f"{reason}; starting it once more.")
        supervisor.stopProcess(name)
        supervisor.startProcess(name, False)
        reason = wait()
    if reason:
        raise WorkspaceError(f"{reason}: see {workspace.state / 'logs' / f'{name}.log'}")


# Stopping


def _stop(workspace: Workspace, number: int, ports: Ports | None, say: Say) -> None:
    with suppress(OSError), _supervisor(workspace) as supervisor:
        there = {each["name"]: each["statename"] for each in supervisor.getAllProcessInfo()}
        for name in STOP_SECONDS:
            if there.get(name, "STOPPED") not in ("STOPPED", "EXITED", "FATAL"):
                say(f"Stopping {name}.")
                supervisor.stopProcess(name)
            if name == "worker" and ports:
                # The next `up` does what cannot be done now.
                with suppress(httpx.HTTPError, WorkspaceError):
                    _free_runs(workspace, ports)
        supervisor.shutdown()
    deadline = time.monotonic() + sum(STOP_SECONDS.values())
    while not _gone(number):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)  # and with it all that it started
        time.sleep(0.1)
    (_folder(workspace) / "addresses.json").unlink(missing_ok=True)


def _free_runs(workspace: Workspace, ports: Ports) -> None:
    """Schedule again, for when there is a worker, the workspace's runs whose processes ended with the platform."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Scheduled

    from ayeaye.flows.deploy import ids, read

    at_work = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with temporary_settings({PREFECT_API_URL: ports.prefect_api}), get_client(sync_client=True) as client:
        # Those of no deployment are the command line's, those of another workspace another worker's.
        ours = FlowRunFilterDeploymentId(any_=ids(client, workspace, read(workspace)["deployments"]))
        wanted = FlowRunFilter(state=FlowRunFilterState(type=at_work), deployment_id=ours)
        for run in client.read_flow_runs(flow_run_filter=wanted):
            client.set_flow_run_state(run.id, Scheduled(message=STOPPED), force=True)


def _gone(number: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(number, os.WNOHANG)  # where it is a child of ours it stays until it is waited for
    return not alive(number)


# supervisord


def _folder(workspace: Workspace) -> Path:
    return workspace.state / "platform"


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """No other `up` or `down` of this workspace is at work."""
    folder = _folder(workspace)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        yield


@contextmanager
def _supervisor(workspace: Workspace) -> Iterator[Any]:
    """Its remote interface; raises OSError where it is not running."""
    from xmlrpc.client import ServerProxy

    from supervisor.xmlrpc import SupervisorTransport

    descriptor = os.open(_folder(workspace), os.O_RDONLY | os.O_DIRECTORY)
    try:
        address = f"unix:///proc/self/fd/{descriptor}/supervisor.sock"
        transport = SupervisorTransport(None, None, address)
        yield ServerProxy(f"http://{HOST}", transport=transport).supervisor
    finally:
        os.close(descriptor)


def _number(workspace: Workspace) -> int | None:
    """Its process, where it runs."""
    try:
        with _supervisor(workspace) as supervisor:
            return int(supervisor.getPID())
    except OSError:
        return None
