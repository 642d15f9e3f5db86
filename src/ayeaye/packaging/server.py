"""Running Bentos: `bentoml serve` as a child process, or in place of this process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from ayeaye.core.errors import ReleaseError, SmokeTestFailed
from ayeaye.core.params import Serve
from ayeaye.core.paths import resolved
from ayeaye.core.processes import await_start, free_port, start
from ayeaye.packaging.bento import PROGRAM, BentoStore, bentoml_environment, last_error

CLIENT_HEADER = "X-Ayeaye-Client"  # the address of the client, as the proxy tells it to the service
# Variables that a person sets for the service; they go before params.yaml.
_GIVEN = ("AYEAYE_DATABASE", "AYEAYE_TOKEN", "AYEAYE_TOKEN_FILE", "AYEAYE_RATE", "AYEAYE_PREDICTIONS")


class BentoServer:
    """A child process that serves a Bento on a port of this machine; it dies with this process.

    The end of its output is kept for messages; with `echo`, all of it goes on to standard error, too.
    """

    def __init__(self, tag: str, process: subprocess.Popen[bytes], port: int, echo: bool) -> None:
        self.tag, self.process, self.port = tag, process, port
        self.url = f"http://127.0.0.1:{port}"
        self._echo = echo
        self._lines: deque[bytes] = deque(maxlen=200)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def launch(
        cls,
        store: BentoStore,
        tag: str,
        run: Path,
        environment: Mapping[str, str],
        *,
        aside: bool = False,
        echo: bool = True,
    ) -> BentoServer:
        """Start a Bento on a free port, with the folder `run` to itself.

        `aside` leaves the cores to others. Call it from the main thread; raises ReleaseError where the Bento is
        not there.
        """
        folder, port = store.require(tag), free_port()
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        process = start(
            [*(("nice", "-n", "15") if aside else ()), *_command(folder, "127.0.0.1", port)],
            cwd=run,
            env={**bentoml_environment(run), **environment},
            log=subprocess.PIPE,
            hidden=[PROGRAM],
        )
        return cls(tag, process, port, echo)

    def wait_until_ready(self, client: httpx.Client, say: Callable[[str], None] = lambda text: None) -> None:
        """Raises SmokeTestFailed where the service does not start."""

        def ready() -> bool:
            with suppress(httpx.HTTPError):
                return client.get("/readyz", timeout=5).status_code == 200
            return False

        def ended() -> str | None:
            # BentoML starts a worker that dies at its start again for ever.
            failed = self.process.poll() is not None or b"Application startup failed" in self._output()
            return f"{self.tag} does not start" if failed else None

        if reason := await_start(self.tag, ready, ended, lambda: self.process.pid, say):
            raise SmokeTestFailed(f"{reason}{self.reason()}")

    def reason(self) -> str:
        """Return the last error that it printed, to be put behind a sentence."""
        if self.process.poll() is not None:
            self._reader.join(1)
        text = self._output().decode(errors="replace")
        return f": {last_error(text)}" if text.strip() else ""

    def _output(self) -> bytes:
        return b"".join(self._lines.copy())

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.append(line)
            # The service must not stand still before a full pipe because a terminal is gone.
            with suppress(OSError, ValueError):
                if self._echo:
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()


def exec_server(
    store: BentoStore, tag: str, settings: Serve, say: Callable[[str], None] = lambda text: None
) -> None:
    """Become the server of a Bento: this process is replaced and does not return. Port 0 is any free one."""
    folder = store.require(tag)
    host, port = listening_address(settings)
    run = store.home.resolve() / ".run" / str(port)
    run.mkdir(parents=True, exist_ok=True)
    environment = bentoml_environment(run) | service_environment(settings)
    say(f"Serving {tag} on http://{settings.host}:{port} (POST /classify, field image).")
    os.chdir(run)
    sys.stdout.flush()
    sys.stderr.flush()
    command = _command(folder, host, port)
    os.execve(command[0], command, environment)  # noqa: S606


def service_environment(settings: Serve) -> dict[str, str]:
    """Return what a service is told of where it runs; variables that are set go before params.yaml."""
    told = {
        # Absolute, since the service runs in a folder of its own.
        "AYEAYE_STATE": str(resolved(os.environ.get("AYEAYE_STATE") or settings.state)),
        "AYEAYE_DATABASE": settings.database.get_secret_value() if settings.database else "",
        "AYEAYE_TOKEN_FILE": settings.token_file or "",
        "AYEAYE_WORKERS": str(settings.workers),
    }
    return told | {name: os.environ[name] for name in _GIVEN if name in os.environ}


def listening_address(settings: Serve) -> tuple[str, int]:
    """Return address and port to listen on, port 0 being any free one; raises ReleaseError if they are taken."""
    port = settings.port or free_port()
    try:
        # BentoML wants a number where a person gives a name.
        host = str(socket.getaddrinfo(settings.host, None, socket.AF_INET)[0][4][0])
    except OSError:
        raise ReleaseError(
            f"serve.host {settings.host} has no address: use 127.0.0.1, or 0.0.0.0 for every one"
        ) from None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ReleaseError(
                f"{settings.host}:{port} cannot be listened on ({error.strerror}): stop what does, or use --port"
            ) from None
    return host, port


def _command(folder: Path, host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", str(folder), "--host", host, "--port", str(port)]
