"""BentoML's counters of requests, by the addresses that there are.

BentoML counts by the address that was asked for, and keeps every one it ever saw: whoever asks for ever new ones
fills its memory, and GET /metrics with them.
"""

from __future__ import annotations

from typing import Any

from bentoml._internal.server.http import instruments
from starlette.types import ASGIApp, Receive, Scope, Send

KNOWN = (
    "/",
    "/classify",
    "/classify_batch",
    "/classify_among",
    "/explain",
    "/embed",
    "/classes",
    "/feedback",
    "/model",
    "/openapi.json",
    "/docs.json",
    "/livez",
    "/healthz",
    "/readyz",
    "/metrics",
)
_ASKED = "ayeaye.path"


def endpoint(path: str) -> str:
    """The name by which requests for an address are counted."""
    if path.startswith("/classes/"):
        return "/classes/{name}"
    return path if path in KNOWN else "/other"


class CountedByEndpoint(instruments.RunnerTrafficMetricsMiddleware):
    """ASGI middleware: counts under the endpoint, and hands on the request as it was."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        async def as_asked(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "path": scope.get(_ASKED, scope.get("path"))}, receive, send)

        super().__init__(as_asked, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": endpoint(scope["path"]), _ASKED: scope["path"]}
        await super().__call__(scope, receive, send)


def install() -> None:
    """In BentoML's place: it looks the class up when the service starts."""
    instruments.RunnerTrafficMetricsMiddleware = CountedByEndpoint
