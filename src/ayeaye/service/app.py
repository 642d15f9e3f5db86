"""The HTTP face of the service: POST /classify and GET /model, with their OpenAPI description.

Every fault of an upload is a 4xx with `{"error": …}` that says what to do: 400 a field or picture that cannot
be read, 413 too large, 415 not multipart. 503 only when more requests wait than are allowed to.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayeaye.errors import PictureError
from ayeaye.service.batching import OverloadError
from ayeaye.service.served import Served

# What multipart adds around a file.
_ENVELOPE = 64 * 1024
# How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
_LINGER_BYTES, _LINGER_SECONDS = 1_000_000_000, 10.0


class Alternative(BaseModel):
    label: str
    seen: bool
    score: float


class ModelName(BaseModel):
    version: int | None
    bento: str | None


class Answer(BaseModel):
    """The most likely class of a picture; `seen` says whether photographs of it were trained on, `known` is false
    where the picture seems to be of none of the classes."""

    label: str
    seen: bool
    known: bool
    confidence: float
    alternatives: list[Alternative]
    model: ModelName


class About(BaseModel):
    """What is being served. `code` is "bento" when the program itself comes from the Bento."""

    version: int | None
    bento: str | None
    bundle_digest: str
    data_digest: str | None
    metrics: dict[str, Any]
    classes: dict[str, int]
    code: str


class Fault(BaseModel):
    error: str


class Service(Protocol):
    served: Served

    async def answer(self, content: bytes) -> dict[str, Any]: ...

    def about(self) -> dict[str, Any]: ...


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "string",
                            "contentMediaType": "application/octet-stream",
                            "format": "binary",
                            "description": "One picture: JPEG, PNG, WebP, BMP, GIF or TIFF.",
                        }
                    },
                }
            }
        },
    }
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "No picture, or one that cannot be read"},
    413: {"model": Fault, "description": "More bytes than allowed"},
    415: {"model": Fault, "description": "Not multipart/form-data"},
    503: {"model": Fault, "description": "Too many requests wait: try again"},
}


def create(service: Callable[[], Service]) -> FastAPI:
    """The application; `service` is asked on each request, since BentoML makes the service later."""
    from ayeaye import __version__

    # /docs and /redoc would load their scripts from elsewhere.
    app = FastAPI(title="ayeaye", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(UploadLimit, largest=lambda: service().served.limits.max_bytes + _ENVELOPE)

    @app.post("/classify", response_model=Answer, responses=_FAULTS, openapi_extra=_UPLOAD)
    async def classify(request: Request) -> Any:
        """Label one picture."""
        content = await _upload(request, service().served.limits.max_bytes)
        return JSONResponse(await service().answer(content))

    @app.get("/model", response_model=About)
    async def model() -> Any:
        """What is being served."""
        return JSONResponse(service().about())

    # BentoML's page at / shows the description it finds under this name.
    @app.get("/docs.json", include_in_schema=False)
    async def description() -> Any:
        return JSONResponse(app.openapi())

    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(PictureError, _unreadable)
    app.add_exception_handler(OverloadError, _overloaded)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


async def _upload(request: Request, max_bytes: int) -> bytes:
    """The bytes of the one file in field `image`; raises HTTPException with what was wrong."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(
            415, f"the request is {kind or 'of no type'}: send multipart/form-data (curl -F image=@FILE)"
        )
    async with request.form(max_files=4, max_fields=16) as form:
        images = form.getlist("image")
        if len(images) != 1:
            raise HTTPException(400, f"{len(images)} fields `image`: send exactly one picture in it")
        image = images[0]
        if not isinstance(image, UploadFile):
            raise HTTPException(
                400, "the field `image` holds text: send the picture itself; addresses are not fetched"
            )
        content = await image.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the upload is too large: at most {max_bytes:,} bytes are allowed")


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"the picture cannot be read: {error}"}, 400)


async def _overloaded(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"overloaded ({error}): try again"}, 503, headers={"Retry-After": "1"})


async def _gone(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the upload ended early"}, 400)


class UploadLimit:
    """ASGI middleware: a body above `largest` bytes is answered with 413, its length told or not."""

    def __init__(self, app: ASGIApp, largest: Callable[[], int]) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        largest, taken, started = self.largest(), 0, False
        told = _content_length(scope)
        if told is not None and told > largest:
            await _linger(receive)
            await self._answer(largest)(scope, receive, send)
            return

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > largest:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, bounded, watched)
        except _TooLarge:
            if started:
                raise
            await _linger(receive)
            await self._answer(largest)(scope, receive, send)

    def _answer(self, largest: int) -> JSONResponse:
        error = _too_large(largest - _ENVELOPE)
        return JSONResponse({"error": error.detail}, error.status_code, headers={"Connection": "close"})


class _TooLarge(BaseException):
    # Not an Exception: nothing between here and the middleware may take it for a fault of its own.
    pass


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


async def _linger(receive: Callable[[], Awaitable[Message]]) -> None:
    """Read on for a while: a sender that is cut off while it writes never sees the answer."""
    import asyncio

    until, taken = time.monotonic() + _LINGER_SECONDS, 0
    while taken < _LINGER_BYTES and (left := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        taken += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
