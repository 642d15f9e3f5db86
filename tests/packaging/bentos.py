"""Bentos packed from a small bundle, with the answers that they should give."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_bundle import COLOURS, picture
from small_card import card_of, recorded

from ayeaye.classifier.model import Classifier, digest
from ayeaye.core.errors import PictureError
from ayeaye.core.params import Serve
from ayeaye.packaging.bento import CARD, GoldenRequest, Recipe

TEMPLATE = Path(__file__).parents[2] / "bentofile.yaml"


MEGABYTE = 1_000_000


def recipe_for(bundle: Path, **changes: Any) -> Recipe:
    recipe = Recipe(
        name="ayeaye",
        version=3,
        bundle=bundle,
        bundle_digest=digest(bundle),
        template=TEMPLATE,
        serve=Serve(max_bytes=MEGABYTE, max_pixels=MEGABYTE),
        data_digest="d" * 64,
        metrics={"H": 0.5},
        card=card_files(),
    )
    return replace(recipe, **changes)


def card_files(**changes: Any) -> dict[str, bytes]:
    files = card_of(recorded(**changes), packed=True).files()
    return {name: files[name] for name in CARD}


def golden_of(bundle: Path) -> list[GoldenRequest]:
    contents = [picture(colour, 7) for colour in COLOURS]
    golden = []
    for name, content, answer in zip(
        COLOURS, contents, Classifier.load(bundle).classify(contents), strict=True
    ):
        assert not isinstance(answer, PictureError)
        golden.append(GoldenRequest(name, content, answer))
    return golden


def running_in(folder: Path) -> list[int]:
    """Living processes, other than this one, that name the folder or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + bytes((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
