"""The BentoML service: a classifier behind HTTP, decoding in threads, embedding in adaptive batches.

    bentoml serve ayeaye:v3-1a2b3c4d            as packed
    AYEAYE_BUNDLE=models/classifier bentoml serve ayeaye.service.service:Ayeaye

livez, readyz and metrics are BentoML's own; the rest is in `ayeaye.service.app`. Imported while the Bento is
built, so torch and the classifier are loaded only by the class.
"""

from __future__ import annotations

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import bentoml
import numpy as np

from ayeaye.errors import DataError, PictureError
from ayeaye.service import app as http
from ayeaye.service.batching import Batcher
from ayeaye.service.served import Served

if TYPE_CHECKING:
    from ayeaye.classifier import Classifier

LARGEST_BATCH = 32
ALTERNATIVES = 5
# Each may hold one decoded picture: this bounds memory.
DECODERS = min(8, max(2, os.cpu_count() or 2))

_app = http.create(bentoml.get_current_service)


@bentoml.service(
    name="Ayeaye",
    workers=int(os.environ.get("AYEAYE_WORKERS", "1")),
    traffic={"timeout": 60, "max_concurrency": 128},
)
@bentoml.asgi_app(_app, path="/")
class Ayeaye:
    """Labels pictures with classes, also ones that no training picture showed."""

    def __init__(self) -> None:
        from ayeaye import classifier

        self.served = Served.here()
        self.digest = classifier.digest(self.served.bundle)
        self.labeller = Labeller(classifier.Classifier.load(self.served.bundle), self.served)
        self.decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self.batcher: Batcher[Any, dict[str, Any]] = Batcher(self.labeller.label, LARGEST_BATCH)
        self.labeller.warm_up()

    async def answer(self, content: bytes) -> dict[str, Any]:
        """The answer for one picture; raises PictureError when it cannot be read."""
        loop = asyncio.get_running_loop()
        ready = await loop.run_in_executor(self.decoders, self.labeller.prepare, content)
        answer = await self.batcher(ready)
        return {**answer, "model": {"version": self.served.version, "bento": self.served.bento}}

    def about(self) -> dict[str, Any]:
        """What is being served, for GET /model."""
        classifier = self.labeller.classifier
        seen = int(classifier.seen.sum())
        return {
            "version": self.served.version,
            "bento": self.served.bento,
            "bundle_digest": self.digest,
            "data_digest": self.served.data_digest,
            "metrics": self.served.metrics,
            "classes": {"seen": seen, "unseen": len(classifier.labels) - seen},
            "code": self.served.code,
        }


class Labeller:
    """From bytes to answers in two steps: `prepare` one in any thread, then `label` many together."""

    def __init__(self, classifier: Classifier, served: Served) -> None:
        self.classifier = classifier
        self.limits = served.limits
        backbone = classifier.backbone
        self._transform = backbone.transform.preset() if backbone else None

    def prepare(self, content: bytes) -> Any:
        """The network's input (3, h, w), or a row of features (d,) where the bundle has no backbone.

        Raises PictureError when the content cannot be read.
        """
        from ayeaye.data.decode import decode

        if self._transform is None:
            return _features(content)
        return self._transform(decode(content, self.limits, target=self.classifier.resize))

    def label(self, prepared: list[Any]) -> list[dict[str, Any] | Exception]:
        """An answer for each of what `prepare` gave."""
        import torch

        if self.classifier.backbone:
            embeddings = self.classifier.backbone.forward(torch.stack(prepared))
        else:
            embeddings = np.stack(prepared)
        try:
            scores = self.classifier.scores(embeddings)
        except (ValueError, DataError) as error:
            raise PictureError(f"it does not fit what the model was trained on ({error})") from None
        return list(self.classifier.answers(scores, top=ALTERNATIVES))

    def warm_up(self) -> None:
        """Let the first request be as quick as the others."""
        from PIL import Image

        if self._transform:
            self.label([self._transform(Image.new("RGB", (64, 64)))])


def _features(content: bytes) -> np.ndarray:
    try:
        row = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError):
        row = None
    if (
        not isinstance(row, np.ndarray)
        or row.ndim != 1
        or row.dtype.kind != "f"
        or not np.isfinite(row).all()
    ):
        raise PictureError("this model was trained on features: send one row of finite floats as .npy")
    return row.astype(np.float32)
