"""From bytes to embeddings and scores: one picture prepared in any thread, then many read together."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.core.errors import DataError, PictureError
from ayeaye.data.decode import Limits, pixels
from ayeaye.service.living import Living, Now
from ayeaye.service.memory import give_back

if TYPE_CHECKING:
    from ayeaye.classifier.model import Classifier


@dataclass(frozen=True)
class Prepared:
    """The network's input (3, h, w), or a row of features (d,), and the SHA-256 of the content."""

    value: Any
    digest: str


@dataclass(frozen=True)
class Reading:
    """What the network saw: embedding (d,), its projection (m,), and scores (C,) by the classes as they were `now`."""

    embedding: np.ndarray
    projection: np.ndarray
    scores: np.ndarray
    now: Now
    digest: str

    @property
    def classifier(self) -> Classifier:
        return self.now.classifier


class Labeller:
    """Prepares contents within limits, and reads them by the classifier as it is now."""

    def __init__(self, living: Living, limits: Limits) -> None:
        self.living, self.limits = living, limits
        self._backbone = living.trained.backbone
        self._look = self._backbone.transform.reader(limits) if self._backbone else None

    def pixels(self, content: bytes) -> int:
        """How many are to be decoded, 0 of features; raises PictureError."""
        return pixels(content, self.limits) if self._look else 0

    def prepare(self, content: bytes) -> Prepared:
        """Raises PictureError when the content cannot be read."""
        try:
            return self._prepared(content)
        finally:
            give_back()

    def _prepared(self, content: bytes) -> Prepared:
        digest = hashlib.sha256(content).hexdigest()
        return Prepared(self._look(content) if self._look else _features(content), digest)

    def read(self, prepared: list[Prepared]) -> list[Reading]:
        """A reading of each; run-time classes that came before this call are among the classes."""
        now = self.living.latest()
        if self._backbone:
            embeddings = self._backbone.forward(np.stack([each.value for each in prepared]))
        else:
            embeddings = np.stack([each.value for each in prepared])
        try:
            projections = now.classifier.mapper.map_images(embeddings)
            scores = now.classifier.scores_of(projections)
        except (ValueError, DataError) as error:
            raise PictureError(f"it does not fit what the model was trained on ({error})") from None
        return [
            Reading(embedding, projection, row, now, each.digest)
            for embedding, projection, row, each in zip(
                embeddings, projections, scores, prepared, strict=True
            )
        ]

    def warm_up(self) -> None:
        """Let the first request be as quick as the others."""
        from PIL import Image

        if self._backbone:
            self.read([Prepared(self._backbone.transform.preset()(Image.new("RGB", (64, 64))), "")])


def _features(content: bytes) -> np.ndarray:
    """(d,) float32 of an .npy; NumPy's reader raises a dozen unrelated types on damaged ones."""
    try:
        if not content.startswith(np.lib.format.MAGIC_PREFIX):
            raise ValueError
        row = np.load(io.BytesIO(content), allow_pickle=False)
        if row.ndim != 1 or row.dtype.kind != "f":
            raise ValueError
        with np.errstate(over="ignore"):
            row = row.astype(np.float32)
        if not np.isfinite(row).all():
            raise ValueError
    except Exception:
        raise PictureError(
            "this model was trained on features: send one row of finite floats as .npy"
        ) from None
    return row
