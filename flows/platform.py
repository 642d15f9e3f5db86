"""The whole platform of one workspace on one machine, under supervisord.

    prefect   the Prefect server and its page; schedules, alerts
    mlflow    the MLflow server: the page of the workspace's own registry (not where release.tracking is elsewhere)
    worker    runs what the Prefect server says is due
    service   the champion's Bento, once there is a champion

All of it listens on loopback alone, but for the service where `serve.host` says otherwise, keeps its state and its
logs in the workspace, starts again when it fails, and dies with supervisord, however that ends. The state lies in
`.ayeaye/platform`: supervisord.conf (from supervisord.conf.j2), supervisord.pid, supervisor.sock, addresses.json.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from filelock import FileLock

from ayeaye.core.environment import of_own_prefect
from ayeaye.core.errors import WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import sqlite_uri
from ayeaye.core.processes import alive, await_start, guarded
from ayeaye.core.workspace import Workspace
from ayeaye.flows import alerts, deploy
from ayeaye.flows.prefect_api import PrefectApi
from ayeaye.release import promotion
from ayeaye.release.registry import shown
from ayeaye.reporting.report import templates

Say = Callable[[str], None]
HOST = "127.0.0.1"
STARTS = 2  # of a part, until `up` gives it up
STOP_SECONDS = 120  # until supervisord is killed
STOPPED = "Stopped with the platform; goes on when that is up again."
READY = {"prefect": "/api/health", "mlflow": "/health", "worker": "/health", "service": "/readyz"}


@dataclass(frozen=True)
class Ports:
    """Where the parts listen."""

    prefect: int = 4200
    worker: int = 4201
    mlflow: int = 5000
    service: int = 3000


@dataclass(frozen=True)
class Running:
    """A platform that is up: by part, what a browser opens (of the worker, whether it is well), and its ports."""

    addresses: dict[str, str]
    ports: Ports

    @property
    def api(self) -> PrefectApi:
        return PrefectApi.own(f"http://{HOST}:{self.ports.prefect}/api")

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self), indent=2).encode())

    @classmethod
    def find(cls, workspace: Workspace) -> Running | None:
        """Return the platform of a workspace, where it is up."""
        if _Supervisor(workspace).pid() is None:
            return None
        try:
            found = json.loads((_folder(workspace) / "addresses.json").read_bytes())
        except FileNotFoundError:
            return None
        return cls(found["addresses"], Ports(**found["ports"]))

    @classmethod
    def planned(cls, workspace: Workspace, ports: Ports) -> Running:
        """Return the platform that `up` would start."""
        host = workspace.params.serve.host
        addresses = {
            "prefect": f"http://{HOST}:{ports.prefect}",
            "mlflow": shown(_elsewhere(workspace, ports) or f"http://{HOST}:{ports.mlflow}"),
            "service": f"http://{HOST if host == '0.0.0.0' else host}:{ports.service}",  # noqa: S104
            "worker": f"http://{HOST}:{ports.worker}/health",
        }
        return cls(addresses, ports)


def up(workspace: Workspace, ports: Ports, say: Say) -> Running:
    """Start what is not running yet, wait until all of it answers, and deploy.

    Raises WorkspaceError where a port is taken or a part does not start; what was started is then stopped again.
    A service that is not ready in time is told of alone: all else is of use without it, and it is tried on.
    """
    wanted = Running.planned(workspace, ports)
    with _alone(workspace):
        if found := Running.find(workspace):
            if other := [
                f"{name} at {address}, not {wanted.addresses[name]}"
                for name, address in found.addresses.items()
                if address != wanted.addresses[name]
            ]:
                raise WorkspaceError(
                    f"the platform of {workspace.root} is up with {', '.join(other)}: `ayeaye down` first"
                )
            _bring_up(workspace, found, say)
            return found
        supervisor = _Supervisor(workspace)
        if pid := supervisor.pid():
            _stop(workspace, pid, wanted.api, say)  # what an `up` that was killed left half done
        require_free(workspace, ports)
        _make_registry(workspace, ports)
        process = supervisor.launch(ports)
        try:
            _bring_up(workspace, wanted, say)
            wanted.save(_folder(workspace) / "addresses.json")
            return wanted
        except BaseException:
            _stop(workspace, process.pid, wanted.api, say)
            raise


def down(workspace: Workspace, say: Say) -> bool:
    """Stop all of it, the worker before the server it talks to; returns whether there was anything to stop."""
    with _alone(workspace):
        pid, found = _Supervisor(workspace).pid(), Running.find(workspace)
        if pid is None:
            return False
        _stop(workspace, pid, found.api if found else None, say)
        return True


def programs(workspace: Workspace, ports: Ports) -> list[str]:
    """Return the parts that `up` starts, in that order."""
    return [name for name in READY if name != "mlflow" or not _elsewhere(workspace, ports)]


def require_free(workspace: Workspace, ports: Ports) -> None:
    """Raises WorkspaceError where a port is taken."""
    for name in programs(workspace, ports):
        host, port = workspace.params.serve.host if name == "service" else HOST, getattr(ports, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                other = " or mend serve.host," if name == "service" else ""
                raise WorkspaceError(
                    f"port {port} of the {name} cannot be listened on at {host} ({error.strerror}): "
                    f"give another one with --{name}-port,{other} or stop what listens there"
                ) from None


def _elsewhere(workspace: Workspace, ports: Ports) -> str | None:
    """The address of an MLflow server that is not the platform's own."""
    tracking = workspace.params.release.tracking or ""
    parts = urlsplit(tracking)
    own = parts.hostname in (HOST, "localhost") and parts.port == ports.mlflow
    return tracking if parts.scheme in ("http", "https") and not own else None


def _make_registry(workspace: Workspace, ports: Ports) -> None:
    """The registry's tables in one piece, which a server that is killed while it makes them would not leave."""
    there = (workspace.state / "mlflow" / "mlflow.db").is_file()
    if not _elsewhere(workspace, ports) and not workspace.params.release.tracking and not there:
        promotion.registry_of(workspace).versions()


def _bring_up(workspace: Workspace, wanted: Running, say: Say) -> None:
    supervisor, parts = _Supervisor(workspace), programs(workspace, wanted.ports)
    for name in parts:
        if name in ("prefect", "mlflow"):
            supervisor.await_part(name, wanted, say)
    deploy.deploy(workspace, wanted.api, say)
    supervisor.await_part("worker", wanted, say)
    if promotion.record_of(workspace).state().champion is None:
        supervisor.control("start", "service")  # it waits
        say("The service waits for the first champion: prefect deployment run retrain/weekly-retrain")
        return
    try:
        supervisor.await_part("service", wanted, say)
    except WorkspaceError as error:
        say(f"The service is not ready yet, and is tried again: {error}")


def _stop(workspace: Workspace, pid: int, api: PrefectApi | None, say: Say) -> None:
    supervisor = _Supervisor(workspace)
    # A worker whose server is gone hangs.
    for name in ("worker", "service", "mlflow", "prefect"):
        if supervisor.state(name) in ("STARTING", "RUNNING", "BACKOFF", "STOPPING"):
            say(f"Stopping {name}.")
            supervisor.control("stop", name)
        if name == "worker" and api:
            # The next `up` does what cannot be done now.
            with suppress(httpx.HTTPError, WorkspaceError):
                free_runs(workspace, api)
    supervisor.control("shutdown")
    deadline = time.monotonic() + STOP_SECONDS
    while not _gone(pid):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # and with it all that it started
        time.sleep(0.1)
    (_folder(workspace) / "addresses.json").unlink(missing_ok=True)


def free_runs(workspace: Workspace, api: PrefectApi) -> None:
    """Schedule again, for when there is a worker, the workspace's runs whose processes ended with the platform."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Scheduled

    ended = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with api.client() as client:
        # Those of no deployment are the command line's, those of another workspace another worker's.
        names = [each.name for each in deploy.deployments(workspace)]
        ours = FlowRunFilterDeploymentId(any_=deploy.ids(client, workspace, names))
        wanted = FlowRunFilter(state=FlowRunFilterState(type=ended), deployment_id=ours)
        for run in client.read_flow_runs(flow_run_filter=wanted):
            client.set_flow_run_state(run.id, Scheduled(message=STOPPED), force=True)


def _gone(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # where it is a child of ours it stays until it is waited for
    return not alive(pid)


def _folder(workspace: Workspace) -> Path:
    return workspace.state / "platform"


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """No other `up` or `down` of this workspace is at work."""
    _folder(workspace).mkdir(parents=True, exist_ok=True)
    with FileLock(_folder(workspace) / "lock"):
        yield


@dataclass(frozen=True)
class _Supervisor:
    """supervisord of a workspace, controlled by `supervisorctl`."""

    workspace: Workspace

    def launch(self, ports: Ports) -> subprocess.Popen[bytes]:
        """Start it, and what it starts by itself; raises WorkspaceError where it does not start."""
        folder = _folder(self.workspace)
        for needed in (folder, self.workspace.state / "logs", self.workspace.state / "prefect"):
            needed.mkdir(parents=True, exist_ok=True)
        (folder / "addresses.json").unlink(missing_ok=True)
        write_atomic(folder / "supervisord.conf", self._configuration(ports).encode())
        process = subprocess.Popen(
            # Without -E it would itself be guarded, and die with this command.
            [sys.executable, "-E", "-m", "supervisor.supervisord", "-n", "-c", "supervisord.conf"],
            env=guarded(self._environment(ports)),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def ended() -> str | None:
            code = process.poll()
            return None if code is None else f"supervisord ended with code {code}"

        if reason := await_start(
            "supervisord", lambda: self.pid() == process.pid, ended, lambda: process.pid
        ):
            raise WorkspaceError(f"{reason}: see {self.workspace.state / 'logs' / 'supervisord.log'}")
        return process

    def control(self, *words: str) -> str:
        """Return what `supervisorctl` answers to a command."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", "supervisord.conf", *words]
        done = subprocess.run(command, cwd=_folder(self.workspace), capture_output=True, text=True)
        return done.stdout

    def pid(self, name: str = "") -> int | None:
        """Return its own process, or that of a part, where it runs."""
        if not (_folder(self.workspace) / "supervisor.sock").exists():
            return None
        pid = self.control("pid", *filter(None, [name])).strip()
        return int(pid) if pid.isdecimal() and pid != "0" else None

    def state(self, name: str) -> str:
        """Return the state of a part in supervisord's words, or nothing where it does not run."""
        words = self.control("status", name).split()
        return words[1] if len(words) > 1 and words[0] == name else ""

    def await_part(self, name: str, platform: Running, say: Say) -> None:
        """Start a part where it is not running, and wait until it answers; raises WorkspaceError."""
        say(f"Waiting for {name}.")
        base = urlsplit(platform.addresses[name])
        url = f"http://{base.hostname}:{getattr(platform.ports, name)}{READY[name]}"
        pids, looked, failures = list[int](), 0.0, 0

        def ready() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.get(url, timeout=5, trust_env=False).is_success
            return False

        def ended() -> str | None:
            """supervisord starts it again, which may help where the machine was busy."""
            nonlocal looked, failures
            if time.monotonic() < looked + 1:
                return None
            looked = time.monotonic()
            if (pid := self.pid(name)) is None:
                failures += 1
            elif pid not in pids:
                pids.append(pid)
            gave_up = len(pids) > STARTS or failures > 2 * STARTS
            return f"{name} does not start ({self.control('status', name).strip()})" if gave_up else None

        def wait() -> str | None:
            return await_start(name, ready, ended, lambda: pids[-1] if pids else 0, say, longest=300)

        self.control("start", name)
        reason = wait()
        if reason and len(pids) == 1:  # it hangs
            say(f"{reason}; starting it once more.")
            self.control("restart", name)
            reason = wait()
        if reason:
            raise WorkspaceError(f"{reason}: see {self.workspace.state / 'logs' / f'{name}.log'}")

    def _configuration(self, ports: Ports) -> str:
        template = templates(Path(__file__).parent, html=False).get_template("supervisord.conf.j2")
        return template.render(
            # A % begins an expansion of supervisord's.
            python=shlex.quote(sys.executable).replace("%", "%%"),
            host=HOST,
            ports=ports,
            pool=shlex.quote(deploy.deployments(self.workspace)[0].pool).replace("%", "%%"),
            programs=programs(self.workspace, ports),
        )

    def _environment(self, ports: Ports) -> Mapping[str, str]:
        """Of every part; a person's own settings of Prefect's and MLflow's stores win, see docs."""
        tracking, mlflow = self.workspace.params.release.tracking, self.workspace.state / "mlflow"
        sqlite = sqlite_uri(mlflow / "mlflow.db")
        stores = {
            # In the server's memory, its default, leases are lost with it and their slots are taken for ever.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "MLFLOW_ARTIFACTS_DESTINATION": (mlflow / "artifacts").as_uri(),
            "MLFLOW_BACKEND_STORE_URI": sqlite,
        }
        fixed = {
            "AYEAYE_WORKSPACE": str(self.workspace.root),
            "PREFECT_HOME": str(self.workspace.state / "prefect"),
            "PREFECT_API_URL": f"http://{HOST}:{ports.prefect}/api",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST},{HOST}:*,localhost,localhost:*",
        }
        if not tracking or not tracking.startswith("http"):
            # What the flows write to, and nothing else.
            fixed |= dict.fromkeys(
                ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI"), tracking or sqlite
            )
        given = of_own_prefect(self.workspace.environment())
        # The secrets of the alerts lie in Prefect's blocks by the time anything is sent.
        return stores | {name: given[name] for name in given if name not in alerts.SECRETS} | fixed
