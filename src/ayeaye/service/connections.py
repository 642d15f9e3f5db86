"""Connections of clients, bounded where uvicorn bounds nothing: what is read before there is a request to answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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


# Of the lines before a body, or of what stands around the parts of one: as HAProxy takes them.
HEAD_BYTES, HEAD_SECONDS = 131_072, 30.0
_TOO_LARGE = fault(
    431,
    "Request Header Fields Too Large",
    f"the head of the request is too large: at most {HEAD_BYTES:,} bytes are allowed",
)
_NOT_HTTP = fault(
    400,
    "Bad Request",
    "what came is no HTTP/1.1: send plain HTTP/1.1, without TLS (http://) and not as HTTP/2",
)


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol, which keeps what it reads of a head, however much it is, and waits for the rest for ever.

    A head that is too large is answered with 431; a connection whose head is not there in time is closed. HTTP/1.1
    is all that is spoken: who asks for another protocol, as Java's client does with `Upgrade: h2c`, is answered as
    if they had not (RFC 9110, 7.8).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = _Parser(self)
        self._unread = 0  # bytes since the last that belonged to a body or completed a head
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._idle:
            self._wait_for_head()
        if self._unread > HEAD_BYTES:
            if self._idle:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        if self._asks_for_another:
            return
        self._wait_no_more()
        self._unread = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._asks_for_another:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_NOT_HTTP)
        self.transport.close()

    @property
    def head_without_upgrade(self) -> bytes:
        """The head that was just read, without the header that asks for another protocol."""
        start = b" ".join(
            [self.parser.get_method(), self.url, b"HTTP/" + self.parser.get_http_version().encode()]
        )
        kept = [b": ".join(header) for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([start, *kept, b"", b""])

    @property
    def _asks_for_another(self) -> bool:
        return bool(self.parser.should_upgrade()) and any(name == b"upgrade" for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Parser(httptools.HttpRequestParser):
    """httptools' parser, which takes what follows a head that asks for another protocol for that protocol: a body is
    lost. Here such a head is read once more without asking."""

    def __init__(self, protocol: Bounded) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        # As uvicorn has it: a request that came behind one with `Connection: close` is no fault.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            again = self._protocol.head_without_upgrade + data[upgrade.args[0] :]
            # A new parser: this one has done with a connection that is to be closed after the request.
            self._protocol.parser = _Parser(self._protocol)
            self._protocol.parser.feed_data(again)
