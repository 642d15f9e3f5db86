"""Small workspaces for the end-to-end tests, made and driven through the real command line.

The source is a folder of paints: each class is a colour mixed from three levels of red, green and blue, and
is described by them; some mixtures are never photographed. The backbone is a small network with random but
fixed weights in a checkpoint file, which tells colours apart without any training.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from ayeaye.core.workspace import Workspace

SHARED = Path(os.environ.get("AYEAYE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
PROGRAM = str(Path(sys.executable).with_name("ayeaye"))
HUES = ("red", "green", "blue")
LEVELS = {0: ("no", 20), 1: ("some", 125), 2: ("much", 230)}
UNSEEN = ("paint 012", "paint 120", "paint 201", "paint 022", "paint 210", "paint 112")
PICTURES = 8
SMALL = (
    "embed.backbone=mobilenet_v3_small",
    "embed.size=32",
    "embed.mean=0.5",
    "embed.std=0.5",
    "embed.engine=onnxruntime",  # nothing to choose, and each of many services starts without torch
    "classes.source=attributes",
    "train.repeats=1",
    "evaluate.bootstrap=200",
    # With so few pictures no bound on a loss could be tight; chance and hubs are tested where they are real.
    "release.epsilon=1",
    "release.minimum={}",
    "release.maximum={}",
)


def paints() -> dict[str, tuple[int, int, int]]:
    """Every mixture under its name, but the middle of all: centred, its class vector would be nothing."""
    mixtures = (levels for levels in product(LEVELS, repeat=3) if levels != (1, 1, 1))
    return {"paint " + "".join(map(str, levels)): levels for levels in mixtures}


def paint(name: str, number: int) -> bytes:
    """A photograph of a paint, a little off its colour and grainy; each number is another one."""
    chance = np.random.default_rng([number, *paints()[name]])
    colour = np.array([LEVELS[level][1] for level in paints()[name]]) + chance.integers(-12, 13, 3)
    pixels = np.clip(colour + chance.integers(-25, 26, (40, 40, 3)), 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_paints(folder: Path, pictures: int = PICTURES, photographed: Sequence[str] | None = None) -> Path:
    """images/<class>/* and classes.csv; `photographed` are the classes with pictures (none given: all)."""
    folder.mkdir(parents=True)
    with (folder / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "role", "description", "red", "green", "blue", "cyan", "magenta", "yellow"])
        for name, levels in paints().items():
            words = [f"{LEVELS[level][0]} {hue}" for level, hue in zip(levels, HUES, strict=True)]
            role = "unseen" if name in UNSEEN else "seen"
            lacking = [2 - level for level in levels]
            writer.writerow([name, role, f"A paint with {', '.join(words)}.", *levels, *lacking])
    for name in paints() if photographed is None else photographed:
        add_pictures(folder, name, range(pictures))
    return folder


def add_pictures(folder: Path, name: str, numbers: Sequence[int]) -> list[Path]:
    """More photographs of a class."""
    place = folder / "images" / name
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:03d}.png" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        path.write_bytes(paint(name, number))
    return paths


def write_checkpoint(path: Path) -> Path:
    """Random weights, always the same, with batch statistics of noise so that activations do not fade."""
    import torch

    from ayeaye.backbones import backbones

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        network = backbones.build("mobilenet_v3_small", classes=2).train()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        colours = torch.rand(64, 3, 1, 1) * 4 - 2
        network(colours + torch.rand(64, 3, 32, 32) - 0.5)
        torch.save(network.half().state_dict(), path)
    return path


def write_features(path: Path, *, shuffled: bool = False, unseen_pictures: bool = True) -> Path:
    """An .npz of 24 seen and 12 unseen classes: features are a linear map of the attributes, and noise.

    Shuffled, the attributes stand beside the wrong classes.
    """
    chance = np.random.default_rng(0)
    classes, seen, each, width = 36, 24, 24, 32
    attributes = chance.normal(size=(classes, 8))
    attributes /= np.linalg.norm(attributes, axis=1, keepdims=True)
    means = attributes @ chance.normal(size=(8, width))
    labels = np.repeat(np.arange(classes), each)
    split = np.where(np.tile(np.arange(each) < each // 3, classes), "test_seen", "train")
    split = np.where(labels >= seen, "test_unseen", split)
    features = means[labels] + 0.15 * chance.normal(size=(len(labels), width))
    kept = slice(None) if unseen_pictures else labels < seen
    np.savez(
        path,
        features=features[kept].astype(np.float32),
        labels=labels[kept],
        split=split[kept],
        class_names=np.array([f"kind {number:02d}" for number in range(classes)]),
        role=np.where(np.arange(classes) < seen, "seen", "unseen"),
        attributes=(chance.permutation(attributes) if shuffled else attributes).astype(np.float32),
    )
    return path


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def ayeaye(*arguments: object, environment: Mapping[str, str] | None = None) -> Done:
    """Run a command of ayeaye in this process, which saves the imports; the stages are processes even so."""
    from ayeaye import cli

    out, err, code = io.StringIO(), io.StringIO(), 0
    # The command line writes into the environment; nothing of that may stay.
    with (
        patch.dict(os.environ, environment or {}),
        patch.object(sys, "argv", ["ayeaye", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Place:
    """A workspace, the environment its commands run in, and the folder or file of its source."""

    root: Path
    source: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: object) -> Done:
        command, *rest = arguments
        return ayeaye(command, "--workspace", self.root, *rest, environment=self.environment)

    def retrain(self, *, expect: int = 0) -> dict[str, Any]:
        """The outcome of `ayeaye retrain --json`, after its exit status was as expected."""
        done = self("retrain", "--json")
        assert done.code == expect, done.err or done.out
        return done.json if done.out else {}

    def set(self, *settings: str) -> None:
        done = self("set", *settings)
        assert done.code == 0, done.err

    @property
    def status(self) -> dict[str, Any]:
        done = self("status", "--json")
        assert done.code == 0, done.err
        return done.json

    def read(self, name: str) -> Any:
        return json.loads((self.root / name).read_bytes())

    def copy(self, folder: Path) -> Place:
        """A workspace and a source of its own that begin as this one."""
        source = folder / self.source.name
        (shutil.copytree if self.source.is_dir() else shutil.copyfile)(self.source, source)
        place = Place(self.moved(folder / "workspace").root, source, self.environment)
        place.set(f"prepare.path={source}")
        return place

    def moved(self, root: Path) -> Place:
        """A copy at another place, of the same source, which knows already that it is one."""
        shutil.copytree(self.root, root, symlinks=True)
        Workspace(root).settle()
        return Place(root, self.source, self.environment)


def make(root: Path, source: Path, environment: Mapping[str, str], *settings: str) -> Place:
    """A fresh workspace of a source, small unless its settings say otherwise."""
    options = [part for setting in settings for part in ("--set", setting)]
    done = ayeaye("init", root, "--set", f"prepare.path={source}", *options, environment=environment)
    assert done.code == 0, done.err
    return Place(root, source, environment)


def wait_for(ready: Callable[[], object], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)
