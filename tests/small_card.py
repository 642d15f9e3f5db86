"""What is recorded of a small version, from real measurements, and its card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayeaye.class_vectors import quality, space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.core.params import Release
from ayeaye.data.table import ClassTable
from ayeaye.evaluation import metrics
from ayeaye.evaluation.metrics import Fold
from ayeaye.mappers import create
from ayeaye.pipeline.evaluate import Measured, none_of_these
from ayeaye.release import gate
from ayeaye.release.card import Card, Recorded, content
from ayeaye.release.registry import Version
from ayeaye.reporting import plots

EVIL = '<script>alert("x")</script>&|_*[a](b)'
NAMES = ("okapi", "zebra", EVIL, "otter", "heron", "eagle", "fox", "aye-aye")
UNSEEN = 3  # the last ones
WIDTH, PICTURES = 12, 160
RELEASE = Release(minimum={"H": 0.1}, maximum={"latency_ratio": 3.0})


def recorded(names: Sequence[str] = NAMES, on: str = "unseen classes", **changes: Any) -> Recorded:
    """Of a model of features, measured on unseen classes, on class folds, or on seen classes alone."""
    return replace(_recorded(tuple(names), on), **changes)


def card_of(recorded: Recorded, *, packed: bool = False) -> Card:
    """With its pictures."""
    figures = dict(recorded.metrics)
    seen = np.array(recorded.bundle["seen"])[: len(figures["names"])]
    drawn = plots.draw(figures, figures["names"], seen) if figures["T1"] is not None else {}
    return Card(content(recorded, packed=packed), drawn)


def decided(recorded: Recorded, **changes: Any) -> dict[str, Any]:
    """The decision on it against a champion, as it lies in the registry."""
    loss = gate.Loss("H", 0.01, 0.015, 100, 8)
    return {**gate.decide(recorded.metrics, RELEASE, 2, [loss]).as_dict(), **changes}


@cache
def _recorded(names: tuple[str, ...], on: str) -> Recorded:
    rng = np.random.default_rng(0)
    count = len(names)
    seen = np.arange(count) < count - UNSEEN
    attributes = pd.DataFrame(rng.normal(size=(count, 6)).astype(np.float32), columns=list("abcdef"))
    frame = pd.DataFrame({"name": names, "role": np.where(seen, "seen", "unseen")})
    made = space.build(
        ClassTable(frame, {"attributes": attributes}), params.Classes(source="attributes"), Path
    )
    y = np.repeat(np.flatnonzero(seen), 6)
    X = (attributes.to_numpy() @ rng.normal(size=(6, WIDTH)))[y] + rng.normal(size=(len(y), WIDTH))
    about = {
        "folds": [[0, 1], [2, 3]],
        "selection": [{"T1": 0.5, "H": 0.25, "AUSUC": 0.125}, {}],
        "corrections": [{}],
    }
    mapper = create("ridge").fit(X.astype(np.float32), y, made.vectors)
    with tempfile.TemporaryDirectory() as folder:
        Classifier(made, seen, mapper, 0.1, 0.5, threshold=0.25, about=about).save(Path(folder))
        bundle = json.loads((Path(folder) / "bundle.json").read_bytes())
    visual = np.stack([X[y == c].mean(axis=0) for c in np.flatnonzero(seen)])
    figures = _measured(names, seen, on, rng)
    figures["class_space"] = quality.judge(made.vectors[seen], visual)
    # As it is read from a file.
    figures = json.loads(json.dumps(figures))
    tags = {
        name: f"{name} of it"
        for name in ("data_digest", "git_commit", "params_digest", "lock", "ayeaye_version")
    }
    return Recorded(
        model="ayeaye",
        version=Version(
            3, "run", 1_700_000_000.0, {**tags, "bundle_digest": "b" * 64, "evaluation_digest": "e"}
        ),
        params={"evaluate.bootstrap": "200", "train.select": "auto"},
        dataset={"name": "features", "pictures": PICTURES, "rejected": 2},
        metrics=figures,
        splits=[{"split": "train", "pictures": len(y), "classes": int(seen.sum())}],
        bundle=bundle,
        space=made,
        backbone=None,
    )


def _measured(names: tuple[str, ...], seen: np.ndarray, on: str, rng: np.random.Generator) -> dict[str, Any]:
    """metrics.json, where unseen classes have pictures, where seen ones stand in, and where there is neither."""
    pictured = np.arange(len(names)) if on == "unseen classes" else np.flatnonzero(seen)
    y = pictured[np.arange(PICTURES) % len(pictured)]
    scores = rng.normal(size=(PICTURES, len(names)))
    scores[np.arange(PICTURES), y] += 2
    scores[:, -1] -= 9  # nearest to nothing
    if on == "class folds":
        stood_in = [np.flatnonzero(seen)[fold::2] for fold in range(2)]
        folds = [Fold(scores[:, seen], y, ~np.isin(np.flatnonzero(seen), away), 0.3) for away in stood_in]
        found = metrics.measure_folds(folds, resamples=200)
    else:
        folds = [Fold(scores, y, seen, 0.3)]
        found = metrics.measure(*folds[0], resamples=200)
    columns = np.flatnonzero(seen) if on == "class folds" else np.arange(len(names))
    measured = Measured(folds, [], columns, [1.0] * len(folds), [0.25] * len(folds), on)
    confidence, right = rng.random(PICTURES), rng.random(PICTURES) < 0.5
    half = PICTURES // 2
    return {
        **found,
        "none_of_these": none_of_these(measured, 0.5),
        "reliability": {
            **metrics.reliability(confidence, right),
            "seen": metrics.reliability(confidence[:half], right[:half]),
            "unseen": metrics.reliability(confidence[half:], right[half:]),
        },
        "leakage": {"pretrained_on": "not known", "pretraining_classes": 0, "flags": {}, "clean": None},
        "reduced_precision": None,
        "names": [names[c] for c in columns],
    }
