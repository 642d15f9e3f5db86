"""The reference that an evaluation leaves for the watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import workspaces
from workspaces import Place

from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import DataError
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation import drift
from ayeaye.evaluation.drift import Reference
from ayeaye.pipeline import examples, reference


def evaluated(folder: Path, unseen_pictures: bool) -> Place:
    source = workspaces.write_features(folder / "features.npz", unseen_pictures=unseen_pictures)
    settings = (
        "prepare.source=features",
        "classes.source=attributes",
        "evaluate.bootstrap=100",
        "train.repeats=1",
    )
    place = workspaces.make(folder / "workspace", source, {}, *settings)
    for stage in ("prepare", "embed", "classes", "train", "evaluate"):
        done = place(stage)
        assert done.code == 0, done.err
    return place


@pytest.fixture(scope="module")
def on_pictures(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return evaluated(tmp_path_factory.mktemp("pictures"), True)


@pytest.fixture(scope="module")
def on_folds(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return evaluated(tmp_path_factory.mktemp("folds"), False)


def of(place: Place) -> Reference:
    return reference.load(place.root / "reports" / "reference.parquet")


def test_it_holds_what_the_bundle_answers_on_every_test_picture(on_pictures: Place) -> None:
    workspace = Workspace(on_pictures.root)
    data, classifier = examples.load(workspace), Classifier.load(workspace.classifier)
    rows = data.rows("test_seen", "test_unseen")
    found = of(on_pictures)
    assert found.truth.tolist() == [data.names[c] for c in data.y[rows]]
    assert not found.stand_ins
    answers = classifier.answers(classifier.scores(data.X[rows]), top=2)
    assert found.answers.label.tolist() == [each["label"] for each in answers]
    assert found.answers.seen.tolist() == [each["seen"] for each in answers]
    assert found.answers.known.tolist() == [each["known"] for each in answers]
    assert found.answers.confidence == pytest.approx([each["confidence"] for each in answers], abs=1e-6)
    two = np.array([[near["score"] for near in each["alternatives"]] for each in answers])
    assert found.answers.margin == pytest.approx(two[:, 0] - two[:, 1], abs=1e-6)
    assert found.answers.vectors == pytest.approx(
        classifier.mapper.map_images(data.X[rows]), rel=1e-2, abs=1e-3
    )


def test_without_pictures_of_unseen_classes_folds_stand_in(on_folds: Place) -> None:
    workspace = Workspace(on_folds.root)
    data, found = examples.load(workspace), of(on_folds)
    assert found.stand_ins
    own = found.truth != ""
    assert own.sum() == data.rows("test_seen").sum()
    # Every seen class stood in once, with all its pictures.
    assert (~own).sum() == data.seen[data.y].sum()
    assert np.isnan(found.answers.vectors[~own]).all()
    assert np.isfinite(found.answers.vectors[own & found.answers.seen]).all()
    assert set(found.answers.label[~found.answers.seen]) == {""}
    # Most stand-ins are told to be of no seen class.
    assert (~found.answers.seen[~own]).mean() > 0.5 > (~found.answers.seen[own]).mean()


def test_what_was_held_out_has_not_drifted_from_itself(on_pictures: Place, on_folds: Place) -> None:
    for place in (on_pictures, on_folds):
        found = of(place)
        half = np.random.default_rng(0).random(len(found.truth)) < 0.5
        one = Reference(found.answers.take(half), found.truth[half])
        compared = drift.compare(
            one, found.answers.take(~half), np.zeros(0, str), {"confidence": 0.3, "margin": 0.3}
        )
        assert len(compared.figures) == 2 and not compared.drifted


def test_a_large_test_is_thinned_class_by_class(on_pictures: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(on_pictures.root)
    data, classifier = examples.load(workspace), Classifier.load(workspace.classifier)
    monkeypatch.setattr(reference, "MOST", 72)
    thinned = reference.of_pictures(data, classifier, 0)
    assert np.unique(thinned.truth, return_counts=True)[1].tolist() == [2] * 36


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "reference.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"reference\.parquet is damaged .*retrain"):
        reference.load(tmp_path / "reference.parquet")
