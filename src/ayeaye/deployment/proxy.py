"""HAProxy before the Bentos: one address for clients, while what answers behind it changes; see haproxy.cfg.j2."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from ayeaye.core.errors import ReleaseError
from ayeaye.core.processes import await_start, claimed_folder, remove_unclaimed, start_any, stop
from ayeaye.deployment.plan import SHADOW, SLOTS
from ayeaye.packaging.server import CLIENT_HEADER
from ayeaye.reporting.report import templates

_FOLDER = "ayeaye-proxy-"
_ANSWER_SECONDS = 5.0


def installed() -> str | None:
    """Return the program, where it is installed."""
    # Debian puts it where only root looks.
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/sbin")


class Proxy:
    """A running HAProxy; it dies with the thread that started it.

    `folder` is for its configuration, `copies` the port where a challenger answers, if there is to be one. Raises
    ReleaseError where it does not start or does not do as it is told.
    """

    def __init__(self, program: str, folder: Path, host: str, port: int, copies: int | None = None) -> None:
        self._program, self._folder, self._host, self._port = program, folder, host, port
        self.copies = copies
        self._ports: dict[int, int] = {}  # of open slots
        remove_unclaimed(_FOLDER)
        # Not in the workspace: the path of a socket is short, and nobody can copy one.
        self._left = ExitStack()
        self._socket = self._left.enter_context(claimed_folder(_FOLDER)) / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, with the slots as they were where it runs no more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "haproxy.cfg", self._folder / "haproxy.log"
        config.write_text(self._config())
        command = [self._program, "-db", "-f", str(config)]
        with log.open("wb") as output:
            self._process = process = start_any(command, env=os.environ, cwd=self._folder, log=output)
        ended = await_start(
            "HAProxy", self._answers, lambda: None if self.alive else "it ends at once", lambda: process.pid
        )
        if ended is None:
            return
        said = [line for line in log.read_text(errors="replace").splitlines() if "[ALERT]" in line]
        self.kill()
        raise ReleaseError(
            f"HAProxy does not start ({said[0] if said else ended}): see {log}, or set serve.proxy=none"
        )

    def open(self, slot: int, port: int) -> None:
        """Give requests to what listens on a port of this machine."""
        self._ports[slot] = port
        self._ask(f"set server {_name(slot)} addr 127.0.0.1 port {port}")
        self._set(slot, "ready")

    def drain(self, slot: int) -> None:
        """Give it no more requests, and let it answer those that it has."""
        self._ports.pop(slot, None)
        self._set(slot, "drain")

    def close(self, slot: int) -> None:
        """Give it nothing: what was to be answered there is not answered any more."""
        self._ports.pop(slot, None)
        self._set(slot, "maint")

    def unanswered(self, slot: int) -> int:
        """Return how many requests the Bento in a slot still has."""
        rows = csv.DictReader(io.StringIO(self._ask("show stat").lstrip("# ")))
        row = next(row for row in rows if f"{row['pxname']}/{row['svname']}" == _name(slot))
        return int(row["scur"]) + int(row["qcur"])

    def finish(self) -> None:
        """Take no more connections, and end when all requests that are there have been answered."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it at once; `start` brings it back with the slots as they should be."""
        if self._process is not None:
            stop(self._process, 0)

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        self._left.close()

    def _config(self) -> str:
        environment = templates(Path(__file__).parent, html=False)
        # As HAProxy's configuration reads it back.
        environment.filters["quoted"] = lambda path: "'" + str(path).replace("'", "'\\''") + "'"
        return environment.get_template("haproxy.cfg.j2").render(
            socket=self._socket,
            host=self._host,
            port=self._port,
            copies=self.copies,
            client_header=CLIENT_HEADER,
            slots=SLOTS,
            ports=self._ports,
        )

    def _answers(self) -> bool:
        with suppress(OSError):
            self._ask("show info")
            return True
        return False

    def _set(self, slot: int, state: str) -> None:
        if said := self._ask(f"set server {_name(slot)} state {state}").strip():
            raise ReleaseError(f"HAProxy does not set slot {slot} to {state} ({said})")

    def _ask(self, command: str) -> str:
        """Return what the runtime interface answers; raises OSError where it does not."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def _name(slot: int) -> str:
    return f"{'shadow' if slot == SHADOW else 'bentos'}/{slot}"
