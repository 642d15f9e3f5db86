"""The BentoML service: a classifier behind HTTP.

    bentoml serve ayeaye:v3-1a2b3c4d            as packed
    AYEAYE_BUNDLE=models/classifier bentoml serve ayeaye.service.service:Ayeaye

What it does is in `ayeaye.service.inference`, its routes are in `ayeaye.service.app`; livez, readyz, metrics, the
bound on requests at once (429) and on their time (504) are BentoML's own. Imported while the Bento is built, and by
BentoML's own process before it starts the workers: what only a worker needs is imported there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import bentoml
from bentoml.images import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from ayeaye.core.params import STATE_IN_IMAGE
from ayeaye.service import traffic
from ayeaye.service.served import Served, settings, workers

if TYPE_CHECKING:
    from fastapi import FastAPI

_packed = settings()


def _image() -> Image:
    """With a folder for the state, so that a volume there belongs to the user whom the service runs as.

    Where it begins and its own first command come from bentofile.yaml while a Bento is built.
    """
    image = Image()
    image.base_image, image.commands = (
        "",
        [f"mkdir {STATE_IN_IMAGE} && chown bentoml:bentoml {STATE_IN_IMAGE}"],
    )
    return image


@cache
def _application() -> FastAPI:
    from ayeaye.service import app

    return app.create(lambda: bentoml.get_current_service().inference)


traffic.install(lambda: _application().routes)


class Routed:
    """ASGI middleware: every address is the application's, but those of BentoML.

    BentoML would mount it, and answer addresses that it does not know in another form.
    """

    def __init__(self, app: ASGIApp) -> None:
        from ayeaye.service import openapi

        self.app, self.not_ours = app, openapi.BENTOML

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"] not in self.not_ours
        await (_application() if ours else self.app)(scope, receive, send)


@bentoml.service(
    name="Ayeaye",
    image=_image(),
    workers=workers(),
    traffic={"timeout": _packed.timeout, "max_concurrency": _packed.concurrency},
)
class Ayeaye:
    """Labels pictures with classes, also ones that no training picture showed."""

    def __init__(self) -> None:
        from ayeaye.service.inference import Inference

        self.inference = Inference(Served.here())

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """In BentoML's own process, which ends where there is nothing to serve; a worker would be started for ever."""
        Served.here()

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.inference.close()


Ayeaye.add_asgi_middleware(Routed)  # type: ignore[attr-defined]
