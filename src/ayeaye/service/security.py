"""Who may change what is served, how often one may ask, and what browsers are told."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cached_property
from urllib.parse import urlsplit

import limits
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ayeaye.packaging.server import CLIENT_HEADER

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
RETRIED = (429, 503, 504)
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_CLIENT = CLIENT_HEADER.lower().encode()
_log = logging.getLogger(__name__)


class SecurityHeaders:
    """ASGI middleware: every answer carries HEADERS, and Retry-After where it may be tried again, but for those
    that it sets itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] in RETRIED:
                    headers.setdefault("Retry-After", "1")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Guard:
    """Lets requests change what is served: with the token, or without one from this machine alone."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None
        if self._token is None:
            _log.warning(
                "there is no token: whoever asks from this machine can change what is served, and so can anybody "
                "behind a proxy here that says nothing of whom it asks for; set AYEAYE_TOKEN, or serve.token_file"
            )

    def check(self, request: Request) -> None:
        """Raises HTTPException, 401 or 403."""
        if self._token is None:
            self._check_local(request)
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared in a time that does not tell how much of it was right.
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not same:
            raise HTTPException(
                401,
                "this needs the token: send `Authorization: Bearer TOKEN`",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_local(self, request: Request) -> None:
        local = (
            _is_loopback(client_of(request.scope))
            and not any(name in request.headers for name in _FORWARDED)
            # Browsers and tools have spoken newer ones for long; proxies that say nothing of themselves may not.
            and request.scope.get("http_version") != "1.0"
            # A page of another site, in a browser on this machine, is not a request of this machine.
            and _is_loopback(_host_of(f"//{request.headers.get('host', '')}"))
            and _is_own_page(request)
        )
        if not local:
            raise HTTPException(
                403,
                "the service has no token, so what it serves can be changed from its own machine alone: set "
                "AYEAYE_TOKEN, or serve.token_file, where it runs, and send `Authorization: Bearer TOKEN`",
            )


def client_of(scope: Scope) -> str:
    """The address that asks. Behind a proxy, FORWARDED_ALLOW_IPS says whose X-Forwarded-For is believed."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_own_page(request: Request) -> bool:
    """Whether a page that asks, if one does, is the service's own, and not that of another program on this machine."""
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Proxied:
    """ASGI middleware: behind the proxy of `ayeaye serve`, who asks is whom that proxy names.

    From there on it is as if there were no such proxy: `trusted`, where there is one, are the addresses of proxies
    before it, whose X-Forwarded-For is believed as uvicorn would.
    """

    def __init__(self, app: ASGIApp, trusted: Callable[[], str | None]) -> None:
        self.app = app
        self.trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = [value for name, value in scope.get("headers", ()) if name == _CLIENT]
        if not named or not _is_loopback(client_of(scope)) or self.trusted() is None:
            await self.app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != _CLIENT]
        scope = {**scope, "client": (named[-1].decode("latin-1"), 0), "headers": headers}
        await self._as_uvicorn(scope, receive, send)

    @cached_property
    def _as_uvicorn(self) -> ASGIApp:
        return ProxyHeadersMiddleware(self.app, self.trusted() or "")  # type: ignore[arg-type, return-value]


class RateLimited:
    """ASGI middleware: a client that asks too often is answered 429 before anything of its request is read.

    The paths that are `free` do not count: what a page is made of, which a browser gets in one go.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: Callable[[], RateLimiter],
        free: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self.app = app
        self.limiter = limiter
        self.free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = self.app
        if scope["type"] == "http" and not self.free(scope["path"]):
            try:
                self.limiter().check(client_of(scope))
            except HTTPException as refused:
                answer = JSONResponse({"error": refused.detail}, refused.status_code, headers=refused.headers)
        await answer(scope, receive, send)


class RateLimiter:
    """Counts the requests of each client to this worker, in sliding windows; an IPv6 client is its /64."""

    def __init__(self, rate: str | None) -> None:
        self._rates = limits.parse_many(rate) if rate else []
        self._windows = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.MemoryStorage())

    def check(self, client: str) -> None:
        """Count a request; raises HTTPException 429 where it is one too many."""
        key = _network(client)
        for rate in self._rates:
            if not self._windows.hit(rate, key):
                reset = self._windows.get_window_stats(rate, key).reset_time
                wait = max(1, math.ceil(reset - time.time()))
                raise HTTPException(
                    429, f"at most {rate} are answered: try again in {wait} s", {"Retry-After": str(wait)}
                )


class Shared:
    """ASGI middleware: one client has at most `most` requests at work; more are answered 429.

    BentoML bounds the requests of all clients together, and one alone could take them all.
    """

    def __init__(self, app: ASGIApp, most: Callable[[], int]) -> None:
        self.app = app
        self.most = most
        self._at_work = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = _network(client_of(scope))
        if self._at_work[client] >= (most := self.most()):
            error = f"{most} requests of yours are being answered, as many as one client may have: try again"
            await JSONResponse({"error": error}, 429)(scope, receive, send)
            return
        self._at_work[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._at_work[client] -= 1
            if not self._at_work[client]:
                del self._at_work[client]


def _network(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client
