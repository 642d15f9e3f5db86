"""A PostgreSQL server of the tests' own, from the machine's packages."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import shared
import workspaces
from sqlalchemy import URL

from ayeaye.core.processes import free_port

PASSWORD = "p@ss:w/rd%41"  # one that an address cannot hold as it is
PROGRAMS = "/usr/lib/postgresql/*/bin"
MISSING = (
    f"PostgreSQL is left out: no initdb in {PROGRAMS} or on PATH "
    "(on Debian, apt-get install --no-install-recommends postgresql)"
)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server of the tests' own."""

    port: int

    def url(self, name: str) -> URL:
        return URL.create("postgresql+psycopg", "ayeaye", PASSWORD, "127.0.0.1", self.port, name)

    def create(self, name: str) -> URL:
        """The address of a new empty database, whose name begins so."""
        name = f"{name}_{uuid.uuid4().hex[:8]}"
        url = self.url("postgres")
        with psycopg.connect(
            host=url.host,
            port=self.port,
            user=url.username,
            password=PASSWORD,
            dbname=url.database,
            autocommit=True,
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


class Proxy:
    """Between a client and a port of this machine; while `flowing` is not set nothing passes, and nothing is closed."""

    def __init__(self, port: int) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self._to = port
        self._open = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._open[0].getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._open[0].accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                self.flowing.wait()
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.flowing.set()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def server() -> Server:
    """A server on loopback with an empty data folder, shared by all workers, for as long as the tests run."""
    found = sorted(Path("/").glob(f"{PROGRAMS}/initdb".lstrip("/")))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip(MISSING)

    def begin(folder: Path) -> int:
        user = _unprivileged(folder)
        (folder / "password").write_text(PASSWORD)
        data, port = folder / "data", free_port()
        create = ["--auth=scram-sha-256", "--username=ayeaye", f"--pwfile={folder / 'password'}", "--no-sync"]
        subprocess.run(
            [*user, initdb, *create, "--encoding=UTF8", "--no-locale", "-D", data],
            check=True,
            capture_output=True,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "200",
        }
        command = [*user, Path(initdb).resolve().with_name("postgres"), "-D", data]
        command += [f"--{name}={value}" for name, value in settings.items()]
        shared.keep("postgres", command, os.environ, folder)
        workspaces.wait_for(lambda: _answers(Server(port)), 30, "PostgreSQL does not answer")
        return port

    return Server(shared.once("postgres", begin)[1])


def _unprivileged(folder: Path) -> list[str]:
    """How a program is run that dies with this process; as root, by another user, who is given the folder."""
    command = ["setpriv", "--pdeathsig", "SIGINT"]
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        command += [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    return command


def _answers(server: Server) -> bool:
    try:
        server.create("answers")
    except psycopg.OperationalError:
        return False
    return True
