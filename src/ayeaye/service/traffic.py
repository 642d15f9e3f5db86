"""What BentoML puts around the application, as it should be.

Its counters of requests go by the addresses that there are: BentoML counts by what was asked for, and keeps every
address it ever saw; whoever asks for ever new ones fills its memory, and GET /metrics with them. Its own answers,
429 where too many ask and 504 where one takes too long, carry the headers of all others. Its log of requests holds
one line for each, whatever is in an address, and its connections are bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

import uvicorn.config
from bentoml._internal.server.http import instruments
from bentoml._internal.server.http import traffic as bentoml
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

_ASKED = "ayeaye.path"


class Endpoints:
    """The names by which requests are counted: those of an application's routes, and BentoML's."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        from ayeaye.service import openapi

        found = [route for route in routes if isinstance(route, Route)]
        self.exact = {*openapi.BENTOML, *(route.path for route in found if not route.param_convertors)}
        self._patterns = [(route.path_regex, route.path_format) for route in found if route.param_convertors]

    def __call__(self, path: str) -> str:
        """The endpoint of an address."""
        if path in self.exact:
            return path
        return next((name for pattern, name in self._patterns if pattern.match(path)), "/other")


class CountedByEndpoint(instruments.RunnerTrafficMetricsMiddleware):
    """ASGI middleware: counts under the endpoint, and hands on the request as it was."""

    def __init__(self, app: ASGIApp, routes: Callable[[], Iterable[BaseRoute]], **options: Any) -> None:
        self._endpoints = Endpoints(routes())

        async def as_asked(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "path": scope.get(_ASKED, scope.get("path"))}, receive, send)

        super().__init__(as_asked, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": self._endpoints(scope["path"]), _ASKED: scope["path"]}
        await super().__call__(scope, receive, send)


class WithHeaders(bentoml.TimeoutMiddleware):
    """ASGI middleware: BentoML's bound on time, the outermost that answers by itself, with the headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from ayeaye.service.security import SecurityHeaders

        await SecurityHeaders(super().__call__)(scope, receive, send)


def in_one_line(record: logging.LogRecord) -> bool:
    """Of a log: what a client sent is told without the characters that end a line or lead a terminal."""
    if isinstance(record.args, tuple):
        record.args = tuple(_printable(each) if isinstance(each, str) else each for each in record.args)
    return True


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def install(routes: Callable[[], Iterable[BaseRoute]]) -> None:
    """In BentoML's place: it looks the classes up when the service starts, and then `routes` are asked for."""
    instruments.RunnerTrafficMetricsMiddleware = partial(CountedByEndpoint, routes=routes)
    bentoml.TimeoutMiddleware = WithHeaders
    logging.getLogger("bentoml.access").addFilter(in_one_line)
    if find_spec("httptools"):  # h11, which stands in for it, has such bounds
        uvicorn.config.HTTP_PROTOCOLS["auto"] = "ayeaye.service.connections:Bounded"
