"""What comes in: one picture, many, or JSON, each within its bounds.

Pictures are never fetched from anywhere: a field that holds an address instead of a file is refused.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayeaye.errors import DataError

ENVELOPE = 64 * 1024  # what multipart adds around a file
JSON_BYTES = 1_000_000
MULTIPART = "multipart/form-data"
# How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
_LINGER_BYTES, _LINGER_SECONDS = 1_000_000_000, 10.0
Model = TypeVar("Model")
_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def picture(request: Request, max_bytes: int) -> bytes:
    """The one picture of a request: the field `image` of a form, or the body itself; raises HTTPException."""
    kind = kind_of(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        content = await request.body()
        if len(content) > max_bytes:
            raise too_large(max_bytes)
        return content
    if kind != MULTIPART:
        raise HTTPException(
            415,
            f"the request is {kind[:80] or 'of no type'}: send multipart/form-data (curl -F image=@FILE), or the "
            "picture as image/* or application/octet-stream",
        )
    async with form(request, files=1) as fields:
        return await image_of(fields, max_bytes)


@asynccontextmanager
async def form(request: Request, files: int, name: str = "image") -> AsyncIterator[FormData]:
    """The fields of a multipart request with at most so many files; raises HTTPException 400 and 415."""
    kind = kind_of(request)
    if kind != MULTIPART:
        raise HTTPException(
            415,
            f"the request is {kind[:80] or 'of no type'}: send multipart/form-data (curl -F {name}=@FILE)",
        )
    try:
        fields = await request.form(max_files=files, max_fields=16)
    except ValueError as error:  # of a charset that decodes nothing
        raise HTTPException(400, f"the form cannot be read ({error}): send its texts as UTF-8") from None
    try:
        yield fields
    finally:
        await fields.close()


async def image_of(fields: FormData, max_bytes: int, required: bool = True) -> bytes:
    """The bytes of the one file in field `image`, none where it may be missing; raises HTTPException."""
    images = fields.getlist("image")
    if not images and not required:
        return b""
    if len(images) != 1:
        raise HTTPException(400, f"{len(images)} fields `image`: send exactly one picture in it")
    return await read_file(images[0], max_bytes)


async def read_file(image: UploadFile | str, max_bytes: int) -> bytes:
    """The bytes of a file of a form; raises HTTPException 400 for text, 413."""
    if not isinstance(image, UploadFile):
        raise HTTPException(400, "the field holds text: send the picture itself; addresses are not fetched")
    content = await image.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    return content


def text_of(fields: FormData, name: str) -> str:
    """The one text in a field; raises HTTPException 400."""
    texts = fields.getlist(name)
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise HTTPException(400, f"send exactly one text in the field `{name}`")
    return texts[0]


async def json_body(request: Request, model: type[Model]) -> Model:
    """The body as `model`; raises HTTPException 400 and 415, and DataError."""
    kind = kind_of(request)
    if kind != "application/json":
        raise HTTPException(415, f"the request is {kind[:80] or 'of no type'}: send application/json")
    content = await request.body()
    if len(content) > JSON_BYTES:
        raise too_large(JSON_BYTES)
    return parse(content, model, "the body")


def parse(text: str | bytes, model: type[Model], what: str) -> Model:
    """JSON as `model`; raises HTTPException 400 where it is none, DataError where it is not as it should be."""
    try:
        made: Model = _adapter(model).validate_json(text)
        return made
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        if fault["type"] == "json_invalid":
            said = fault["msg"].removeprefix("Invalid JSON: ")
            raise HTTPException(400, f"{what} is not JSON: {said}") from None
        raise _not_as_it_should_be(error, what) from None


def check(values: dict[str, str], model: type[Model], what: str) -> Model:
    """The fields of a form as `model`; raises DataError."""
    try:
        made: Model = _adapter(model).validate_python(values)
        return made
    except ValidationError as error:
        raise _not_as_it_should_be(error, what) from None


def _not_as_it_should_be(error: ValidationError, what: str) -> DataError:
    faults = error.errors(include_input=False, include_url=False)
    return DataError(f"{what} is not as it should be: {findings(faults)}")


def findings(faults: Sequence[Any]) -> str:
    """What a validation found, up to five of it, without the values."""
    lines = [f"{'.'.join(map(str, fault['loc']))[:120]} ({fault['msg']})" for fault in faults[:5]]
    return "; ".join(lines) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")


def too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the upload is too large: at most {max_bytes:,} bytes are allowed")


class BodyLimit:
    """ASGI middleware: a body above the `largest` bytes of its path is answered with 413, its length told or not."""

    def __init__(self, app: ASGIApp, largest: Callable[[str], int]) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        largest, taken, started = self.largest(scope["path"]), 0, False
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
        error = too_large(largest - ENVELOPE)
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
    until, taken = time.monotonic() + _LINGER_SECONDS, 0
    while taken < _LINGER_BYTES and (left := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        taken += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
