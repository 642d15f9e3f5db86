"""HAProxy as it is told: who asks, what it answers itself, and where requests go while slots change."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from ayeaye.core.errors import ReleaseError
from ayeaye.core.processes import free_port
from ayeaye.deployment import proxy
from ayeaye.deployment.proxy import Proxy
from ayeaye.packaging.server import CLIENT_HEADER
from ayeaye.service.security import HEADERS

PROGRAM = proxy.installed()

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="HAProxy is not installed")


class Backend:
    """A server that answers with its name, and keeps the heads of what it was asked."""

    def __init__(self, name: str) -> None:
        heads = self.heads = list[dict[str, str]]()
        self.versions = list[str]()
        versions = self.versions
        self.release = release = threading.Event()
        self.release.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                heads.append({key.lower(): value for key, value in self.headers.items()})
                versions.append(self.request_version)
                release.wait(20)
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def backends() -> Iterator[tuple[Backend, Backend]]:
    made = Backend("old"), Backend("new")
    yield made
    for each in made:
        each.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Proxy, str]]:
    """A proxy in a folder whose name wants to be quoted, and its address."""
    assert PROGRAM
    port = free_port()
    made = Proxy(PROGRAM, tmp_path / "it's here", "127.0.0.1", port)
    try:
        made.start()
        yield made, f"http://127.0.0.1:{port}"
    finally:
        made.remove()


def test_without_a_service_it_says_so_in_the_services_own_form(running: tuple[Proxy, str]) -> None:
    answer = httpx.get(f"{running[1]}/readyz", trust_env=False)
    assert answer.status_code == 503
    assert answer.json() == {"error": "the service is not ready: try again"}
    assert answer.headers["Retry-After"] == "1"
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    with socket.create_connection(("127.0.0.1", int(running[1].rpartition(":")[2]))) as connection:
        connection.sendall(b"rubbish\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_who_asks_is_told_by_the_proxy_alone(
    running: tuple[Proxy, str], backends: tuple[Backend, Backend]
) -> None:
    made, url = running
    made.open(0, backends[0].port)
    forged = [
        (CLIENT_HEADER, "192.0.2.1"),
        (CLIENT_HEADER.lower(), "192.0.2.2"),
        ("X-Forwarded-For", "192.0.2.3"),
    ]
    assert httpx.get(url, headers=forged, trust_env=False).text == "old"
    head = backends[0].heads[0]
    assert head[CLIENT_HEADER.lower()] == "127.0.0.1"
    assert head["x-forwarded-for"] == "192.0.2.3"
    # By its version the service knows a proxy that says nothing of itself.
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert backends[0].versions == ["HTTP/1.1", "HTTP/1.0"]


def test_a_slot_that_is_drained_answers_what_it_has_and_gets_no_more(
    running: tuple[Proxy, str], backends: tuple[Backend, Backend]
) -> None:
    (made, url), (old, new) = running, backends
    made.open(0, old.port)
    with ThreadPoolExecutor() as threads, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/").text == "old"
        old.release.clear()
        late = threads.submit(httpx.get, url, trust_env=False)
        until = time.monotonic() + 10
        while made.unanswered(0) != 1 and time.monotonic() < until:
            time.sleep(0.01)
        made.open(3, new.port)
        made.drain(0)
        assert [client.get("/").text for _ in range(5)] == ["new"] * 5  # over the connection from before
        assert (made.unanswered(0), made.unanswered(3)) == (1, 0)
        old.release.set()
        assert late.result().text == "old"
        assert made.unanswered(0) == 0
    made.close(3)
    assert httpx.get(url, trust_env=False).status_code == 503


def test_it_comes_back_with_its_slots_as_they_were(
    running: tuple[Proxy, str], backends: tuple[Backend, Backend]
) -> None:
    (made, url), (old, new) = running, backends
    made.open(0, old.port)
    made.open(1, new.port)
    made.drain(0)
    made.kill()
    assert not made.alive
    made.start()
    assert {httpx.get(url, trust_env=False).text for _ in range(4)} == {"new"}


def test_it_ends_when_all_is_answered(running: tuple[Proxy, str], backends: tuple[Backend, Backend]) -> None:
    (made, url), (old, _) = running, backends
    made.open(0, old.port)
    old.release.clear()
    with ThreadPoolExecutor() as threads:
        late = threads.submit(httpx.get, url, trust_env=False)
        while not old.heads:
            time.sleep(0.01)
        made.finish()
        time.sleep(0.3)
        assert made.alive
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
        old.release.set()
        assert late.result().text == "old"
    until = time.monotonic() + 5
    while made.alive and time.monotonic() < until:
        time.sleep(0.01)
    assert not made.alive


def test_its_interface_is_for_its_owner_alone_and_gone_in_the_end(running: tuple[Proxy, str]) -> None:
    made, _ = running
    path = made._socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    made.remove()
    assert not path.parent.exists()


def test_copies_go_to_the_challenger_and_nothing_of_it_to_clients(
    tmp_path: Path, backends: tuple[Backend, Backend]
) -> None:
    assert PROGRAM
    port, copies = free_port(), free_port()
    made = Proxy(PROGRAM, tmp_path, "127.0.0.1", port, copies)
    try:
        made.start()
        url, aside = (f"http://127.0.0.1:{each}" for each in (port, copies))
        assert httpx.get(aside, trust_env=False).status_code == 503
        made.open(0, backends[0].port)
        made.open(proxy.SHADOW, backends[1].port)
        assert {httpx.get(url, trust_env=False).text for _ in range(6)} == {"old"}
        assert httpx.get(aside, trust_env=False).text == "new"
    finally:
        made.remove()


def test_a_taken_port_raises_meaningful_error(tmp_path: Path) -> None:
    assert PROGRAM
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        made = Proxy(PROGRAM, tmp_path, "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(
            ReleaseError, match=r"HAProxy does not start \(.*Address already in use.*serve.proxy=none"
        ):
            made.start()
        made.remove()
