"""The three guarded places: real suites that fail on what they are there for, and say which rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sources import Place

from ayeaye.core.errors import CheckFailed
from ayeaye.data.checks import check_class_space, check_dataset, check_embeddings, results
from ayeaye.data.table import ClassTable, Dataset


@pytest.fixture
def dataset(place: Place) -> Dataset:
    place.prepare()
    return Dataset.load(place.dataset)


def with_rows(dataset: Dataset, rows: slice | list[int], **cells: object) -> Dataset:
    manifest = dataset.manifest.copy()
    for column, value in cells.items():
        manifest.loc[manifest.index[rows], column] = value
    return dataclasses.replace(dataset, manifest=manifest)


# ---- manifest and class table ----


def test_a_sound_dataset_passes_and_leaves_data_docs(dataset: Dataset, tmp_path: Path) -> None:
    check_dataset(dataset, tmp_path / "docs")
    for name in ("$HOME", "${PATH} $nothing"):
        check_dataset(dataset, tmp_path / name)
        assert (tmp_path / name / "dataset" / "index.html").is_file()
    assert "dataset/index.html" in (tmp_path / "docs/index.html").read_text()
    assert "manifest" in (tmp_path / "docs/dataset/index.html").read_text()
    results = list((tmp_path / "docs/dataset/validations").rglob("*.html"))
    assert len(results) == 3
    assert "no picture occurs twice" in (tmp_path / "docs/dataset/expectations/manifest.html").read_text()


def test_results_are_kept_row_by_row_also_of_a_check_that_failed(dataset: Dataset, tmp_path: Path) -> None:
    assert results(tmp_path, "dataset") == []
    check_dataset(dataset, tmp_path)
    sound = results(tmp_path, "dataset")
    assert {"about": "manifest", "expectation": "no picture occurs twice", "met": True, "found": ""} in sound
    assert all(row["met"] for row in sound)
    with pytest.raises(CheckFailed):
        check_dataset(with_rows(dataset, slice(0, 7), id="0" * 64), tmp_path)
    failed = [row for row in results(tmp_path, "dataset") if not row["met"]]
    assert "no picture occurs twice" in [row["expectation"] for row in failed]
    assert all("not so for" in row["found"] for row in failed)


def test_docs_are_those_of_the_last_check_alone(dataset: Dataset, tmp_path: Path) -> None:
    for _ in range(2):
        check_dataset(dataset, tmp_path / "docs")
    assert len(list((tmp_path / "docs/dataset/validations").rglob("*.html"))) == 3
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["dataset", "index.html"]


def test_an_empty_manifest_fails(dataset: Dataset) -> None:
    empty = dataclasses.replace(dataset, manifest=dataset.manifest.iloc[:0])
    with pytest.raises(CheckFailed, match=r"expected that there are pictures .*row_count.*found 0"):
        check_dataset(empty, None)


def test_an_empty_class_table_fails(dataset: Dataset) -> None:
    empty = dataclasses.replace(dataset, classes=dataset.classes.take(np.array([], int)))
    with pytest.raises(CheckFailed):
        check_dataset(empty, None)


def test_a_failure_names_expectation_and_rows_and_leaves_data_docs(dataset: Dataset, tmp_path: Path) -> None:
    twice = with_rows(dataset, slice(0, 7), id="0" * 64)
    with pytest.raises(CheckFailed) as failure:
        check_dataset(twice, tmp_path)
    source = dataset.manifest["source"].iloc[0]
    assert "expected that no picture occurs twice (expect_column_values_to_be_unique)" in str(failure.value)
    assert f"not so for {source} / " in str(failure.value)
    assert " and 2 more; see" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert str(tmp_path / "dataset/index.html") in str(failure.value)
    assert "Failed" in (tmp_path / "dataset/index.html").read_text()


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"label": "gnu"}, "every label is a class"),
        ({"split": "val"}, "splits are known"),
        ({"split": "test_unseen"}, "splits fit the role"),
        ({"id": "short"}, "ids are SHA-256 digests"),
        ({"id": None}, "every picture has an id"),
        ({"row": 10_000}, "shards hold every row"),
        ({"shard": "absent"}, "shards hold every row"),
    ],
)
def test_a_wrong_manifest_row_fails(dataset: Dataset, cells: dict[str, object], says: str) -> None:
    seen = int(np.flatnonzero(dataset.manifest["label"] == "okapi")[0])
    with pytest.raises(CheckFailed, match=says):
        check_dataset(with_rows(dataset, [seen], **cells), None)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (
            "role",
            "known",
            "roles are seen or unseen .*not so for okapi",
        ),
        ("description", "Stripes all over,  lives on the plain.", "descriptions are unique .*okapi, zebra"),
        ("name", "zebra", "class names are unique .*not so for zebra, zebra"),
    ],
)
def test_a_wrong_class_row_fails(dataset: Dataset, column: str, value: str, says: str) -> None:
    frame = dataset.classes.frame.copy()
    frame.loc[frame["name"] == "okapi", column] = value
    with pytest.raises(CheckFailed, match=says):
        check_dataset(dataclasses.replace(dataset, classes=ClassTable(frame)), None)


def test_a_seen_class_without_training_pictures_fails(dataset: Dataset) -> None:
    rows = list(np.flatnonzero(dataset.manifest["label"] == "zebra"))
    with pytest.raises(CheckFailed, match=r"seen classes have training pictures .*not so for zebra"):
        check_dataset(with_rows(dataset, rows, split="test_seen"), None)


def test_an_infinite_attribute_fails(dataset: Dataset) -> None:
    matrix = pd.DataFrame({"neck": [1.0, np.inf, 0.0]})
    classes = ClassTable(dataset.classes.frame, {"attributes": matrix})
    with pytest.raises(CheckFailed, match=r"values of attributes are finite .*not so for zebra"):
        check_dataset(dataclasses.replace(dataset, classes=classes), None)


# ---- embeddings ----

IDS = [f"{number:064x}" for number in range(6)]
LABELS = ["okapi"] * 3 + ["zebra"] * 3


def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


def test_sound_embeddings_pass(tmp_path: Path) -> None:
    check_embeddings(IDS, LABELS, embeddings(), 6, tmp_path)
    assert (tmp_path / "embeddings/index.html").is_file()


def test_dead_dimensions_are_no_fault() -> None:
    X = embeddings()
    X[:, 3] = 0
    check_embeddings(IDS, LABELS, X, 6, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails_with_its_picture(value: float) -> None:
    X = embeddings()
    X[4, 2] = value
    with pytest.raises(CheckFailed, match=rf"embeddings are finite .*not so for {IDS[4]} / zebra$"):
        check_embeddings(IDS, LABELS, X, 6, None)


def test_a_constant_embedding_fails_with_its_picture() -> None:
    X = embeddings()
    X[1] = 0.1
    with pytest.raises(CheckFailed, match=rf"no embedding is constant .*not so for {IDS[1]} / okapi"):
        check_embeddings(IDS, LABELS, X, 6, None)


def test_embeddings_that_are_all_the_same_fail() -> None:
    X = np.repeat(embeddings()[:1], 6, axis=0)
    with pytest.raises(CheckFailed, match=r"embeddings differ from picture to picture .*found 0"):
        check_embeddings(IDS, LABELS, X, 6, None)


def test_a_wrong_count_fails() -> None:
    with pytest.raises(CheckFailed, match=r"there are 7 embeddings .*found 6"):
        check_embeddings(IDS, LABELS, embeddings(), 7, None)
    with pytest.raises(CheckFailed, match=r"every embedding belongs to a picture"):
        check_embeddings(IDS[:5], LABELS[:5], embeddings(), 6, None)
    with pytest.raises(CheckFailed, match=r"every picture has an embedding"):
        check_embeddings(IDS, LABELS, embeddings()[:5], 6, None)


def test_no_embeddings_fail_even_where_none_are_expected() -> None:
    with pytest.raises(CheckFailed, match=r"there is at least one embedding"):
        check_embeddings([], [], np.zeros((0, 8), np.float32), 0, None)


# ---- class space ----

NAMES = ["okapi", "zebra", "aye-aye"]


def test_a_sound_class_space_passes(tmp_path: Path) -> None:
    check_class_space(NAMES, np.eye(3), tmp_path)
    assert (tmp_path / "class_space/index.html").is_file()


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1, 0], [0, 1], [0, 0]], "no class vector is zero .*not so for aye-aye"),
        (
            [[1, 0], [0, 1], [0, 3]],
            "no two class vectors coincide .*not so for zebra / aye-aye, aye-aye / zebra",
        ),
        ([[1, 0], [0, 1], [np.nan, 1]], "class vectors are finite .*not so for aye-aye"),
        ([[1, 0], [0, 1]], "there is a vector for each class .*found 3"),
        ([[1, 0], [0, 1], [1, 1], [1, -1]], "every vector belongs to a class"),
    ],
)
def test_an_unsound_class_space_fails_with_its_classes(vectors: list[list[float]], says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        check_class_space(NAMES, np.array(vectors, np.float32), None)


def test_an_empty_class_space_fails() -> None:
    with pytest.raises(CheckFailed, match=r"there are at least two classes .*found 0"):
        check_class_space([], np.zeros((0, 4)), None)
