"""Connections of clients, bounded where uvicorn bounds nothing: what is read before there is a request to answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ayeaye.release.proxy import fault

# Of the lines before a body, or of what stands around the parts of one: as HAProxy takes them.
HEAD_BYTES, HEAD_SECONDS = 131_072, 30.0
_TOO_LARGE = fault(
    431,
    "Request Header Fields Too Large",
    f"the head of the request is too large: at most {HEAD_BYTES:,} bytes are allowed",
)


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol, which keeps what it reads of a head, however much it is, and waits for the rest for ever.

    A head that is too large is answered with 431; a connection whose head is not there in time is closed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
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
        self._wait_no_more()
        self._unread = 0
        super().on_headers_complete()

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
