"""The OpenAPI description where FastAPI cannot write it: uploads, the token, and BentoML's own routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ayeaye.service import examples, schemas

ABOUT = """Labels pictures with classes, also with ones that no training picture showed and that were only described.

A picture goes as the field `image` of a form, with a filename, or as the body itself; no address is ever fetched. The
answer names it (`id`), so that feedback can say what it should have been. Classes may be added at run time, and a
request may bring candidates of its own.

Every fault is `{"error": …}`, which says what to do; `near` has the words or names that are not known, with near ones
that are. What changes the service needs the token, or comes from its own machine where there is none. HEAD is answered
wherever GET is."""
_FILE = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "format": "binary",
    "description": "One picture: JPEG, PNG, WebP, BMP, GIF or TIFF; for a model of features, a row of them as .npy.",
}
_RAW = {"schema": {"type": "string", "format": "binary"}}


def _form(required: list[str], properties: dict[str, Any], **other: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }
    return {"multipart/form-data": {"schema": schema, **other}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def json_of(name: str) -> dict[str, Any]:
    """A body of JSON in the shape of one of REQUESTS."""
    return _body({"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}})


PICTURE = _body({**_form(["image"], {"image": _FILE}), "image/*": _RAW, "application/octet-stream": _RAW})
PICTURES = _body(
    _form(
        ["images"],
        {"images": {"type": "array", "items": _FILE, "minItems": 1, "description": "Many in one field."}},
    )
)
_CANDIDATES = {
    "type": "array",
    "minItems": 1,
    "maxItems": 100,
    "items": {
        "anyOf": [
            {"type": "string", "minLength": 1, "maxLength": 200},
            {"$ref": "#/components/schemas/Described"},
        ]
    },
    "description": "As JSON: names of classes, texts that describe what there may be, or classes described in full.",
    "examples": [["okapi", "a striped cat", {"name": "fossa", "description": "A brown cat."}]],
}
_AS_JSON = {"candidates": {"contentType": "application/json"}}
_CHOICE = {"image": _FILE, "candidates": _CANDIDATES}
AMONG = _body(_form(["image", "candidates"], _CHOICE, encoding=_AS_JSON))
EXPLAINED = _body(
    {**_form(["image"], _CHOICE, encoding=_AS_JSON), "image/*": _RAW, "application/octet-stream": _RAW}
)
JPEG: dict[str, Any] = {
    "description": "The picture",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}
HTML: dict[str, Any] = {
    "description": "The page",
    "content": {"text/html": {"schema": {"type": "string"}}},
}
_CORRECTION = {
    "answer": {"type": "string", "maxLength": 200, "description": "The id of the answer."},
    "label": {"type": "string", "minLength": 1, "maxLength": 200, "description": "The right label."},
}
FEEDBACK = _body(
    {
        "application/json": {"schema": {"$ref": "#/components/schemas/Correction"}},
        **_form(["answer", "label"], {**_CORRECTION, "image": _FILE}),
    }
)
ADDED: dict[str, Any] = {"model": schemas.Added, "description": "There was none of that name"}
AGAIN: dict[str, Any] = {"model": schemas.Kept, "description": "The same is pending already: its number"}
# From the service's own machine no token is needed where there is none.
CHANGES: dict[str, Any] = {"security": [{"token": []}, {}]}
REQUESTS = (schemas.Described, schemas.Correction)


def _plain(said: str, **statuses: str) -> dict[str, Any]:
    responses = {"200": said, **{status.removeprefix("_"): word for status, word in statuses.items()}}
    return {
        "get": {
            "summary": said,
            "responses": {
                status: {"description": word, "content": {"text/plain": {"schema": {"type": "string"}}}}
                for status, word in responses.items()
            },
        }
    }


BENTOML = {
    "/livez": _plain("The process lives", _503="It does not answer as it should"),
    "/healthz": _plain("The process lives", _503="It does not answer as it should"),
    "/readyz": _plain("It takes requests", _503="Not yet"),
    "/metrics": _plain("Counters and durations, as Prometheus reads them"),
}


def _add_examples(paths: dict[str, Any]) -> None:
    """Give each fault of each operation an example of its own."""
    for path, item in paths.items():
        for method, operation in item.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    fault = examples.of(f"{method} {path}", int(status))
                    response["content"]["application/json"]["example"] = fault


def install(app: FastAPI) -> None:
    """Describe the whole service at /openapi.json, and at /docs.json, where BentoML's page looks for it."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            components = made.setdefault("components", {})
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for request in REQUESTS:
                schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
                components["schemas"][request.__name__] = schema
            _add_examples(made["paths"])
            made["paths"] |= BENTOML
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]

    @app.get("/docs.json", include_in_schema=False)
    async def description() -> Any:
        return app.openapi()
