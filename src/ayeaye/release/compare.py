"""Champion against challenger on the same pictures, each with its own backbone.

As a whole, and by slices: the unseen classes that a backbone knew from its pretraining and the clean ones, and
each group of the class table. Only classes that have the same role for both count: one that went from unseen to
seen, from seen to unseen, or away is compared with nothing.

    pair = on_pictures(workspace, challenger, champion, learned, progress)    # or on_folds(...)
    losses, not_judged = compared(pair, params, slices_of(pair, groups, leaked))
    gate.decide(metrics, params.release, 4, losses, not_judged=not_judged)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ayeaye.backbones.shards import gather
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import DataError, Incomparable
from ayeaye.core.params import Params, Release
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import ClassTable, Dataset
from ayeaye.evaluation.bootstrap import paired_loss
from ayeaye.evaluation.metrics import Fold
from ayeaye.pipeline.embed import embed_under
from ayeaye.pipeline.progress import Progress
from ayeaye.release.gate import Loss
from ayeaye.release.registry import Registry, Version

SHOWN = ("train", "validation")  # splits whose pictures a model has learned from
PICTURES, FOLDS = "test pictures", "class folds"


@dataclass(frozen=True)
class Answers:
    """Whether one model is right about n pictures, each (n,) float: among all classes, and among unseen ones.

    A picture that several class folds scored has the mean over them.
    """

    among_all: np.ndarray
    among_unseen: np.ndarray

    def take(self, rows: np.ndarray) -> Answers:
        return Answers(self.among_all[rows], self.among_unseen[rows])


@dataclass(frozen=True)
class Pair:
    """What both say of the same n pictures: label (n,) names, unseen (n,) bool, the answers of either.

    Where the pictures themselves were scored, `scored` has the scores of the challenger and of the champion over
    the classes `names`.
    """

    label: np.ndarray
    unseen: np.ndarray
    new: Answers
    old: Answers
    on: str = PICTURES
    names: tuple[str, ...] = ()
    scored: tuple[Fold, Fold] | None = None

    def take(self, rows: np.ndarray) -> Pair:
        """The answers to some of the pictures, by mask or by number."""
        return Pair(self.label[rows], self.unseen[rows], self.new.take(rows), self.old.take(rows), self.on)

    def counts(self) -> tuple[int, int]:
        """Pictures and classes."""
        return len(self.label), len(np.unique(self.label))


class Compared(NamedTuple):
    """Losses of the whole and of its slices, and which slices were too small to be judged, in words."""

    losses: list[Loss]
    not_judged: list[str]


def between(
    workspace: Workspace, registry: Registry, challenger: Version, champion: Version, progress: Progress
) -> Pair:
    """Both versions on the dataset's test pictures or, where none is of an unseen class, on what their
    evaluations found on class folds.

    Raises Incomparable where they cannot be compared.
    """
    dataset = Dataset.load(workspace.dataset)
    both = (challenger, champion)
    if not (dataset.manifest["split"] == "test_unseen").any():
        frames = [_folds_of(registry, version) for version in both]
        return on_folds(frames[0], frames[1])
    learned: set[str] = set().union(*(_learned(registry, version) for version in both))
    names = [f"version {version.number}" for version in both]
    bundles = [registry.bundle(version) for version in both]
    return on_pictures(workspace, bundles[0], bundles[1], learned, progress, (names[0], names[1]))


def _folds_of(registry: Registry, version: Version) -> pd.DataFrame:
    found = registry.artifact(version, "predictions.parquet")
    if found is None or figures_of(registry, version).get("estimated_on") != FOLDS:
        raise Incomparable(f"version {version.number} was not estimated on class folds")
    return pd.read_parquet(found)


def figures_of(registry: Registry, version: Version) -> dict[str, Any]:
    """The metrics.json of a version's last evaluation; empty where it has none."""
    found = registry.artifact(version, "metrics.json")
    return json.loads(found.read_bytes()) if found else {}


def _learned(registry: Registry, version: Version) -> set[str]:
    """Ids of the pictures that a version was fitted or tuned on."""
    manifest = registry.artifact(version, "manifest.parquet")
    if manifest is None:
        return set()
    frame = pd.read_parquet(manifest, columns=["id", "split"])
    return set(frame["id"][frame["split"].isin(SHOWN)])


def on_pictures(
    workspace: Workspace,
    challenger: Path,
    champion: Path,
    learned: Collection[str],
    progress: Progress,
    called: tuple[str, str] = ("the challenger", "the champion"),
) -> Pair:
    """Answers to the test pictures of the classes that have the same role for both bundles.

    `learned` are ids of pictures that either was trained on: they are left out. Raises Incomparable where one
    takes something else than the dataset holds, or where no picture is left.
    """
    dataset = Dataset.load(workspace.dataset)
    classifiers = Classifier.load(challenger), Classifier.load(champion)
    for name, classifier in zip(called, classifiers, strict=True):
        takes = "images" if classifier.backbone else "features"
        if takes != dataset.kind:
            raise Incomparable(f"{name} takes {takes}, and the dataset holds {dataset.kind}")
    roles_new, roles_old = (dict(zip(each.labels, each.seen, strict=True)) for each in classifiers)
    common = [name for name in roles_new if name in roles_old and roles_old[name] == roles_new[name]]
    manifest = dataset.manifest
    wanted = (
        manifest["split"].isin(["test_seen", "test_unseen"])
        & manifest["label"].isin(common)
        & ~manifest["id"].isin(learned)
    ).to_numpy(bool)
    if not wanted.any():
        raise Incomparable(
            "there are no test pictures of classes that both know in the same role and that neither was trained on"
        )
    label = manifest["label"][wanted].to_numpy(str)
    place = {name: number for number, name in enumerate(common)}
    y = np.array([place[name] for name in label.tolist()], dtype=np.int64)
    seen = np.array([roles_new[name] for name in common], dtype=bool)
    folds = []
    for name, classifier in zip(called, classifiers, strict=True):
        X = _embeddings(workspace, dataset, classifier, progress)[wanted]
        columns = [classifier.labels.index(each) for each in common]
        try:
            folds.append(Fold(classifier.raw_scores(X)[:, columns], y, seen, classifier.gamma))
        except DataError as error:
            raise Incomparable(f"{name} does not take the dataset's {dataset.kind} ({error})") from None
    new_fold, old_fold = folds
    return Pair(
        label,
        ~seen[y],
        _answers(new_fold),
        _answers(old_fold),
        names=tuple(common),
        scored=(new_fold, old_fold),
    )


def on_folds(challenger: pd.DataFrame, champion: pd.DataFrame) -> Pair:
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
    new, old = (
        Answers(both[f"right_{which}"].to_numpy(float), both[f"right_among_unseen_{which}"].to_numpy(float))
        for which in ("new", "old")
    )
    return Pair(both["label"].to_numpy(str), both["unseen"].to_numpy(bool), new, old, FOLDS)


def _answers(fold: Fold) -> Answers:
    best = np.where(fold.seen, fold.scores - fold.gamma, fold.scores).argmax(axis=1)
    among_unseen = np.where(fold.seen, -np.inf, fold.scores).argmax(axis=1)
    return Answers((best == fold.y).astype(float), (among_unseen == fold.y).astype(float))


def _embeddings(
    workspace: Workspace, dataset: Dataset, classifier: Classifier, progress: Progress
) -> np.ndarray:
    with tempfile.TemporaryDirectory(dir=workspace.state) as folder:
        embed_under(workspace, dataset, classifier.backbone, Path(folder), progress)
        return gather(dataset, Path(folder))


# Slices


def slices_of(pair: Pair, groups: Mapping[str, str], leaked: Collection[str]) -> dict[str, np.ndarray]:
    """Masks (n,) of the pictures in each slice by its name; none of a slice that is the whole.

    `groups` is the group of each class that has one, `leaked` the unseen classes that either backbone knows. On
    class folds there are none of the latter: no unseen class has pictures.
    """
    known = np.isin(pair.label, list(leaked))
    sides = {"the clean classes": pair.unseen & ~known, "the leaked classes": pair.unseen & known}
    parts = sides if (pair.unseen & known).any() else {}
    of = np.array([groups.get(name, "") for name in pair.label.tolist()])
    parts |= {f"group {group}": of == group for group in np.unique(of).tolist() if group}
    return {name: mask for name, mask in parts.items() if mask.any() and not mask.all()}


def groups_of(classes: ClassTable) -> dict[str, str]:
    """The group of each class that has one."""
    pairs = zip(classes.frame["name"], classes.frame["group"], strict=True)
    return {name: group for name, group in pairs if group}


def leaked(*figures: Mapping[str, Any]) -> set[str]:
    """The unseen classes that one of several evaluations flagged."""
    return {name for each in figures for name in (each.get("leakage") or {}).get("flags", ())}


def compared(pair: Pair, params: Params, slices: Mapping[str, np.ndarray] | None = None) -> Compared:
    """The losses of the challenger as a whole and in each slice (n,).

    T1 over unseen classes, H where there are pictures of both sides, S where there are of seen ones alone. The
    bounds of the slices share one risk of error: each is at 1 - (1 - confidence) / (losses in slices), so that
    with many slices an equal model is not found worse in one of them by chance alone (Bonferroni).
    """
    release, evaluate = params.release, params.evaluate
    options: dict[str, Any] = {
        "resamples": evaluate.bootstrap,
        "confidence": release.confidence,
        "seed": evaluate.seed,
    }
    losses = [
        Loss.of(name, paired_loss(**arguments, **options), release.epsilon)
        for name, arguments in _figures(pair)
    ]
    parts, not_judged = _judged(pair, slices or {}, release)
    figures = [
        (where, name, arguments) for where, part in parts.items() for name, arguments in _figures(part)
    ]
    shared = 1 - (1 - release.confidence) / max(1, len(figures))
    losses += [
        Loss.of_slice(name, where, paired_loss(**arguments, **options), shared)
        for where, name, arguments in figures
    ]
    return Compared(losses, not_judged)


def _figures(pair: Pair) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures there are pictures for, as arguments of `paired_loss`."""
    y, unseen = np.unique(pair.label, return_inverse=True)[1].reshape(-1), pair.unseen
    whole = {"correct_a": pair.new.among_all, "correct_b": pair.old.among_all, "y": y}
    if unseen.any():
        among = {"correct_a": pair.new.among_unseen, "correct_b": pair.old.among_unseen, "y": y}
        yield "T1", {name: values[unseen] for name, values in among.items()}
        if not unseen.all():
            yield "H", {**whole, "unseen": unseen}
    else:
        yield "S", whole


def _judged(
    pair: Pair, slices: Mapping[str, np.ndarray], release: Release
) -> tuple[dict[str, Pair], list[str]]:
    """Of each slice the sides that are large enough, and in words those that are not."""
    parts, small = {}, []
    for name, mask in slices.items() if release.slices else ():
        kept = np.zeros(len(mask), dtype=bool)
        for role, side in (("unseen", mask & pair.unseen), ("seen", mask & ~pair.unseen)):
            pictures, classes = pair.take(side).counts()
            if classes >= release.slice_classes and pictures >= release.slice_pictures:
                kept |= side
            elif pictures:
                small.append(
                    f"{name}: {_counted(pictures, 'picture')} of {_counted(classes, f'{role} class')}"
                )
        if kept.any():
            parts[name] = pair.take(kept)
    return parts, small


def _counted(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
