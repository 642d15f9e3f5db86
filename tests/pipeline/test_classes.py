"""The stage `classes` tells which words its vectors were made without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.data.table import ClassTable
from ayeaye.pipeline.classes import classes
from ayeaye.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    rng = np.random.default_rng(0)
    rows = [
        f"{word} {' '.join(f'{x:.3f}' for x in rng.normal(size=8))}"
        for word in ("face", "wolf", "bear", "polar")
    ]
    (tmp_path / "vectors.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "params.yaml").write_text(
        "classes: {source: glove, vectors: {glove: vectors.txt}, text: names}\n"
    )
    return Workspace(tmp_path)


def written(workspace: Workspace, *names: str) -> None:
    workspace.dataset.mkdir(parents=True, exist_ok=True)
    ClassTable(pd.DataFrame({"name": names, "role": "seen"})).write(workspace.dataset / "classes.parquet")


def test_words_left_out_are_told_in_a_line_and_all_of_them_in_a_file(workspace: Workspace) -> None:
    written(workspace, "cougar_face", "wolf", "big brown bear", "polar bear")
    told = classes(workspace)
    path = workspace.class_space / "left_out.json"
    assert told["left out"] == (
        f"3 words that are not known, of 2 classes: cougar_face (cougar), big brown bear (big, brown); see {path}"
    )
    assert json.loads(path.read_text()) == {"cougar_face": ["cougar"], "big brown bear": ["big", "brown"]}


def test_nothing_is_told_where_every_word_is_known(workspace: Workspace) -> None:
    written(workspace, "cougar_face", "wolf")
    classes(workspace)
    written(workspace, "wolf", "bear")
    assert classes(workspace) == {"classes": 2, "dimensions": 8}
    assert not (workspace.class_space / "left_out.json").exists()
