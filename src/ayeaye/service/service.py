"""The BentoML service: a classifier behind HTTP.

    bentoml serve ayeaye:v3-1a2b3c4d            as packed
    AYEAYE_BUNDLE=models/classifier bentoml serve ayeaye.service.service:Ayeaye

What it does is in `ayeaye.service.inference`, its routes are in `ayeaye.service.app`; livez, readyz, metrics, the
bound on requests at once (429) and on their time (504) are BentoML's own. Imported while the Bento is built, so
torch and the classifier are loaded only by the class.
"""

from __future__ import annotations

import os

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from ayeaye.service import app as http
from ayeaye.service import openapi, traffic
from ayeaye.service.inference import Inference
from ayeaye.service.served import Served, settings

_packed = settings()
_app = http.create(bentoml.get_current_service)
traffic.install(_app.routes)


class Routed:
    """ASGI middleware: every address is the application's, but those of BentoML.

    BentoML would mount it, and answer addresses that it does not know in another form.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"] not in openapi.BENTOML
        await (_app if ours else self.app)(scope, receive, send)


@bentoml.service(
    name="Ayeaye",
    workers=int(os.environ.get("AYEAYE_WORKERS", "1")),
    traffic={"timeout": _packed.timeout, "max_concurrency": _packed.concurrency},
)
class Ayeaye(Inference):
    """Labels pictures with classes, also ones that no training picture showed."""

    def __init__(self) -> None:
        super().__init__(Served.here())

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.close()


Ayeaye.add_asgi_middleware(Routed)  # type: ignore[attr-defined]
