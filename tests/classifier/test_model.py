"""The classifier at run time: classes that come later, and answers among some of its classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors import space
from ayeaye.class_vectors.new_class import NewClass
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.classifier import hubs
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.core.errors import (
    ClassSpaceError,
    CoincidentClasses,
    DataError,
    IncompleteClass,
    NoSuchClass,
    TakenName,
    UnknownWords,
)
from ayeaye.data.table import ClassTable
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.selection import Choice

SIGNS = [f"sign {number}" for number in range(8)]
BLEND = {"members": [{"mapper": "ridge"}, {"mapper": "eszsl", "settings": {"space": "classes"}}]}
CLASSES, SEEN, EACH = 14, 10, 12
LATE = [11, 13]  # unseen classes that come at run time
CORRECTIONS = [(kind, grid[0]) for kind, grid in hubs.GRIDS.items()]


def made(
    late: list[int] = LATE, hub: tuple[str, dict[str, Any]] = CORRECTIONS[0], **choice: Any
) -> Classifier:
    """Trained as `ayeaye train` does, without the classes `late`, in a class space that has the centre of all."""
    whole, data = world()
    early = np.setdiff1d(np.arange(CLASSES), late)
    kept = whole.take(early.tolist())
    number = np.full(CLASSES, -1)
    number[early] = np.arange(len(early))
    data = replace(
        data,
        y=number[data.y],
        A=kept.vectors,
        seen=data.seen[early],
        pool=data.seen[early],
        names=kept.names,
    )
    chosen = Choice(choice.get("mapper", "ridge"), choice.get("settings", {}), 0.05, 0.1, 0.2, hub[0], hub[1])
    learned = data.rows("train", "validation")
    mapper = chosen.fit(data, learned, seed=0, device="cpu")
    everything = np.arange(len(early))
    correction = chosen.correct(data, data.seen, everything, seed=0, device="cpu")
    return Classifier(
        kept, data.seen, mapper, chosen.gamma, chosen.temperature, None, correction, chosen.threshold
    )


def world() -> tuple[ClassSpace, Examples]:
    """Pictures of seen classes that follow from their attributes, with noise."""
    rng = np.random.default_rng(0)
    attributes = pd.DataFrame(rng.random((CLASSES, len(SIGNS))), columns=SIGNS)
    names = [f"kind {c}" for c in range(CLASSES)]
    seen = np.arange(CLASSES) < SEEN
    frame = pd.DataFrame({"name": names, "role": np.where(seen, "seen", "unseen")})
    whole = space.build(ClassTable(frame, {"signs": attributes}), params.Classes(source="signs"), Path)
    y = np.repeat(np.arange(SEEN), EACH)
    X = whole.vectors[y] @ rng.normal(size=(len(SIGNS), 24))
    X = (X + 0.3 * rng.normal(size=X.shape)).astype(np.float32)
    split = np.tile(np.repeat(["train", "validation"], [EACH - 4, 4]), SEEN)
    ids = np.array([str(row) for row in range(len(y))])
    return whole, Examples(X, y, split, ids, whole.vectors, seen, seen, names)


def later(number: int, name: str | None = None) -> NewClass:
    """A class of the table by its attributes."""
    signs = np.random.default_rng(0).random((CLASSES, len(SIGNS)))[number]
    return NewClass(name or f"kind {number}", attributes=dict(zip(SIGNS, signs.tolist(), strict=True)))


def pictures(rows: int = 30) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, 24)).astype(np.float32)


def in_order(classifier: Classifier, X: np.ndarray) -> np.ndarray:
    """Scores with the classes in the order of their numbers."""
    order = np.argsort([int(name.removeprefix("kind ")) for name in classifier.labels])
    return classifier.scores(X)[:, order]


@pytest.mark.parametrize("mapper", [{}, {"mapper": "blend", "settings": BLEND}], ids=["ridge", "blend"])
@pytest.mark.parametrize("hub", CORRECTIONS, ids=[kind for kind, _ in CORRECTIONS])
def test_a_class_that_comes_later_scores_as_if_it_had_been_there(
    hub: tuple[str, dict[str, Any]], mapper: dict[str, Any], tmp_path: Path
) -> None:
    X = pictures()
    expected = made([], hub, **mapper)
    made(LATE, hub, **mapper).save(tmp_path)
    found = Classifier.load(tmp_path).with_classes([later(number) for number in LATE])
    np.testing.assert_allclose(in_order(found, X), in_order(expected, X), atol=1e-4)
    assert found.seen.tolist() == [True] * SEEN + [False] * 4


@pytest.mark.parametrize("hub", CORRECTIONS, ids=[kind for kind, _ in CORRECTIONS])
def test_a_vector_is_a_class_too(hub: tuple[str, dict[str, Any]]) -> None:
    vectors = world()[0].vectors
    given = [NewClass(f"kind {number}", vector=(3 * vectors[number]).tolist()) for number in LATE]
    found = made(LATE, hub).with_classes(given)
    np.testing.assert_allclose(in_order(found, pictures()), in_order(made([], hub), pictures()), atol=1e-4)


def test_one_call_or_several_in_any_order_come_to_the_same() -> None:
    before = made(hub=CORRECTIONS[1])
    scores = before.scores(pictures())
    one, other = (later(number) for number in LATE)
    at_once = before.with_classes([one, other])
    for found in (before.with_classes([other, one]), before.with_classes([other]).with_classes([one])):
        np.testing.assert_allclose(in_order(found, pictures()), in_order(at_once, pictures()), atol=1e-6)
    np.testing.assert_array_equal(before.scores(pictures()), scores)
    assert before.labels == made().labels
    assert before.with_classes([]) is before


def test_old_classes_are_not_mapped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(hub=CORRECTIONS[1]).with_classes([later(13)])
    before.scores(pictures())
    mapped = []
    map_classes = type(before.mapper).map_classes
    monkeypatch.setattr(
        type(before.mapper), "map_classes", lambda self, A: mapped.append(len(A)) or map_classes(self, A)
    )
    before.with_classes([later(11)]).among(["kind 11"]).scores(pictures())
    assert mapped == [1, 1, 1]  # by the mapper, and by that of the bank for the hubs and for the threshold


def test_an_extended_classifier_is_a_bundle_like_any_other(tmp_path: Path) -> None:
    extended = made(hub=CORRECTIONS[1]).with_classes([later(11)])
    extended.save(tmp_path)
    again = Classifier.load(tmp_path)
    np.testing.assert_allclose(again.scores(pictures()), extended.scores(pictures()), atol=1e-6)
    assert again.with_classes([later(13)]).labels[-2:] == ["kind 11", "kind 13"]


def test_without_a_bank_a_class_has_the_median_statistic_of_the_unseen_ones(tmp_path: Path) -> None:
    made([13], CORRECTIONS[1]).save(tmp_path)
    described = json.loads((tmp_path / "bundle.json").read_bytes())
    described["format"] = 2
    del described["hubs"]["bank"]
    (tmp_path / "bundle.json").write_text(json.dumps(described))
    earlier = Classifier.load(tmp_path)
    statistic = earlier.correction.statistic
    found = earlier.with_classes([later(13)]).correction.statistic
    np.testing.assert_array_equal(found, [*statistic, np.median(statistic[SEEN:])])


@pytest.mark.parametrize(
    ("new", "error", "said"),
    [
        (NewClass("kind 3", attributes=later(11).attributes), TakenName, "kind 3 is a class already"),
        (NewClass("ＫＩＮＤ  3", attributes=later(11).attributes), TakenName, "kind 3 is a class already"),
        (NewClass(" "), IncompleteClass, "no name"),
        (NewClass("bare"), IncompleteClass, "bare has no number for sign 0, .* give all 8 columns"),
        (
            NewClass("gap", attributes={**later(11).attributes, "sign 4": float("nan")}),
            IncompleteClass,
            "gap has no number for sign 4 of signs",
        ),
        (NewClass("short", vector=[1.0, 2.0]), ClassSpaceError, r"short has shape \(2,\).* of 8 numbers"),
        (NewClass("nan", vector=[float("nan")] * 8), ClassSpaceError, "nan is not of finite numbers"),
        (NewClass("zero", vector=[0.0] * 8), ClassSpaceError, "zero is zero"),
        (later(3, "copy"), CoincidentClasses, "copy and kind 3"),
    ],
)
def test_a_class_that_cannot_be_taken_is_refused_with_what_it_needs(
    new: NewClass, error: type[ClassSpaceError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        made().with_classes([new])
    if isinstance(caught.value, IncompleteClass) and new.name.strip():
        assert caught.value.needs == SIGNS


def test_of_two_new_classes_with_one_name_or_one_vector_neither_is_taken() -> None:
    with pytest.raises(TakenName, match="twin"):
        made().with_classes([later(11, "twin"), later(13, "twin")])
    with pytest.raises(CoincidentClasses, match="one and other"):
        made().with_classes([later(11, "one"), later(11, "other")])


def test_the_matrix_is_named_where_two_have_a_column_of_one_name() -> None:
    frame = pd.DataFrame({"name": ["a", "b", "c"], "role": "seen"})
    one = pd.DataFrame({"size": [0.1, 0.9, 0.4], "tail": [1.0, 0.2, 0.5]})
    other = pd.DataFrame({"size": [0.3, 0.5, 0.8], "ears": [0.7, 0.1, 0.9]})
    settings = params.Classes(source=["one", "other"])
    built = space.build(ClassTable(frame, {"one": one, "other": other}), settings, Path)
    given = {"size": 0.9, "tail": 0.2, "ears": 0.1}
    assert built.extended([NewClass("d", attributes=given)]).names == ["a", "b", "c", "d"]
    with pytest.raises(CoincidentClasses, match="d and b"):
        built.extended([NewClass("d", attributes={**given, "other/size": 0.5})])


def told() -> Classifier:
    """By descriptions: six animals, one of them unseen."""
    said = {
        "polar bear": "A large white bear that walks on ice and eats fish.",
        "brown bear": "A large brown bear of the forest that eats fish and berries.",
        "lemur": "A small grey lemur with a long striped tail that eats fruit.",
        "red fox": "A small red fox of the forest with a thick tail.",
        "seal": "A grey seal that swims and eats fish under the ice.",
        "zebra": "A large striped horse of the plain.",
    }
    frame = pd.DataFrame({"name": list(said), "role": "seen", "description": list(said.values())})
    built = space.build(ClassTable(frame), params.Classes(source="tfidf"), Path)
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 8)
    X = built.vectors[y] @ rng.normal(size=(built.vectors.shape[1], 24)) + 0.1 * rng.normal(size=(40, 24))
    mapper = Choice("ridge", {}, 0.0, 1.0).fit(
        Examples(X.astype(np.float32), y, np.full(40, "train"), y, built.vectors, y < 9, y < 9, built.names),
        np.arange(40),
        seed=0,
        device="cpu",
    )
    return Classifier(built, np.arange(6) < 5, mapper, 0.0, 0.1, threshold=0.3)


def test_words_that_are_not_known_are_named_with_near_ones() -> None:
    before = told()
    found = before.with_classes([NewClass("panda", "A large bear of the forrest, white and black.")])
    assert found.space.unknown_words("panda") == {"panda": [], "forrest": ["forest"], "black": []}
    with pytest.raises(UnknownWords, match=r"gizmo.*near: striped, bear") as caught:
        before.with_classes([NewClass("gizmo", "stripedd beear")])
    assert caught.value.unknown == {"gizmo": {"gizmo": [], "stripedd": ["striped"], "beear": ["bear"]}}


def test_a_class_without_a_description_is_told_to_have_one() -> None:
    with pytest.raises(
        IncompleteClass, match="no description for wolf: give one, as the other classes have"
    ) as caught:
        told().with_classes([NewClass("wolf")])
    assert caught.value.needs == ["description"]


def test_another_classifier_takes_what_it_can_of_the_classes_of_one_before() -> None:
    taken = NewClass("grizzly", "A large grey bear of the forest.")
    classes = [
        NewClass("zebra", "A striped horse."),
        NewClass("gizmo", "qwerty asdf"),
        taken,
        NewClass("wolf"),
        NewClass("ursus", taken.description),
    ]
    found, refused = told().reencode(classes)
    assert found.labels == [*told().labels, "grizzly"]
    assert {new.name: reason.split(":")[0] for new, reason in refused} == {
        "zebra": "zebra is now a class of the classifier itself",
        "gizmo": "TF-IDF knows no word of the descriptions of 1 class",
        "wolf": "no description for wolf",
        "ursus": "not told apart",
    }
    np.testing.assert_allclose(
        found.scores(pictures()), told().with_classes([taken]).scores(pictures()), atol=1e-6
    )


def test_of_many_classes_the_few_that_cannot_be_taken_do_not_slow_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.random.default_rng(3).normal(size=(128, len(SIGNS)))
    classes = [NewClass(f"late {row}", vector=vector.tolist()) for row, vector in enumerate(vectors)]
    classes[100] = replace(classes[100], vector=classes[7].vector)
    tried = []
    extended = ClassSpace.extended
    monkeypatch.setattr(
        ClassSpace, "extended", lambda self, group: tried.append(len(group)) or extended(self, group)
    )
    found, refused = made().reencode(classes)
    assert [(new.name, reason.split(":")[0]) for new, reason in refused] == [("late 100", "not told apart")]
    assert found.labels == made().labels + [each.name for each in classes if each.name != "late 100"]
    assert len(tried) == 15  # the whole, then two halves at each of seven levels


@pytest.mark.parametrize("hub", CORRECTIONS, ids=[kind for kind, _ in CORRECTIONS])
def test_classes_that_go_leave_the_others_as_if_they_had_never_come(
    hub: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(hub=hub)
    vectors = np.random.default_rng(3).normal(size=(6, len(SIGNS)))
    classes = [NewClass(f"late {row}", vector=vector.tolist()) for row, vector in enumerate(vectors)]
    expected = before.with_classes([classes[0], classes[3], classes[5]])
    whole = before.with_classes(classes).among(["kind 2", "late 1", "late 3"])
    monkeypatch.setattr(type(before.mapper), "map_classes", None)
    found = whole.without(["late 1", "late 2", "late 4"])
    assert (found.labels, found.later, found.space.coverage) == (expected.labels, 3, expected.space.coverage)
    assert [found.labels[column] for column in found.answerable] == ["kind 2", "late 3"]
    np.testing.assert_allclose(found.scores(pictures()), expected.scores(pictures()), atol=1e-6)
    assert found.without(["late 0", "late 3", "late 5"]).labels == before.labels
    with pytest.raises(NoSuchClass, match="no class kind 2"):
        whole.without(["kind 2"])


@pytest.mark.parametrize("hub", CORRECTIONS[:4], ids=[kind for kind, _ in CORRECTIONS[:4]])
def test_many_classes_that_come_leave_the_share_of_unknown_pictures_that_are_accepted(
    hub: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    before, X = made(hub=hub), world()[1].X
    sure = np.sort(before.confidences(before.scores(X)).max(axis=1))
    before = replace(before, threshold=float(sure[len(X) // 2 - 1 :][:2].mean()))
    vectors = np.random.default_rng(3).normal(size=(100, len(SIGNS)))
    after = before.with_classes([NewClass(f"far {row}", vector=vectors[row].tolist()) for row in range(100)])
    unknown = accepted_of_unknown(before, before.lowest)
    assert unknown > 0.2
    assert accepted_of_unknown(after, after.lowest) == pytest.approx(unknown, abs=0.1)
    assert accepted_of_unknown(after, before.threshold) < unknown / 2
    after.save(tmp_path)
    assert Classifier.load(tmp_path).lowest == pytest.approx(after.lowest, abs=1e-5)
    rest = after.without([f"far {row}" for row in range(1, 100)])
    assert after.lowest < rest.lowest
    assert rest.without(["far 0"]).lowest == before.threshold


def accepted_of_unknown(classifier: Classifier, lowest: float) -> float:
    """Of the pictures whose class is taken out of the candidates."""
    _, data = world()
    scores = classifier.scores(data.X)
    scores[np.arange(len(scores)), data.y] = -np.inf
    return float((classifier.confidences(scores).max(axis=1) >= lowest).mean())


def test_a_class_that_came_later_has_the_confidence_it_would_have_in_the_table() -> None:
    trained = made([], CORRECTIONS[1])
    later_on = made(hub=CORRECTIONS[1]).with_classes([later(11), later(13)])
    order = [later_on.labels.index(name) for name in trained.labels]
    X = pictures()
    np.testing.assert_allclose(
        later_on.confidences(later_on.scores(X))[:, order], trained.confidences(trained.scores(X)), atol=1e-5
    )


def test_answers_among_some_classes_are_the_best_of_these_with_the_scores_they_have_among_all() -> None:
    whole = made(hub=CORRECTIONS[1]).with_classes([later(11), later(13)])
    some = whole.among(["kind 13", "kind 2"])
    scores = some.scores(pictures())
    np.testing.assert_array_equal(scores, whole.scores(pictures()))
    everything = whole.answers(scores, top=len(whole.labels))
    for among, of_all in zip(some.answers(scores), everything, strict=True):
        named = [each for each in of_all["alternatives"] if each["label"] in ("kind 13", "kind 2")]
        assert among["alternatives"] == named
        assert among["label"] == named[0]["label"]
        assert among["confidence"] <= of_all["confidence"]
    assert whole.known(scores).sum() > some.known(scores).sum()


def test_the_only_class_there_is_to_choose_is_refused_where_others_are_likelier() -> None:
    whole = made()
    _, data = world()
    scores = whole.scores(data.X)
    answers = whole.among(["kind 2"]).answers(scores)
    assert {answer["label"] for answer in answers} == {"kind 2"}
    of_it = np.array([answer["known"] for answer in answers])
    assert of_it[data.y == 2].mean() > 0.7 > 0.3 > of_it[data.y != 2].mean()


def test_a_name_that_no_class_has_is_told_near_ones() -> None:
    with pytest.raises(NoSuchClass, match=r"no class Brown-Bear .*brown bear") as caught:
        told().among(["Brown-Bear", "seal"])
    assert caught.value.unknown == {"Brown-Bear": ["brown bear"]}
    with pytest.raises(DataError, match="name one or more"):
        told().among([])


def test_a_class_is_found_however_its_name_is_written() -> None:
    whole = told().among(["SEAL", "ｌemur "])
    assert [whole.labels[column] for column in whole.answerable] == ["lemur", "seal"]
    with pytest.raises(NoSuchClass, match=r"no class SEEL.*seal"):
        whole.among(["SEEL"])


def test_among_some_classes_new_ones_are_candidates_and_others_are_not() -> None:
    some = told().among(["seal", "lemur"]).with_classes([NewClass("grizzly", "A large grey bear.")])
    assert [some.labels[column] for column in some.answerable] == ["lemur", "seal", "grizzly"]
    with pytest.raises(NoSuchClass, match="zebra"):
        some.among(["zebra"])
