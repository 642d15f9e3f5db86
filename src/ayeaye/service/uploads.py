"""What comes in: one picture, many, or JSON, each within its bounds.

Pictures are never fetched from anywhere: a field that holds an address instead of a file is refused.
"""

from __future__ import annotations

import asyncio
import codecs
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

from ayeaye.core import contents
from ayeaye.core.errors import DataError

ENVELOPE = 64 * 1024  # what multipart adds around a file
JSON_BYTES = 1_000_000
SPARE = 16  # fields, and files beside the pictures, that are read to say what is wrong with them
MULTIPART = "multipart/form-data"
# How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
_LINGER_BYTES, _LINGER_SECONDS = 1_000_000_000, 10.0
# How long a body may take: so many seconds, and what is there of it at so many bytes a second.
GRACE_SECONDS, LEAST_RATE = 10.0, 16_000
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
    async with form(request) as fields:
        return await image_of(fields, max_bytes)


@asynccontextmanager
async def form(
    request: Request, texts: Sequence[str] = (), files: int = 1, name: str = "image"
) -> AsyncIterator[FormData]:
    """The fields of a multipart request: at most so many pictures in one of that name, and `texts`.

    Raises HTTPException 400 and 415, and DataError for a field of another name: what is in it would be lost.
    """
    kind = kind_of(request)
    if kind != MULTIPART:
        raise HTTPException(
            415,
            f"the request is {kind[:80] or 'of no type'}: send multipart/form-data (curl -F {name}=@FILE)",
        )
    try:
        fields = await request.form(max_files=files + SPARE, max_fields=SPARE)
    except HTTPException as error:
        raise HTTPException(400, _unread(str(error.detail), name, files)) from None
    except ValueError as error:  # of a charset that decodes nothing
        raise HTTPException(400, f"the form cannot be read ({error}): send its texts as UTF-8") from None
    try:
        _check_names(fields, [name, *texts])
        yield fields
    finally:
        await fields.close()


def _unread(said: str, name: str, files: int) -> str:
    """What Starlette `said` of a form, and what to do."""
    as_curl = f"send it as `curl -F {name}=@FILE` does"
    if said.startswith("Too many files"):
        return (
            f"the form holds more than {files} files: send {'one' if files == 1 else 'no more'} in `{name}`"
        )
    if said.startswith("Part exceeded"):
        return f"a part without a filename is larger than 1 MB: send pictures with one, as `curl -F {name}=@FILE`"
    if said.startswith("Missing boundary"):
        return f"the Content-Type has no boundary: leave it to the client that writes the form, or {as_curl}"
    if said.startswith("Invalid multipart"):
        return f"the form is damaged, or of another boundary than the Content-Type names: {as_curl}"
    return f"the form cannot be read ({said.rstrip('.')}): {as_curl}"


def _check_names(fields: FormData, expected: Sequence[str]) -> None:
    strange = [name for name in fields if name not in expected]
    if strange:
        raise DataError(
            f"the form has a field {strange[0][:80]!r}, which is not taken here: expected are "
            + ", ".join(f"`{name}`" for name in expected)
        )


async def image_of(fields: FormData, max_bytes: int) -> bytes:
    """The bytes of the one file in field `image`; raises HTTPException."""
    images = fields.getlist("image")
    if len(images) != 1:
        raise HTTPException(400, f"{len(images)} fields `image`: send exactly one picture in it")
    return await read_file(images[0], max_bytes)


async def read_file(image: UploadFile | str, max_bytes: int, name: str = "image") -> bytes:
    """The bytes of a file of a form; raises HTTPException 400 for text, 413."""
    if not isinstance(image, UploadFile):
        # By the filename alone a form tells files from texts (RFC 7578, 4.2), and bytes read as text are lost.
        raise HTTPException(
            400,
            f"the field `{name}` has no filename, and is a text: send the picture itself, with a filename, as "
            f"`curl -F {name}=@FILE`; addresses are not fetched",
        )
    content = await image.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    return content


async def text_of(fields: FormData, name: str) -> str:
    """The one text in a field, which may be a file as browsers make one of a Blob; raises HTTPException 400, 413."""
    texts = fields.getlist(name)
    if len(texts) != 1:
        raise HTTPException(400, f"{len(texts)} fields `{name}`: send exactly one text in it")
    if isinstance(texts[0], str):
        return texts[0]
    try:
        return (await read_file(texts[0], JSON_BYTES, name)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HTTPException(400, f"the field `{name}` is not UTF-8: send a text in it") from None


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
    # RFC 8259, 8.1: a byte order mark may be ignored.
    text = text.removeprefix("\ufeff") if isinstance(text, str) else text.removeprefix(codecs.BOM_UTF8)
    try:
        made: Model = _adapter(model).validate_json(text)
        return made
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        if fault["type"] == "json_invalid":
            said = fault["msg"].removeprefix("Invalid JSON: ")
            found = (
                contents.foreign(text if isinstance(text, bytes) else text.encode(errors="replace"))
                if text
                else None
            )
            if found:
                raise HTTPException(400, f"{what} is not JSON: it {found}") from None
            raise HTTPException(400, f"{what} is not JSON: {said}") from None
        raise _not_as_it_should_be(error, what) from None


def check(values: Any, model: type[Model], what: str) -> Model:
    """What was read already as `model`; raises DataError."""
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
    places = [".".join(map(str, fault["loc"]))[:120] for fault in faults[:5]]
    lines = [
        f"{at} ({fault['msg']})" if at else fault["msg"] for at, fault in zip(places, faults, strict=False)
    ]
    return "; ".join(lines) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")


def too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the upload is too large: at most {max_bytes:,} bytes are allowed")


def too_slow() -> HTTPException:
    return HTTPException(
        408,
        f"the upload comes too slowly: send at least {LEAST_RATE // 1000} kB a second, or a smaller picture",
    )


class BodyLimit:
    """ASGI middleware: a body above the `largest` bytes of its path is answered with 413, its length told or not, one
    that comes too slowly with 408, and one that is compressed with 415.

    Slow is what takes longer than GRACE_SECONDS and its bytes so far at LEAST_RATE; what the service itself takes
    until it reads on does not count.
    """

    def __init__(self, app: ASGIApp, largest: Callable[[str], int]) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if coding := _coding(scope):
            await _linger(receive)
            await _refusal(
                HTTPException(
                    415,
                    f"the body comes as Content-Encoding: {coding[:40]}, which is not taken here: send it as it is, "
                    "without that header",
                    {"Accept-Encoding": "identity"},
                )
            )(scope, receive, send)
            return
        largest, started = self.largest(scope["path"]), False
        told = _content_length(scope)
        if told is not None and told > largest:
            await _linger(receive)
            await _refusal(too_large(largest - ENVELOPE))(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, _Body(receive, largest).receive, watched)
        except _Refused as refused:
            if started:
                raise
            if refused.error.status_code == 413:
                await _linger(receive)
            await _refusal(refused.error)(scope, receive, send)


class _Body:
    """A body as it comes; raises _Refused where there is too much of it, or it takes too long."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self._receive, self._largest = receive, largest
        self._taken, self._waited, self._more = 0, 0.0, True

    async def receive(self) -> Message:
        if not self._more:
            # All that is left to come is that the client goes.
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(GRACE_SECONDS + self._taken / LEAST_RATE - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise _Refused(too_slow()) from None
        self._waited += time.monotonic() - began
        self._taken += len(message.get("body", b""))
        self._more = bool(message.get("more_body"))
        if self._taken > self._largest:
            raise _Refused(too_large(self._largest - ENVELOPE))
        return message


class _Refused(BaseException):
    # Not an Exception: nothing between here and the middleware may take it for a fault of its own.
    def __init__(self, error: HTTPException) -> None:
        self.error = error


def _refusal(error: HTTPException) -> JSONResponse:
    return JSONResponse(
        {"error": error.detail}, error.status_code, headers={"Connection": "close", **(error.headers or {})}
    )


def _coding(scope: Scope) -> str:
    """How a body is encoded (RFC 9110, 8.4), empty where it comes as it is, or where there is none."""
    given = [
        value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"content-encoding"
    ]
    coded = [each for each in given if each.lower() not in ("", "identity")]
    return ", ".join(coded) if scope["method"] not in ("GET", "HEAD") else ""


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
