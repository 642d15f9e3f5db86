"""The bundle: backbone, mapper, class space, labelling and calibration as one thing that labels pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ayeaye.classspace.space import ClassSpace
from ayeaye.data.decode import Limits, decode
from ayeaye.errors import AyeayeError, BundleError, DataError, PictureError
from ayeaye.files import digest_folder, write_atomic
from ayeaye.labelling import calibration, nearest
from ayeaye.mapping import MAPPERS, Mapper

if TYPE_CHECKING:
    from PIL import Image

    from ayeaye.embedding.backbones import Backbone

FORMAT = 1
Part = TypeVar("Part")


@dataclass(frozen=True)
class Classifier:
    """Labels pictures by the nearest class. C classes, in the order of `space.names`."""

    space: ClassSpace
    seen: np.ndarray  # (C,) bool
    mapper: Mapper
    gamma: float  # offset taken from seen classes' scores (Chao et al. 2016)
    temperature: float  # divides scores before the softmax (Guo et al. 2017)
    backbone: Backbone | None = None
    about: dict[str, Any] | None = None  # how it was made: settings, folds; no times, no paths

    @property
    def labels(self) -> list[str]:
        return self.space.names

    @cached_property
    def mapped_classes(self) -> np.ndarray:
        """(C, m): the classes in the common space."""
        return self.mapper.map_classes(self.space.vectors)

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embeddings (n, d) of upright RGB pictures."""
        if self.backbone is None:
            raise DataError(
                "this classifier was trained on features and has no backbone: it cannot take pictures"
            )
        return self.backbone.embed(images)

    def raw_scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosines (n, C) of embeddings (n, d) with the classes, before the offset."""
        return nearest.scores(self.mapper.map_images(embeddings), self.mapped_classes)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores (n, C) by which classes are ranked: cosines less the seen offset."""
        return calibration.stack(self.raw_scores(embeddings), self.seen, self.gamma)

    def answers(self, scores: np.ndarray, top: int = 5) -> list[dict[str, Any]]:
        """For each row of scores (n, C): label, seen, confidence, and the `top` best classes as alternatives."""
        confidences = calibration.probabilities(scores, self.temperature)
        # A stable sort of the negated scores: among equals the first class wins, as argmax has it.
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            {
                "label": self.labels[order[0]],
                "seen": bool(self.seen[order[0]]),
                "confidence": float(confidences[row, order[0]]),
                "alternatives": [
                    {"label": self.labels[c], "seen": bool(self.seen[c]), "score": float(scores[row, c])}
                    for c in order
                ],
            }
            for row, order in enumerate(ranked)
        ]

    def classify(
        self, contents: Sequence[bytes], limits: Limits | None = None, top: int = 5
    ) -> list[dict[str, Any] | PictureError]:
        """An answer for each encoded picture, or the reason why it cannot be read."""
        results: list[dict[str, Any] | PictureError] = []
        images = []
        for content in contents:
            try:
                images.append(decode(content, limits or Limits(), target=self.resize))
                results.append({})
            except PictureError as error:
                results.append(error)
        answers = iter(self.answers(self.scores(self.embed(images)), top)) if images else iter(())
        return [result if isinstance(result, PictureError) else next(answers) for result in results]

    @property
    def resize(self) -> int | None:
        """The shorter side, in pixels, to which the backbone's transform brings a picture."""
        return self.backbone.transform.resize if self.backbone else None

    def save(self, folder: Path) -> str:
        """Write the bundle, bundle.json last; returns its digest."""
        from safetensors.numpy import save_file

        from ayeaye.files import replacing

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bundle.json").unlink(missing_ok=True)
        self.space.save(folder / "class_space")
        if self.backbone:
            self.backbone.save(folder / "backbone")
        arrays = {name: np.ascontiguousarray(array) for name, array in self.mapper.state().items()}
        with replacing(folder / "mapper.safetensors") as part:
            save_file(arrays, part)
        description = {
            "format": FORMAT,
            "mapper": {"name": self.mapper.name, "settings": self.mapper.settings},
            "seen": self.seen.tolist(),
            "gamma": self.gamma,
            "temperature": self.temperature,
            "backbone": self.backbone.digest if self.backbone else None,
            "about": self.about or {},
        }
        write_atomic(folder / "bundle.json", json.dumps(description, indent=1, sort_keys=True).encode())
        return digest(folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Classifier:
        """Read a bundle; raises BundleError where it is damaged or of another format."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from ayeaye.embedding import backbones

        if not (folder / "bundle.json").is_file():
            raise BundleError(f"{folder} holds no classifier: run `ayeaye train`, or `dvc checkout`")
        try:
            described = json.loads((folder / "bundle.json").read_bytes())
            if described["format"] != FORMAT:
                raise BundleError(
                    f"{folder} is a bundle of format {described['format']}, this ayeaye reads {FORMAT}: "
                    "use the ayeaye it was made with, or train again"
                )
            state = load_file(folder / "mapper.safetensors")
            made = described["mapper"]
            mapper = MAPPERS[made["name"]].from_state(made["settings"], state)
            space = _part("class space", lambda: ClassSpace.load(folder / "class_space"))
            seen = np.array(described["seen"], bool)
            if len(seen) != len(space.names):
                raise ValueError(f"{len(seen)} roles for {len(space.names)} classes")
            gamma, temperature = float(described["gamma"]), float(described["temperature"])
            backbone = (
                _part("backbone", lambda: backbones.load(folder / "backbone", device))
                if described["backbone"]
                else None
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise BundleError(
                f"the bundle {folder} is damaged ({error}): restore it with `dvc checkout`"
            ) from None
        if backbone and backbone.digest != described["backbone"]:
            raise BundleError(
                f"the bundle {folder} was made with another backbone than lies in it: train again"
            )
        return cls(space, seen, mapper, gamma, temperature, backbone, described["about"])


def digest(folder: Path) -> str:
    """The identity of a bundle: SHA-256 over its files; raises BundleError where there is none."""
    if not (folder / "bundle.json").is_file():
        raise BundleError(f"{folder} holds no classifier: run `ayeaye train`, or `dvc checkout`")
    return digest_folder(folder)


def _part(name: str, load: Callable[[], Part]) -> Part:
    """A part of a bundle; its own error would say how to make it again, where the bundle is what is damaged."""
    try:
        return load()
    except AyeayeError:
        raise ValueError(f"its {name}") from None
