"""Pages for a person at a browser: the one at `/`, static files of the package that ask the service's own routes, and
the model card."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

HTML = "text/html; charset=utf-8"

KINDS = {
    "index.html": HTML,
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PATHS = {"/" if name == "index.html" else f"/{name}": name for name in KINDS}
# Nothing from elsewhere, nothing inline, and no form that a browser would send by itself.
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        _NOTHING_ELSE,
    ]
)


# No page of ours wants any of it, nor to be reached from the window that opened it.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def install(app: FastAPI) -> None:
    """Serve the page at `/` and its files beside it."""
    for path, name in PATHS.items():
        _serve(app, path, name)


def _serve(app: FastAPI, path: str, name: str) -> None:
    content = resources.files("ayeaye.service").joinpath("page", name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def file(request: Request) -> Any:
        return _answer(request, content, KINDS[name], POLICY)


def card(request: Request, content: bytes) -> Response:
    """The answer of GET /card: a page whose only style is the one within it, by its digest, and whose pictures lie in
    it."""
    styles = re.findall(rb"<style>(.*?)</style>", content, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(style).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = f"default-src 'none'; style-src {allowed}; img-src data:; {_NOTHING_ELSE}"
    return _answer(request, content, HTML, policy)


def _answer(request: Request, content: bytes, kind: str, policy: str) -> Response:
    # A browser asks each time whether it has the newest, so that a new model never meets an old page.
    headers = {
        **_HEADERS,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    }
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
