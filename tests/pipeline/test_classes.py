"""The stage `classes` tells which words and descriptions its vectors were made without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors.space import ClassSpace
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import ClassTable
from ayeaye.pipeline.classes import classes
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress


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


@pytest.mark.parametrize(
    ("described", "settings", "said"),
    [
        (
            2,
            "text: auto",
            "2 descriptions are not read, since bear has none: describe it, or set classes.text",
        ),
        (1, "text: auto", "1 description is not read, since wolf, bear have none: describe them, or set"),
        (0, "text: auto", None),
        (3, "text: auto", None),
        (2, "text: names", None),
    ],
)
def test_descriptions_that_nobody_reads_are_told(
    tmp_path: Path, described: int, settings: str, said: str | None
) -> None:
    (tmp_path / "params.yaml").write_text(f"classes: {{source: tfidf, {settings}}}\n")
    workspace = Workspace(tmp_path)
    workspace.dataset.mkdir(parents=True)
    texts = ["Black face.", "Grey howler.", "Brown sleeper."]
    frame = pd.DataFrame({"name": ["cougar", "wolf", "bear"], "role": "seen"})
    frame["description"] = [text * (row < described) for row, text in enumerate(texts)]
    ClassTable(frame).write(workspace.dataset / "classes.parquet")
    told = classes(workspace).get("not read")
    assert said in str(told) if said else told is None
    assert ClassSpace.load(workspace.class_space).unread == (told or "")


def test_prepare_warns_of_descriptions_that_nobody_reads(tmp_path: Path) -> None:
    arrays = {
        "features": np.random.default_rng(0).normal(size=(12, 4)),
        "labels": np.arange(12) % 3,
        "class_names": np.array(["cougar", "wolf", "bear"]),
        "role": np.array(["seen", "seen", "unseen"]),
        "description": np.array(["Black face.", "Grey howler.", ""]),
    }
    np.savez(tmp_path / "features.npz", **arrays)
    (tmp_path / "params.yaml").write_text(
        "prepare: {source: features, path: features.npz}\nclasses: {source: tfidf}\n"
    )
    looked = list[str]()
    found = prepare(
        Workspace(tmp_path), Progress(), dry_run=True, examine=lambda table, kind: looked.append(kind)
    )
    assert any("2 descriptions are not read, since bear has none" in said for said in found["warnings"])
    assert looked == ["features"]
