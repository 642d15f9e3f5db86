"""A real classifier, small: an untrained network, six colours as classes, one of them unseen."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ayeaye.backbones import backbones
from ayeaye.backbones.engines import TORCH, Engine, export
from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.data.table import ClassTable
from ayeaye.mappers import create

COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 230, 20),
    "blue": (20, 20, 230),
    "yellow": (230, 230, 20),
    "cyan": (20, 230, 230),
    "magenta": (230, 20, 230),
}
UNSEEN = "magenta"


def picture(colour: str, noise: int = 0) -> bytes:
    """A PNG of one colour with a little noise."""
    grain = np.random.default_rng(noise).integers(-20, 20, (48, 48, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table() -> ClassTable:
    frame = pd.DataFrame(
        {"name": list(COLOURS), "role": ["unseen" if name == UNSEEN else "seen" for name in COLOURS]}
    )
    attributes = pd.DataFrame(np.array(list(COLOURS.values())) / 255, columns=["r", "g", "b"])
    return ClassTable(frame, {"attributes": attributes})


def write_bundle(folder: Path, with_backbone: bool = True, engine: Engine = TORCH) -> str:
    """Train and save the classifier; returns its digest."""
    import torch

    torch.manual_seed(0)
    classes = table()
    made = space.build(classes, params.Classes(source="attributes"), Path)
    network = backbones.build("mobilenet_v3_small", classes=3)
    backbone = backbones.assemble(
        "mobilenet_v3_small", "untrained", network, backbones.Transform(resize=32, crop=32)
    )
    if engine != TORCH:
        backbone = backbone.with_engine(engine, export(network, 32))
    names = [name for name in COLOURS if name != UNSEEN for _ in range(4)]
    images = [Image.open(io.BytesIO(picture(name, i))).convert("RGB") for i, name in enumerate(names)]
    y = np.array([classes.names.index(name) for name in names])
    X = backbone.embed(images)
    mapper = create("ridge").fit(X, y, made.vectors)
    classifier = Classifier(made, classes.seen, mapper, 0.1, 0.5, backbone if with_backbone else None)
    return classifier.save(folder)
