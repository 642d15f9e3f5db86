"""The page at `/`, for a person at a browser: static files of the package, which ask the service's own routes."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, and no form that a browser would send by itself.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


def install(app: FastAPI) -> None:
    """Serve the page at `/` and its files beside it."""
    for name in KINDS:
        _serve(app, "/" if name == "index.html" else f"/{name}", name)


def _serve(app: FastAPI, path: str, name: str) -> None:
    content = resources.files("ayeaye.service").joinpath("page", name).read_bytes()
    # A browser asks each time whether it has the newest, so that a new model never meets an old page.
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    }

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def file(request: Request) -> Any:
        known = [
            each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")
        ]
        if headers["ETag"] in known:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=KINDS[name], headers=headers)
