"""What BentoML puts around the application, as it should be.

Its counters of requests go by the addresses that there are: BentoML counts by what was asked for, and keeps every
address it ever saw; whoever asks for ever new ones fills its memory, and GET /metrics with them. Its own answers,
429 where too many ask and 504 where one takes too long, carry the headers of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

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


def install(routes: Callable[[], Iterable[BaseRoute]]) -> None:
    """In BentoML's place: it looks the classes up when the service starts, and then `routes` are asked for."""
    instruments.RunnerTrafficMetricsMiddleware = partial(CountedByEndpoint, routes=routes)
    bentoml.TimeoutMiddleware = WithHeaders
