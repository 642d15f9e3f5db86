"""What training and evaluation look at: embeddings, labels, splits and class vectors, row by row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from ayeaye.backbones.backbones import TRAINED_HERE
from ayeaye.backbones.shards import gather
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.core.errors import DataError
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import ClassTable, Dataset


@dataclass(frozen=True)
class Examples:
    """n pictures of C classes.

    X (n, d) embeddings, y (n,) class numbers, split (n,) names, ids (n,); A (C, k) class vectors, seen (C,);
    pool (C,): seen classes that may stand in for unseen ones, since the backbone was not trained on them;
    sources: first and last column, exclusive, of each source in the class vectors, where there are several.
    """

    X: np.ndarray
    y: np.ndarray
    split: np.ndarray
    ids: np.ndarray
    A: np.ndarray
    seen: np.ndarray
    pool: np.ndarray
    names: list[str]
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)

    def rows(self, *splits: str) -> np.ndarray:
        """(n,) bool: the pictures of these splits."""
        return np.isin(self.split, splits)

    @property
    def unseen_pictures(self) -> bool:
        """Whether any unseen class has photographs to measure on."""
        return bool(self.rows("test_unseen").any())


def load(workspace: Workspace) -> Examples:
    """Read the dataset, its embeddings and the class space; raises DataError where they do not fit."""
    dataset = Dataset.load(workspace.dataset)
    space = ClassSpace.load(workspace.class_space)
    if space.names != dataset.classes.names:
        raise DataError("the class space is of other classes than the dataset: run `ayeaye classes`")
    X = gather(dataset, workspace.embeddings)
    return Examples(
        X=X,
        y=dataset.labels,
        split=dataset.manifest["split"].to_numpy(str),
        ids=dataset.manifest["id"].to_numpy(str),
        A=space.vectors,
        seen=dataset.classes.seen,
        pool=pretend_pool(dataset.classes, trained_here(workspace)),
        names=dataset.classes.names,
        sources=space.sources,
    )


def pretend_pool(classes: ClassTable, backbone_trained_here: bool) -> np.ndarray:
    """(C,) bool: seen classes that may stand in for unseen ones."""
    return classes.seen & classes.pretend_unseen if backbone_trained_here else classes.seen


def trained_here(workspace: Workspace) -> bool:
    """Whether the backbone of the current embeddings was trained on this dataset's seen classes."""
    path = workspace.embeddings / "backbone.json"
    return path.is_file() and bool(json.loads(path.read_bytes())["origin"].startswith(TRAINED_HERE))
