"""Champion against challenger, where they cannot be measured on the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import workspaces

from ayeaye import params
from ayeaye.classifier import Classifier
from ayeaye.classspace import space
from ayeaye.data.table import ClassTable
from ayeaye.errors import Incomparable
from ayeaye.mapping import create
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress
from ayeaye.release import compare
from ayeaye.workspace import Workspace

WIDTH = 32


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A dataset of features, and nothing else."""
    folder = tmp_path_factory.mktemp("features")
    source = workspaces.write_features(folder / "features.npz")
    settings = f"prepare: {{source: features, path: {source}}}\nevaluate: {{bootstrap: 100}}\n"
    (folder / "params.yaml").write_text(settings)
    workspace = Workspace(folder)
    prepare(workspace, Progress())
    return workspace


def of_features(folder: Path, width: int = WIDTH) -> Path:
    """A bundle without a backbone, of classes of the dataset."""
    chance = np.random.default_rng(0)
    names = [f"kind {number:02d}" for number in range(36)]
    frame = pd.DataFrame({"name": names, "role": ["seen"] * 24 + ["unseen"] * 12})
    classes = ClassTable(frame, {"attributes": pd.DataFrame(chance.normal(size=(36, 8)))})
    made = space.build(classes, params.Classes(source="attributes"), Path)
    y = np.repeat(np.arange(24), 4)
    mapper = create("ridge").fit(chance.normal(size=(len(y), width)).astype(np.float32), y, made.vectors)
    Classifier(made, classes.seen, mapper, 0.1, 0.5).save(folder)
    return folder


def test_bundles_of_the_same_features_are_compared(workspace: Workspace, tmp_path: Path) -> None:
    one = of_features(tmp_path / "one")
    losses = compare.on_pictures(workspace, one, one, set(), Progress())
    assert [(loss.name, loss.value) for loss in losses] == [("T1", 0.0), ("H", 0.0)]


def test_a_champion_of_another_width_cannot_be_compared(workspace: Workspace, tmp_path: Path) -> None:
    champion = of_features(tmp_path / "old", width=16)
    with pytest.raises(Incomparable, match=r"does not take the dataset's features .*\(n, 16\)"):
        compare.on_pictures(workspace, of_features(tmp_path / "new"), champion, set(), Progress())


def test_a_champion_of_pictures_cannot_be_compared_on_features(
    workspace: Workspace, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(Incomparable, match="it takes images, and the dataset holds features"):
        compare.on_pictures(workspace, of_features(tmp_path / "new"), bundle, set(), Progress())
