"""Which engine the stage `embed` runs its backbone with: tried on the dataset's own pictures, and remembered.

Where it is of reduced precision, also whether it keeps the labels of what was trained on its embeddings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.backbones import backbones, engines
from ayeaye.backbones.backbones import Backbone
from ayeaye.backbones.engines import Choice, Engine, MissingEngine, Runner
from ayeaye.backbones.shards import prepared
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data.decode import Limits
from ayeaye.data.splits import TRAIN, VALIDATION
from ayeaye.data.table import Dataset
from ayeaye.pipeline.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

SHARDS = 8  # from which pictures are taken: of a large dataset not all is read
SOME, ASKED, SHOWN = 16, 400, 1000  # pictures to time on, to label, and to make the class means of


def with_engine(
    workspace: Workspace, dataset: Dataset, backbone: Backbone, progress: Progress
) -> tuple[Backbone, str]:
    """The backbone with the engine of params.yaml, and why it is this one.

    However few and small the pictures, engines are tried: the choice serves long after this stage, which alone
    would not be worth it. What was tried is remembered for each backbone on each machine (`.ayeaye/engines`), so
    that to train again gives the same digests.
    """
    chosen = workspace.params.embed
    side = backbone.transform.crop
    if chosen.engine == "torch":
        return backbone, "as embed.engine says"
    if (device := backbones.device_of(chosen.device)) != "cpu":
        return backbone, f"on {device} torch runs"

    reduced = chosen.precision == "auto"
    machine = engines.machine()
    recipe = json.dumps([backbone.digest, chosen.engine, reduced, machine])
    memory = workspace.state / "engines" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.json"
    choice = _remembered(memory)
    if choice is None:
        sample = Sample(dataset, backbone, Limits.of(workspace.params.prepare))
        with progress.task("trying engines", None):
            choice = engines.choose(
                backbone.network, side, sample.some(), sample.agreement, wanted=chosen.engine, reduced=reduced
            )
        write_atomic(memory, json.dumps({**asdict(choice), "machine": machine}, indent=1).encode())
    if choice.engine == engines.TORCH:
        return backbone, choice.reason
    try:
        graph = engines.export(backbone.network, side)
    except MissingEngine as error:
        if chosen.engine != "auto":
            raise
        return backbone, f"{choice.engine} was chosen before, but {error}"
    return backbone.with_engine(choice.engine, graph), choice.reason


def _remembered(memory: Path) -> Choice | None:
    try:
        known = json.loads(memory.read_bytes())
        return Choice(Engine(**known["engine"]), known["reason"], known["milliseconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Sample:
    """Pictures of a dataset on which engines are tried."""

    def __init__(self, dataset: Dataset, backbone: Backbone, limits: Limits) -> None:
        self._dataset, self._transform, self._limits = dataset, backbone.transform, limits
        self._shards = dataset.shards()[:SHARDS]
        # An id is a hash: the first are as good as drawn, and stay the same.
        self._rows = dataset.manifest[dataset.manifest["shard"].isin(self._shards)].sort_values("id")

    def some(self) -> np.ndarray:
        """Inputs (n, 3, h, w) of a few pictures."""
        contents = [self._dataset.picture(id) for id in self._rows["id"].head(SOME)]
        return np.concatenate(list(self._inputs(contents)))

    def agreement(self, exact: Runner, reduced: Runner) -> tuple[int, int]:
        """How many validation pictures have the same nearest class mean either way, and how many there are."""
        shown, asked = self._examples()
        if len(asked) < engines.LEAST:
            return 0, len(asked)
        labels = dict(zip(shown["id"], shown["label"].map(self._dataset.classes.index()), strict=True))
        ids, contents = self._read({*labels, *asked["id"]})
        pairs = [(exact(inputs), reduced(inputs)) for inputs in self._inputs(contents)]
        mean = np.array([id in labels for id in ids])
        y = np.array([labels[id] for id in ids if id in labels])
        ours, theirs = (
            engines.nearest_means(X[mean], y, X[~mean]) for X in map(np.concatenate, zip(*pairs, strict=True))
        )
        return int(((ours == theirs) & (ours >= 0)).sum()), len(asked)

    def validation(self, run: Runner) -> tuple[list[str], np.ndarray]:
        """Ids of validation pictures, at most ASKED, and their embeddings (n, d) by a runner."""
        asked = self._rows[self._rows["split"] == VALIDATION]["id"].head(ASKED)
        ids, contents = self._read(set(asked))
        found = [run(inputs) for inputs in self._inputs(contents)]
        return ids, np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    def _read(self, wanted: set[str]) -> tuple[list[str], Iterator[bytes]]:
        """Ids and contents of pictures in the order in which they lie."""
        ids = [id for shard in self._shards for id in self._dataset.ids(shard) if id in wanted]
        contents = (
            content for shard in self._shards for id, content in self._dataset.pictures(shard) if id in wanted
        )
        return ids, contents

    def _examples(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training pictures that make the class means, and validation pictures of the same seen classes."""
        rows, classes = self._rows, self._dataset.classes
        rows = rows[rows["label"].isin(classes.frame["name"][classes.seen])]
        asked = rows[rows["split"] == VALIDATION].head(ASKED)
        shown = rows[(rows["split"] == TRAIN) & rows["label"].isin(asked["label"])]
        shown = shown.groupby("label").head(max(2, SHOWN // max(1, asked["label"].nunique())))
        return shown, asked[asked["label"].isin(shown["label"])]

    def _inputs(self, contents: Iterable[bytes]) -> Iterator[np.ndarray]:
        return prepared(self._transform, contents, batch=SOME, limits=self._limits)


def label_agreement(
    dataset: Dataset,
    backbone: Backbone | None,
    labels: Callable[[np.ndarray], np.ndarray],
    ids: np.ndarray,
    X: np.ndarray,
    limits: Limits,
) -> dict[str, Any] | None:
    """How many of at most ASKED validation pictures a classifier calls the same in full precision; None where its
    engine is exact.

    An engine is chosen before there is a classifier, by the labels of class means: this compares those that are
    released. `labels` (m,) are its of embeddings (m, d); X (n, d) are those of the pictures `ids` (n,) by its
    backbone.
    """
    if backbone is None or backbone.engine.exact:
        return None
    in_full = replace(backbone, engine=Engine(backbone.engine.name))
    asked, exact = Sample(dataset, backbone, limits).validation(in_full.forward)
    place = {id: row for row, id in enumerate(ids.tolist())}
    ours, theirs = (
        labels(rows) if asked else np.zeros(0) for rows in (X[[place[id] for id in asked]], exact)
    )
    equal = int((ours == theirs).sum())
    share = equal / len(asked) if asked else None
    return {"engine": str(backbone.engine), "labels": len(asked), "equal": equal, "share": share}
