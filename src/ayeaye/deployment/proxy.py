"""HAProxy before the Bentos: one address for clients, while what answers behind it changes.

Bentos stand in numbered slots. A slot that is opened gets requests; one that is drained gets no new ones and keeps
those it has. Clients keep their connections through all of it. Towards a Bento every request has a connection of
its own: none can be written to a connection that the Bento is closing at that moment, and what it has left to
answer can be counted. A connection that cannot be made is tried again, since nothing was sent; a request that was
sent never is, as it may have changed something.

A challenger has a slot and an address of its own, where the service sends its copies; nothing of it gets to clients.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from ayeaye.core.errors import ReleaseError
from ayeaye.core.processes import await_start, claimed_folder, remove_unclaimed, start_any, stop
from ayeaye.packaging.server import CLIENT_HEADER

SLOTS = 4
SHADOW = SLOTS  # the challenger's
_BACKEND, _SHADOWS = "bentos", "shadow"
_SOCKETS = "ayeaye-proxy-"
_ANSWER_SECONDS = 5.0
# The service itself bounds a request's time (`serve.timeout`, an hour at most); the proxy only outlasts it.
_LONGEST = 3660
# What is no HTTP at all it answers in words of its own, as uvicorn does.
_FAULTS = {
    500: ("Internal Server Error", "a fault of the proxy: see the service's log"),
    502: ("Bad Gateway", "the service broke off: try again"),
    503: ("Service Unavailable", "the service is not ready: try again"),
    504: ("Gateway Timeout", "the service did not answer in time: try again"),
}
_CONFIG = """# Written by `ayeaye serve`, anew at each start.
global
    nbthread 1
    noreuseport
    fd-hard-limit 20000
    tune.bufsize 131072
    stats socket {socket} mode 600 level admin

defaults
    mode http
    option http-server-close
    option redispatch 1
    option disable-h2-upgrade
    retries 3
    retry-on conn-failure
    timeout connect 2s
    timeout http-request 60s
    timeout http-keep-alive 60s
    timeout client {longest}s
    timeout server {longest}s
{faults}

frontend service
    bind {host}:{port}
    http-request set-header {header} %[src]
    default_backend {backend}

backend {backend}
{slots}
"""
_CONFIG_SHADOW = """
frontend copies
    bind 127.0.0.1:{port}
    http-request set-header {header} %[src]
    default_backend {backend}

backend {backend}
    retries 0
{slots}
"""


def installed() -> str | None:
    """The program, where it is installed."""
    # Debian puts it where only root looks.
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/sbin")


class Proxy:
    """A running HAProxy; `folder` is for its configuration, `copies` the port where a challenger answers, if there is
    to be one. It dies with the thread that started it.

    Raises ReleaseError where it does not start or does not do as it is told.
    """

    def __init__(self, program: str, folder: Path, host: str, port: int, copies: int | None = None) -> None:
        self._program, self._folder, self._host, self._port = program, folder, host, port
        self.copies = copies
        self._ports: dict[int, int] = {}  # of open slots
        remove_unclaimed(_SOCKETS)
        # Not in the workspace: the path of a socket is short, and nobody can copy one.
        self._left = ExitStack()
        self._private = self._left.enter_context(claimed_folder(_SOCKETS))
        self._socket = self._private / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, with the slots as they were where it runs no more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "haproxy.cfg", self._folder / "haproxy.log"
        config.write_text(self._config())
        with log.open("wb") as output:
            self._process = process = start_any(
                [self._program, "-db", "-f", str(config)], env=os.environ, cwd=self._folder, log=output
            )
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

    def _answers(self) -> bool:
        with suppress(OSError):
            self._ask("show info")
            return True
        return False

    def _config(self) -> str:
        for status, (name, error) in _FAULTS.items():
            (self._folder / f"{status}.http").write_bytes(fault(status, name, error))
        config = _CONFIG.format(
            socket=_quoted(self._socket),
            longest=_LONGEST,
            host=self._host,
            port=self._port,
            header=CLIENT_HEADER,
            backend=_BACKEND,
            faults="\n".join(
                f"    errorfile {status} {_quoted(self._folder / f'{status}.http')}" for status in _FAULTS
            ),
            slots="\n".join(map(self._slot, range(SLOTS))),
        )
        if self.copies is not None:
            config += _CONFIG_SHADOW.format(
                port=self.copies, header=CLIENT_HEADER, backend=_SHADOWS, slots=self._slot(SHADOW)
            )
        return config

    def _slot(self, slot: int) -> str:
        disabled = "" if slot in self._ports else " disabled"
        return f"    server {slot} 127.0.0.1:{self._ports.get(slot, 1)}{disabled}"

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
        """How many requests the Bento in a slot still has."""
        for row in csv.DictReader(io.StringIO(self._ask("show stat").lstrip("# "))):
            if f"{row['pxname']}/{row['svname']}" == _name(slot):
                return int(row["scur"]) + int(row["qcur"])
        raise ReleaseError(f"HAProxy knows no slot {slot}: start `ayeaye serve` again")

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

    def _set(self, slot: int, state: str) -> None:
        if said := self._ask(f"set server {_name(slot)} state {state}").strip():
            raise ReleaseError(f"HAProxy does not set slot {slot} to {state} ({said})")

    def _ask(self, command: str) -> str:
        """What the runtime interface answers; raises OSError where it does not."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def _name(slot: int) -> str:
    return f"{_SHADOWS if slot == SHADOW else _BACKEND}/{slot}"


def fault(status: int, name: str, error: str) -> bytes:
    """An answer in the form of the service's own, with the headers that all of them carry."""
    body = json.dumps({"error": error}).encode()
    again = "Retry-After: 1\r\n" if status in (503, 504) else ""
    head = (
        f"HTTP/1.1 {status} {name}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{again}"
        "Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n"
        "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _quoted(path: Path) -> str:
    """As HAProxy's configuration reads it back."""
    return "'" + str(path).replace("'", "'\\''") + "'"
