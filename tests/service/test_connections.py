"""What a client can do to a connection: send too much of a head, send too slowly, take all there is."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
import services
import uvicorn
from small_bundle import picture
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message
from workspaces import wait_for

from ayeaye.service import connections, uploads
from ayeaye.service.connections import HEAD_BYTES, Bounded
from ayeaye.service.security import HEADERS, Shared
from ayeaye.service.uploads import BodyLimit

START = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
FORM = START + b"Content-Length: 1000\r\n\r\n"


async def length(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


ECHO = BodyLimit(Starlette(routes=[Route("/", length, methods=["POST"])]), lambda path: 1_000_000)


@contextmanager
def listening(app: ASGIApp) -> Iterator[int]:
    """An application behind bounded connections, in this process; gives the port."""
    config = uvicorn.Config(app, port=0, http=Bounded, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, 30, "it does not start")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(port: int | None) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def answer_of(connection: socket.socket, until_closed: bool = True) -> bytes:
    """What is answered, all of it until the connection is closed."""
    answer = b""
    while part := connection.recv(65536):
        answer += part
        if not until_closed:
            break
    return answer


# Heads


def test_a_head_of_the_largest_size_is_read() -> None:
    line = b"X-Long: " + b"x" * (HEAD_BYTES - 200) + b"\r\n"
    with listening(ECHO) as port, connected(port) as connection:
        for _ in range(3):
            connection.sendall(START + line + b"Content-Length: 3\r\n\r\nabc")
            assert answer_of(connection, until_closed=False).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "line", [b"X-Long: " + b"x" * 5_000_000, b"X: y\r\n" * 1_000_000], ids=["one", "many"]
)
def test_a_head_that_is_too_large_is_a_431_and_the_connection_closed(line: bytes) -> None:
    with listening(ECHO) as port, connected(port) as connection:
        sent = 0
        with pytest.raises(OSError):
            for at in range(0, len(line), 50_000):
                connection.sendall((START if not at else b"") + line[at : at + 50_000])
                sent += 50_000
                time.sleep(0.005)
            raise AssertionError("all of it was read")
    assert sent < 1_000_000


def test_a_service_refuses_a_head_that_is_too_large(server: services.Server) -> None:
    with connected(httpx.URL(server.url).port) as connection:
        connection.sendall(START + b"X-Long: " + b"x" * HEAD_BYTES)
        answer = answer_of(connection).decode()
    assert answer.startswith("HTTP/1.1 431 ")
    assert "at most 131,072 bytes are allowed" in answer
    for name, value in HEADERS.items():
        assert f"{name}: {value}\r\n" in answer


def test_what_follows_a_body_is_bounded_too() -> None:
    chunked = START + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    with listening(ECHO) as port, connected(port) as connection, pytest.raises(OSError):
        connection.sendall(chunked)
        for _ in range(500):
            connection.sendall(b"X-Trailer: " + b"x" * 10_000 + b"\r\n")
            time.sleep(0.002)


def test_a_body_in_small_parts_is_read() -> None:
    """Around them is more than a head may be."""
    with listening(ECHO) as port, connected(port) as connection:
        connection.sendall(
            START + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        )
        assert answer_of(connection, until_closed=False).endswith(b"100000")


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("sent", [b"\r\n", START])
def test_a_connection_whose_head_is_not_there_in_time_is_closed(
    sent: bytes, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with listening(ECHO) as port, connected(port) as connection:
        if used:
            connection.sendall(FORM + bytes(1000))
            assert answer_of(connection, until_closed=False)
        began = time.monotonic()
        connection.sendall(sent)
        answer_of(connection)
        assert time.monotonic() - began < 4


def test_a_connection_on_which_nothing_comes_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with listening(ECHO) as port, connected(port) as connection:
        assert answer_of(connection) == b""


def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: Request) -> JSONResponse:
        await asyncio.sleep(1)
        return JSONResponse("there")

    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with listening(Starlette(routes=[Route("/", slow)])) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).json() == "there"


# Bodies


@pytest.mark.parametrize(
    "head", [FORM, START + b"Transfer-Encoding: chunked\r\n\r\n"], ids=["told", "untold"]
)
def test_a_body_that_comes_too_slowly_is_a_408_and_the_connection_closed(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 0.5)
    with listening(ECHO) as port, connected(port) as connection:
        connection.settimeout(0.1)
        connection.sendall(head)
        answer, began = b"", time.monotonic()
        while not answer:
            assert time.monotonic() - began < 10
            connection.sendall(b"1\r\nx\r\n")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"send at least 16 kB a second" in answer
        assert b"connection: close" in answer.lower()


def test_a_body_at_the_least_rate_is_read_whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 0.3)

    def parts() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(4000)
            time.sleep(0.15)

    with listening(ECHO) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/", content=parts(), trust_env=False)
    assert (answer.status_code, answer.json()) == (200, 40_000)


def test_what_the_service_takes_is_not_the_senders_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 0.3)

    async def late(request: Request) -> JSONResponse:
        await asyncio.sleep(0.6)
        got = len(await request.body())
        await asyncio.sleep(0.6)
        return JSONResponse([got, await request.is_disconnected()])

    app = BodyLimit(Starlette(routes=[Route("/", late, methods=["POST"])]), lambda path: 1_000_000)
    with listening(app) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/", content=b"abc", trust_env=False).json() == [3, False]


@pytest.mark.slow
def test_slow_uploads_do_not_hold_the_service(server: services.Server) -> None:
    """More than are answered at once, each of a byte a second: for ten seconds they are in the way, and no longer."""
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9000\r\n\r\n"
    with ExitStack() as stack, server.client() as client:
        port = httpx.URL(server.url).port
        slow = [stack.enter_context(connected(port)) for _ in range(300)]
        for each in slow:
            each.sendall(head)
        statuses = list[int]()
        for _ in range(15):
            for each in slow:
                with suppress(OSError):
                    each.sendall(b"x")
            statuses.append(client.post("/classify", files={"image": picture("red")}).status_code)
            time.sleep(1)
        assert statuses[-1] == 200, statuses
        assert {answer_of(each)[9:12] for each in slow} <= {b"408", b"429"}


# Protocols: whatever is asked for beside it, HTTP/1.1 is spoken and the body is read.

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
LENGTH = "Content-Length: {}\r\n"
PLAIN = "POST {} HTTP/1.1\r\nHost: localhost\r\n"
ASKED = {
    "java and curl --http2": PLAIN + H2C + LENGTH,
    "chunked": PLAIN + "Transfer-Encoding: chunked\r\n",
    "h2c, chunked": PLAIN + H2C + "transfer-encoding: Chunked\r\n",
    "websocket": PLAIN
    + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    + LENGTH,
    "tls": PLAIN
    + "CONNECTION: keep-alive\r\nconnection: upgrade\r\nupgrade: TLS/1.0\r\nUPGRADE: x\r\n"
    + LENGTH,
    "closed": PLAIN + "Connection: close, Upgrade\r\nUpgrade: h2c\r\n" + LENGTH,
    "http 1.0": "POST {} HTTP/1.0\r\n" + LENGTH,
    "http 1.0 and h2c": "POST {} HTTP/1.0\r\n" + H2C + LENGTH,
    "expect": PLAIN + "expect: 100-Continue\r\n" + LENGTH,
    "expect and h2c": PLAIN + H2C + "Expect: 100-continue\r\n" + LENGTH,
    "absolute": "POST http://elsewhere{} HTTP/1.1\r\nHost: elsewhere\r\nproxy-connection: keep-alive\r\n"
    + LENGTH,
    "by proxies": PLAIN
    + "X-Forwarded-For: 1.2.3.4, ::1\r\nForwarded: for=1.2.3.4\r\nVia: 1.1 squid\r\n"
    + LENGTH,
}


def request(head: str, body: bytes, kind: str = "image/png", path: str = "/") -> tuple[bytes, bytes]:
    """Head and body as they are sent."""
    if "chunked" in head.lower():
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return f"{head.format(path, len(body))}CONTENT-type: {kind}\r\n\r\n".encode(), body


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the answer that follows the leave to go on, if there is one."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


@pytest.mark.parametrize("head", ASKED.values(), ids=ASKED)
def test_a_body_is_read_however_it_is_announced(head: str) -> None:
    first, body = request(head, bytes(1000))
    with listening(ECHO) as port:
        for cut in (len(first), 40, len(first) + 500):
            with connected(port) as connection:
                whole = first + body
                connection.sendall(whole[:cut])
                time.sleep(0.05)
                connection.sendall(whole[cut:])
                assert answered(connection) == (200, b"1000")


def test_requests_that_came_together_are_all_answered() -> None:
    """Also behind one that asks for another protocol."""
    both = b"".join(b"".join(request(ASKED[name], bytes(7))) for name in ("java and curl --http2", "chunked"))
    with listening(ECHO) as port, connected(port) as connection:
        connection.sendall(both * 2 + b"".join(request(ASKED["closed"], bytes(7))))
        assert answer_of(connection).count(b"HTTP/1.1 200") == 5


def test_a_head_that_asks_for_another_protocol_is_bounded_too() -> None:
    with listening(ECHO) as port, connected(port) as connection, pytest.raises(OSError):
        for _ in range(200):
            connection.sendall(
                START + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + b"X-Long: " + b"x" * 10_000
            )
            time.sleep(0.002)


@pytest.mark.parametrize("head", ASKED.values(), ids=ASKED)
def test_a_service_labels_the_picture_of_every_client(server: services.Server, head: str) -> None:
    first, body = request(head, picture("red"), path="/classify")
    with connected(httpx.URL(server.url).port) as connection:
        connection.sendall(first + body)
        status, answer = answered(connection)
    assert status == 200 and b'"label"' in answer, answer


@pytest.mark.parametrize(
    "sent", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes.fromhex("1603010200010001fc0303")]
)
def test_what_is_no_http_is_told_what_is_spoken(sent: bytes) -> None:
    with listening(ECHO) as port, connected(port) as connection:
        connection.sendall(sent)
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"without TLS (http://) and not as HTTP/2" in answer


# Shares


def test_one_client_cannot_have_all_requests_that_are_answered_at_once() -> None:
    async def ask(app: ASGIApp, client: str) -> int:
        sent = list[Message]()

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        scope = {"type": "http", "client": (client, 1), "path": "/", "method": "GET", "headers": []}
        await app(scope, receive, send)
        return int(sent[0]["status"])

    async def many() -> list[list[int]]:
        go = asyncio.Event()

        async def held(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await JSONResponse("there")(scope, receive, send)

        app = Shared(held, lambda: 3)
        busy = [asyncio.create_task(ask(app, "192.0.2.1")) for _ in range(5)]
        other = [asyncio.create_task(ask(app, "192.0.2.2")) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        answers = [await asyncio.gather(*busy), await asyncio.gather(*other)]
        answers.append([await ask(app, "192.0.2.1")])
        assert not app._at_work
        return answers

    assert asyncio.run(many()) == [[200, 200, 200, 429, 429], [200, 200, 200], [200]]
