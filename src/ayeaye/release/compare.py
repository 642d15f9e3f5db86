"""Champion against challenger on the same pictures, each with its own backbone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayeaye.classifier import Classifier
from ayeaye.data.table import Dataset
from ayeaye.embedding.shards import gather
from ayeaye.errors import DataError, Incomparable
from ayeaye.evaluation.bootstrap import paired_loss
from ayeaye.params import Params
from ayeaye.pipeline.embed import embed_under
from ayeaye.pipeline.progress import Progress
from ayeaye.release.gate import Loss
from ayeaye.workspace import Workspace

SHOWN = ("train", "validation")  # splits whose pictures a model has learned from


def on_pictures(
    workspace: Workspace, challenger: Path, champion: Path, learned: set[str], progress: Progress
) -> list[Loss]:
    """Losses in T1 and H on the test pictures of classes that have the same role for both.

    `challenger` and `champion` are bundles; `learned` are ids of pictures that the champion was trained on. T1
    is over classes unseen to both, H over all classes common to both. Raises Incomparable where the champion
    takes something else than the dataset holds.
    """
    dataset = Dataset.load(workspace.dataset)
    new, old = Classifier.load(challenger), Classifier.load(champion)
    takes = "images" if old.backbone else "features"
    if takes != dataset.kind:
        raise Incomparable(f"it takes {takes}, and the dataset holds {dataset.kind}")
    roles_new, roles_old = (dict(zip(each.labels, each.seen, strict=True)) for each in (new, old))
    common = [name for name in new.labels if name in roles_old and roles_old[name] == roles_new[name]]
    manifest = dataset.manifest
    wanted = (
        manifest["split"].isin(["test_seen", "test_unseen"])
        & manifest["label"].isin(common)
        & ~manifest["id"].isin(learned)
    ).to_numpy(bool)
    if not wanted.any():
        raise Incomparable("there are no pictures that neither was trained on")
    place = {name: number for number, name in enumerate(common)}
    y = manifest["label"][wanted].map(place).to_numpy(np.int64)
    seen = np.array([roles_new[name] for name in common])
    right = []
    for classifier in (new, old):
        X = _embeddings(workspace, dataset, classifier, progress)[wanted]
        columns = [classifier.labels.index(name) for name in common]
        try:
            right.append(_right(classifier.scores(X)[:, columns], y, seen))
        except DataError as error:
            raise Incomparable(f"it does not take the dataset's {dataset.kind} ({error})") from None
    return _losses(right[0], right[1], y, ~seen[y], workspace.params)


def on_folds(challenger: pd.DataFrame, champion: pd.DataFrame, params: Params) -> list[Loss]:
    """The same from the fold predictions of both evaluations, on the pictures that both estimated.

    Raises Incomparable where there are none.
    """
    sides = [
        frame.groupby(["id", "label", "unseen"], as_index=False)[["right", "right_among_unseen"]].mean()
        for frame in (challenger, champion)
    ]
    both = sides[0].merge(sides[1], on=["id", "label", "unseen"], suffixes=("_new", "_old"))
    if both.empty:
        raise Incomparable("no picture was estimated for both")
    y = pd.factorize(both["label"], sort=True)[0].astype(np.int64)
    right = [
        (both[f"right_{which}"].to_numpy(float), both[f"right_among_unseen_{which}"].to_numpy(float))
        for which in ("new", "old")
    ]
    return _losses(right[0], right[1], y, both["unseen"].to_numpy(bool), params)


Right = tuple[np.ndarray, np.ndarray]  # among all classes, and among the unseen ones, each (n,)


def _right(scores: np.ndarray, y: np.ndarray, seen: np.ndarray) -> Right:
    among_unseen = np.where(seen, -np.inf, scores).argmax(axis=1)
    return (scores.argmax(axis=1) == y).astype(float), (among_unseen == y).astype(float)


def _losses(new: Right, old: Right, y: np.ndarray, unseen: np.ndarray, params: Params) -> list[Loss]:
    options: dict[str, Any] = {
        "resamples": params.evaluate.bootstrap,
        "confidence": params.release.confidence,
        "seed": params.evaluate.seed,
    }
    losses = []
    epsilon = params.release.epsilon
    if unseen.any():
        paired = paired_loss(new[1][unseen], old[1][unseen], y[unseen], **options)
        losses.append(Loss.of("T1", paired, epsilon))
    if unseen.any() and not unseen.all():
        losses.append(Loss.of("H", paired_loss(new[0], old[0], y, unseen=unseen, **options), epsilon))
    elif not unseen.any():
        losses.append(Loss.of("S", paired_loss(new[0], old[0], y, **options), epsilon))
    return losses


def _embeddings(
    workspace: Workspace, dataset: Dataset, classifier: Classifier, progress: Progress
) -> np.ndarray:
    with tempfile.TemporaryDirectory(dir=workspace.state) as folder:
        embed_under(workspace, dataset, classifier.backbone, Path(folder), progress)
        return gather(dataset, Path(folder))
