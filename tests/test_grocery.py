"""The main job on real photographs: 81 products, 20 of them never photographed, all 3,232 pictures."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import workspaces
from workspaces import SHARED, Place

from ayeaye.classifier.model import Classifier
from ayeaye.classifier.propagation import propagate
from ayeaye.core.workspace import Workspace
from ayeaye.pipeline import examples

GROCERY = SHARED / "grocery"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_1001.pth"
NEWS = SHARED / "vectors" / "googlenews_8000.w2v.bin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not GROCERY.is_dir(), reason=f"the real photographs are not in {GROCERY}"),
]


@pytest.fixture(scope="module")
def grocery(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Place:
    """A workspace of all pictures, retrained with TF-IDF of the descriptions and every default threshold."""
    folder = tmp_path_factory.mktemp("grocery")
    # Links to the real pictures, so that a copy may have other descriptions.
    source = write_source(folder / "source", descriptions())
    place = workspaces.make(
        folder / "workspace",
        source,
        environment,
        "prepare.source=folder",
        "embed.backbone=mobilenet_v2",
        f"embed.weights={WEIGHTS}",
        "embed.mean=0.5",
        "embed.std=0.5",
        "classes.source=tfidf",
    )
    done = place("retrain", "--json")
    (folder / "outcome.json").write_text(json.dumps({"code": done.code, "out": done.out, "err": done.err}))
    return place


def test_descriptions_by_tfidf_become_champion_by_the_default_thresholds(grocery: Place) -> None:
    done = json.loads((grocery.root.parent / "outcome.json").read_text())
    assert done["code"] == 0, done["err"] or done["out"]
    assert json.loads(done["out"])["outcome"] == "promoted"
    figures = grocery.read("reports/metrics.json")
    assert figures["estimated_on"] == "unseen classes"
    assert figures["T1"] >= 0.45
    assert figures.keys() >= {"U", "S", "H", "AUSUC", "seen_bias", "hubness"}
    page = (grocery.root / "reports" / "index.html").read_text(encoding="utf-8")
    assert "hub" in page.lower()


def test_every_picture_was_read_and_embedded(grocery: Place) -> None:
    pictures = len(list((GROCERY / "images").glob("*/*.jpg")))
    embedded = sum(len(np.load(path)) for path in (grocery.root / "data" / "embeddings").glob("*.npy"))
    assert embedded == pictures


@pytest.mark.soak
def test_words_of_googlenews_become_champion_by_default_thresholds(grocery: Place, tmp_path: Path) -> None:
    place = fresh(grocery, tmp_path)
    place.set("classes.source=word2vec", f"classes.vectors={NEWS}", "classes.text=descriptions")
    assert place.retrain()["outcome"] == "promoted"
    assert place.read("reports/metrics.json")["T1"] >= 0.23


def test_pictures_labelled_together_are_labelled_better(grocery: Place) -> None:
    """All pictures of unseen classes in one batch, among the unseen classes."""
    data = examples.load(Workspace(grocery.root))
    classifier = Classifier.load(Workspace(grocery.root).classifier)
    unseen, rows = np.flatnonzero(~data.seen), data.rows("test_unseen")
    correction, columns = classifier.correction, np.zeros((int(rows.sum()), len(data.seen)), np.float32)

    def scores(cosines: np.ndarray) -> np.ndarray:
        columns[:, unseen] = cosines
        return correction.apply(columns)[:, unseen]

    images, classes = classifier.mapper.map_images(data.X[rows]), classifier.mapped_classes[unseen]
    labels = unseen[propagate(images, classes, scores, classifier.temperature).argmax(axis=1)]
    assert np.mean([(labels[data.y[rows] == c] == c).mean() for c in unseen]) >= 0.55


@pytest.mark.soak
def test_shuffled_descriptions_are_refused_by_the_default_thresholds(grocery: Place, tmp_path: Path) -> None:
    place = fresh(grocery, tmp_path)
    rows = descriptions()
    texts = np.random.default_rng(0).permutation([row["description"] for row in rows])
    write_classes(place.source, [{**row, "description": text} for row, text in zip(rows, texts, strict=True)])
    outcome = place.retrain(expect=3)
    assert outcome["outcome"] == "refused"
    assert outcome["champion"] is None
    failed = [check["name"] for check in place.read("release/decision.json")["checks"] if not check["passed"]]
    assert "descriptions_p" in failed
    assert place.read("reports/metrics.json")["T1"] < 0.30  # what the names alone tell


def fresh(grocery: Place, folder: Path) -> Place:
    """A workspace before its first retrain, but with the embeddings: without a champion to compare with."""
    source = write_source(folder / "source", descriptions())
    place = workspaces.make(folder / "workspace", source, grocery.environment)
    for name in ("data/dataset", ".ayeaye/embeddings"):
        shutil.copytree(grocery.root / name, place.root / name)
    for name in ("params.yaml", ".ayeaye/source-index.json"):
        shutil.copyfile(grocery.root / name, place.root / name)
    place.set(f"prepare.path={source}")
    return place


def descriptions() -> list[dict[str, str]]:
    with (GROCERY / "classes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_source(folder: Path, rows: list[dict[str, str]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(GROCERY / "images")
    write_classes(folder, rows)
    return folder


def write_classes(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "classes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
