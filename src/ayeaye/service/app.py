"""The HTTP face of the service: its routes, with their OpenAPI description.

Every fault is `{"error": …}` that says what to do: 400 what cannot be read, 401 or 403 not allowed, 404 and 405 not
there, 409 in conflict with what is there, 413 too large, 415 of another type, 422 read but not possible, 429 too
often, 503 not now. Nothing is ever fetched, and no answer names a file of the machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from ayeaye.class_vectors.new_class import NewClass
from ayeaye.core.errors import DataError
from ayeaye.core.unicode_checks import comparable
from ayeaye.data.samples import Use
from ayeaye.service import openapi, page, schemas, uploads
from ayeaye.service.faults import Heads, answer_to, faults_of, install
from ayeaye.service.inference import Inference, check_top
from ayeaye.service.security import Proxied, RateLimited, Shared, client_of
from ayeaye.service.store import RuntimeClass

ALTERNATIVES = 5
CANDIDATES = 100
_AT_ONCE = 8  # pictures of one batch in memory
_log = logging.getLogger(__name__)

Top = Annotated[int, Query(ge=1, description="How many alternatives, at most as many as there are classes.")]
Label = Annotated[str | None, Query(max_length=200, description="The class to explain; none: the answer.")]
Labels = Annotated[
    list[Annotated[str, Query(max_length=200)]] | None,
    Query(max_length=100, description="Of these classes alone; none: of all."),
]
After = Annotated[int, Query(ge=0, lt=2**31, description="The revision after which changes are told.")]
Against = Annotated[
    str | None, Query(max_length=200, description="The class to compare with; none: the next best.")
]


def create(service: Callable[[], Inference]) -> FastAPI:
    """The application; `service` is asked on each request, since BentoML makes the service later."""
    from ayeaye.version import __version__

    # /docs and /redoc would load their scripts from elsewhere.
    app = FastAPI(
        title="ayeaye",
        version=__version__,
        description=openapi.ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install(app)
    _pictures(app, service)
    _classes(app, service)
    page.install(app)
    openapi.install(app)

    # The last added is the first to be asked.
    app.add_middleware(uploads.BodyLimit, largest=lambda path: _largest(service(), path))
    app.add_middleware(Shared, most=lambda: service().served.most_of_one)
    app.add_middleware(RateLimited, limiter=lambda: service().limiter, free=_is_of_the_page)
    app.add_middleware(Heads)
    app.add_middleware(Proxied, trusted=lambda: service().served.proxy)
    return app


def _pictures(app: FastAPI, service: Callable[[], Inference]) -> None:
    async def sent(request: Request) -> bytes:
        return await uploads.picture(request, service().served.limits.max_bytes)

    @app.post(
        "/classify",
        response_model=schemas.Answer,
        responses=faults_of(400, 413, 415, 422),
        openapi_extra=openapi.PICTURE,
    )
    async def classify(request: Request, top: Top = ALTERNATIVES) -> Any:
        """Label one picture."""
        top = await _top(service(), request, top)
        return JSONResponse(await service().classify(await sent(request), top))

    @app.post(
        "/classify_batch",
        response_model=schemas.Answers,
        responses=faults_of(400, 413, 415, 422),
        openapi_extra=openapi.PICTURES,
    )
    async def classify_batch(request: Request, top: Top = ALTERNATIVES) -> Any:
        """Label many pictures; one that cannot be read has an error in its place."""
        most = service().served.settings.max_batch
        top = await _top(service(), request, top)
        async with uploads.form(request, files=most, name="images") as fields:
            images = fields.getlist("images")
            if not 1 <= len(images) <= most:
                raise HTTPException(400, f"{len(images)} fields `images`: send 1 to {most} pictures in it")
            return JSONResponse({"answers": await _each(service(), images, top)})

    @app.post(
        "/classify_among",
        response_model=schemas.AnswerAmong,
        responses=faults_of(400, 409, 413, 415, 422),
        openapi_extra=openapi.AMONG,
    )
    async def classify_among(request: Request, top: Top = ALTERNATIVES) -> Any:
        """Label one picture with one of the candidates: names of classes, texts, or classes described in full.

        A candidate of which no more is given than the name of a class, however it is written, is that class. What is
        said of one stands for this request, also where a class has its name. Scores and confidences are those that the
        candidates have beside the trained classes, whatever run-time classes there are besides."""
        async with uploads.form(request, texts=("candidates",)) as fields:
            candidates = await _candidates(fields)
            if "top" not in request.query_params:
                top = min(top, len(candidates))
            check_top(top, len(candidates), "candidates")
            content = await uploads.image_of(fields, service().served.limits.max_bytes)
        return JSONResponse(await service().classify_among(content, candidates, top))

    @app.post(
        "/explain",
        response_model=schemas.Explanation,
        responses=faults_of(400, 409, 413, 415, 422),
        openapi_extra=openapi.EXPLAINED,
    )
    async def explain(request: Request, label: Label = None, against: Against = None) -> Any:
        """Say why a picture has its label, and not another.

        With the candidates of POST /classify_among in the form, it says so of these alone."""
        if uploads.kind_of(request) != uploads.MULTIPART:
            return JSONResponse(await service().explain(await sent(request), label, against))
        async with uploads.form(request, texts=("candidates",)) as fields:
            candidates = await _candidates(fields) if "candidates" in fields else None
            content = await uploads.image_of(fields, service().served.limits.max_bytes)
        return JSONResponse(await service().explain(content, label, against, candidates))

    @app.post(
        "/embed",
        response_model=schemas.Embedding,
        responses=faults_of(400, 413, 415, 422),
        openapi_extra=openapi.PICTURE,
    )
    async def embed(request: Request) -> Any:
        """Give a picture in numbers."""
        return JSONResponse(await service().embed(await sent(request)))


def _classes(app: FastAPI, service: Callable[[], Inference]) -> None:
    @app.get("/classes", response_model=schemas.Classes, responses=faults_of())
    async def classes() -> Any:
        """Every class that is an answer, and the run-time classes that this model cannot take."""
        return JSONResponse(await asyncio.to_thread(service().listed_classes))

    @app.post(
        "/classes",
        status_code=201,
        response_model=schemas.Added,
        responses=faults_of(400, 401, 403, 409, 413, 415, 422),
        openapi_extra=openapi.json_of("Described") | openapi.CHANGES,
    )
    async def add_class(request: Request) -> Any:
        """Make a class that nobody trained; it is one at once, and stays one with the next model."""
        service().guard.check(request)
        new = await _described(request)
        return JSONResponse(await asyncio.to_thread(service().added, new), 201)

    @app.get("/classes/{name:path}", response_model=schemas.OneClass, responses=faults_of(404, 422))
    async def one_class(name: str) -> Any:
        """One class, with what it was made of."""
        return JSONResponse(await asyncio.to_thread(service().listed_class, name))

    @app.put(
        "/classes/{name:path}",
        response_model=schemas.Added,
        responses={201: openapi.ADDED, **faults_of(400, 401, 403, 404, 409, 413, 415, 422)},
        openapi_extra=openapi.json_of("Described") | openapi.CHANGES,
    )
    async def put_class(request: Request, name: str) -> Any:
        """Say anew what a run-time class is, or add it, in one step; one that was trained stays (409)."""
        service().guard.check(request)
        new = await _described(request)
        if comparable(new.name) != comparable(name):
            raise HTTPException(
                422, f"the address is of {name[:200]}, the class is {new.name}: send one name"
            )
        said, added = await asyncio.to_thread(service().put, new)
        return JSONResponse(said, 201 if added else 200)

    @app.delete(
        "/classes/{name:path}",
        response_model=schemas.Removed,
        responses=faults_of(401, 403, 404, 409, 422),
        openapi_extra=openapi.CHANGES,
    )
    async def remove_class(request: Request, name: str) -> Any:
        """Remove a run-time class; one that was trained stays (409)."""
        service().guard.check(request)
        now = await asyncio.to_thread(service().remove, name, client_of(request.scope))
        return JSONResponse({"name": name, "revision": now.revision})

    @app.get(
        "/changes",
        response_model=schemas.Changes,
        responses=faults_of(401, 403, 422),
        openapi_extra=openapi.CHANGES,
    )
    async def changes(request: Request, after: After = 0) -> Any:
        """Who changed the run-time classes, when and how."""
        service().guard.check(request)
        return JSONResponse(await asyncio.to_thread(service().listed_changes, after))

    @app.post(
        "/feedback",
        status_code=201,
        response_model=schemas.Kept,
        responses={200: openapi.AGAIN, **faults_of(400, 401, 403, 409, 413, 415, 422)},
        openapi_extra=openapi.FEEDBACK | openapi.CHANGES,
    )
    async def feedback(request: Request) -> Any:
        """Say what an answer should have been; a person decides about it before the next training.

        With the picture, it can be learnt from even where nobody else kept it. Until somebody decides, another label
        takes the place of the one before, and the same again is kept once."""
        service().guard.check(request)
        picture = None
        if uploads.kind_of(request) == uploads.MULTIPART:
            async with uploads.form(request, texts=("answer", "label")) as fields:
                texts = {name: await uploads.text_of(fields, name) for name in ("answer", "label")}
                if "image" in fields:
                    picture = await uploads.image_of(fields, service().served.limits.max_bytes)
            given = uploads.check(texts, schemas.Correction, "the form")
        else:
            given = await uploads.json_body(request, schemas.Correction)
        caller = client_of(request.scope)
        said, new = await service().give_feedback(given.answer, given.label, caller, picture)
        return JSONResponse(said, 201 if new else 200)

    @app.get("/model", response_model=schemas.About, responses=faults_of())
    async def model() -> Any:
        """What is being served."""
        return JSONResponse(await asyncio.to_thread(service().about))

    @app.get("/card", response_class=Response, responses={**faults_of(404), 200: openapi.HTML})
    async def card(request: Request) -> Any:
        """The model card: what the model is for, how good it is and where it fails, as a page."""
        return page.card(request, service().card())

    @app.get("/samples", response_model=schemas.Samples, responses=faults_of(422))
    async def samples(use: Use | None = None, label: Labels = None) -> Any:
        """The pictures that came with the model: some to try, and small ones of its seen classes."""
        return JSONResponse({"samples": service().listed_samples(use, label)})

    @app.get(
        "/samples/{id}",
        response_class=Response,
        responses={**faults_of(404, 422), 200: openapi.JPEG},
    )
    async def sample(id: str) -> Any:
        """One of these pictures, a JPEG."""
        # Its id is its digest: it never changes.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(service().sample(id).jpeg, media_type="image/jpeg", headers=headers)


async def _top(service: Inference, request: Request, top: int) -> int:
    """The default is cut down to the classes there are; what was asked for is not. Raises DataError."""
    trained = len(service.living.trained.labels)
    if "top" not in request.query_params:
        return min(top, trained)
    if top > trained:
        now = await asyncio.to_thread(service.living.latest)
        check_top(top, len(now.classifier.labels))
    return top


async def _described(request: Request) -> RuntimeClass:
    given = await uploads.json_body(request, schemas.Described)
    return RuntimeClass(
        given.name,
        given.description,
        tuple(given.synonyms),
        given.attributes,
        None if given.vector is None else tuple(given.vector),
        caller=client_of(request.scope),
    )


async def _candidates(fields: FormData) -> list[str | NewClass]:
    """Those of a form; raises HTTPException and DataError."""
    given = uploads.parse(await uploads.text_of(fields, "candidates"), list[Any], "candidates")
    if not 1 <= len(given) <= CANDIDATES:
        raise DataError(f"{len(given)} candidates: give 1 to {CANDIDATES}")
    return [_candidate(each, f"candidate {number}") for number, each in enumerate(given, 1)]


def _candidate(given: Any, what: str) -> str | NewClass:
    if isinstance(given, str):
        return uploads.check(given, schemas.Name, what)
    if not isinstance(given, dict):
        raise DataError(
            f"{what} is no candidate: give the name of a class, a text, or an object with a `name`"
        )
    new = uploads.check(given, schemas.Described, what)
    return NewClass(new.name, new.description, tuple(new.synonyms), new.attributes or {}, new.vector)


async def _each(service: Inference, images: Sequence[UploadFile | str], top: int) -> list[dict[str, Any]]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(image: UploadFile | str) -> dict[str, Any]:
        async with turns:
            try:
                content = await uploads.read_file(image, service.served.limits.max_bytes, "images")
                return await service.classify(content, top)
            except Exception as error:  # whatever it is, the other pictures have their answers
                status, fault = answer_to(error)
                if status == 500:
                    _log.error("a picture of a batch", exc_info=error)
                return {"error": fault["error"], "status": status}

    return list(await asyncio.gather(*map(one, images)))


def _is_of_the_page(path: str) -> bool:
    """What a browser gets beside the answers, each of it cheap: opening the page is some twenty requests."""
    return path in page.PATHS or path.startswith("/samples/")


def _largest(service: Inference, path: str) -> int:
    settings = service.served.settings
    if path == "/classes" or path.startswith("/classes/"):
        return uploads.JSON_BYTES + uploads.ENVELOPE
    return (settings.max_batch_bytes if path == "/classify_batch" else settings.max_bytes) + uploads.ENVELOPE
