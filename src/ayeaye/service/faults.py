"""Which fault is which status, and how it is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayeaye.core.errors import (
    AyeayeError,
    ClassSpaceError,
    CoincidentClasses,
    Conflict,
    DataError,
    NoSuchClass,
    NotKept,
    PictureError,
    StoreError,
    StoreFull,
    TakenName,
    UnknownWords,
)
from ayeaye.core.unicode_checks import shown
from ayeaye.service import schemas, uploads
from ayeaye.service.batching import OverloadError
from ayeaye.service.decoding import SlowPicture
from ayeaye.service.security import RETRIED

# Of an error's classes the first that is named here decides.
STATUS: Mapping[type[Exception], int] = {
    SlowPicture: 422,
    PictureError: 400,
    Conflict: 409,
    StoreFull: 409,
    NotKept: 404,
    StoreError: 503,
    TakenName: 409,
    CoincidentClasses: 409,
    ClassSpaceError: 422,
    DataError: 422,
    OverloadError: 503,
}
_WORDS = {
    400: "What was sent cannot be read: no picture, a damaged one, JSON that is none",
    401: "Not the token",
    403: "The service has no token, and the request is not from its own machine",
    404: "Not there: nothing has that name",
    408: "The body came too slowly; the connection is closed",
    409: "In conflict with what is there: a name or a vector that a class has already, or as much as is kept",
    413: "More bytes than allowed",
    415: "Of a type that is not taken here",
    422: "Read, but not possible: values out of bounds, words nobody knows, a picture that takes too long",
    429: "This client asked too often, or too many requests are being answered: try again later",
    500: "A fault of the service; its log says more",
    503: "Too many requests wait, or the database cannot be reached: try again",
    504: "The answer took longer than it may",
}
_ALWAYS = (429, 500, 503, 504)
_CLASSES = "/classes/"
_log = logging.getLogger(__name__)


def faults_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these statuses and those that every route has; what may come in too large may
    come too slowly."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in (*statuses, *((408,) if 413 in statuses else ()), *_ALWAYS):
        documented[status] = {"model": schemas.Fault, "description": _WORDS[status]}
        if status in RETRIED:
            documented[status]["headers"] = {
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}
            }
        if status == 401:
            documented[status]["headers"] = {
                "WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}
            }
    return documented


def answer_to(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body for an error."""
    if isinstance(error, HTTPException):
        return error.status_code, {"error": str(error.detail)}
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    if isinstance(error, PictureError):
        return status, {"error": f"the picture cannot be read: {error}"}
    if isinstance(error, OverloadError):
        return status, {"error": f"overloaded ({error}): try again"}
    if isinstance(error, UnknownWords):
        return status, _unknown_words(error)
    if isinstance(error, NoSuchClass | NotKept) and error.unknown:
        return status, {"error": str(error), "near": error.unknown}
    if status >= 500:
        # What the message names, a file or an address, is nobody's business out there.
        _log.error("%s: %s", type(error).__name__, error)
        said = "the service's database cannot be used now: try again, and see its log"
        return status, {"error": said if status == 503 else "a fault of the service: see its log"}
    return status, {"error": str(error)}


def _nothing_at(path: str) -> str:
    if path.startswith(_CLASSES):
        return (
            f"there is no class {shown(path.removeprefix(_CLASSES)[:200])}: GET /classes says which there are"
        )
    return f"there is no {path[:200]}: GET /openapi.json says what there is"


def _unknown_words(error: UnknownWords) -> dict[str, Any]:
    near = {word: found for words in error.unknown.values() for word, found in words.items()}
    told = [f"{word} (near: {', '.join(found)})" if found else word for word, found in near.items()]
    names = ", ".join(error.unknown)
    return {
        "error": f"no word of {names} is known: {', '.join(told) or 'there are none'}; describe it in other words",
        "near": near,
    }


def _methods(request: Request) -> list[str]:
    """The methods of an address, of all its routes; HEAD wherever GET is, as `Heads` has it."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in routes for method in route.methods or ()}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


class Heads:
    """ASGI middleware: HEAD is answered as GET would be, without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, without_body)


def install(app: FastAPI) -> None:
    """Answer every error of the application in one form."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        status, body = answer_to(error)
        headers = dict(getattr(error, "headers", None) or {})
        if status == 404 and isinstance(error, HTTPException):
            body = {"error": _nothing_at(request.url.path)}
        if status == 405:
            allowed = _methods(request)
            headers["Allow"] = ", ".join(allowed)
            body = {"error": f"{request.method} is not for this address: use {' or '.join(allowed)}"}
        return JSONResponse(body, status, headers=headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(
            {"error": f"the request is not as it should be: {uploads.findings(error.errors())}"}, 422
        )

    async def gone(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the upload ended early"}, 400)

    app.add_exception_handler(HTTPException, told)
    app.add_exception_handler(AyeayeError, told)
    app.add_exception_handler(OverloadError, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, told)
