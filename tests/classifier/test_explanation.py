"""An explanation adds up to the difference of the scores, and what it says is strongest is what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors.contrast import contrast
from ayeaye.class_vectors.new_class import NewClass
from ayeaye.class_vectors.space import build
from ayeaye.classifier import hubs
from ayeaye.classifier.explanation import STEPS, contributions, phrase, sentence
from ayeaye.classifier.model import Classifier
from ayeaye.classifier.nearest import scores
from ayeaye.core.errors import DataError, NoSuchClass
from ayeaye.core.params import Classes
from ayeaye.data import bestiary
from ayeaye.data.table import ClassTable
from ayeaye.mappers import create

WIDTH = 32
MAPPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ridge": ("ridge", {}),
    "ridge, quadratic": ("ridge", {"kernel": "quadratic"}),
    "ridge, gaussian": ("ridge", {"kernel": "gaussian", "shrinkage": None}),
    "eszsl": ("eszsl", {}),
    "eszsl in images": ("eszsl", {"space": "images"}),
    "sae": ("sae", {}),
    "drop_last": ("drop_last", {"steps": 60}),
    "rank": ("rank", {}),
    "prototype": ("prototype", {"steps": 40}),
    "blend": ("blend", {}),
}
SOURCES = ["attributes", "strengths", "tfidf", "word2vec", "numbers", ["tfidf", "attributes", "numbers"]]


class World:
    """The bestiary's animals, each embedding the sum of directions of its attributes, and noise."""

    def __init__(self) -> None:
        self.made: dict[str, Classifier] = {}
        animals = bestiary.species(40, 0)
        signs = np.stack([animal.one_hot() for animal in animals])
        rng = np.random.default_rng(0)
        strengths = np.abs(signs - 0.3 * rng.random(signs.shape)) * rng.uniform(50, 100, (40, 1))
        frame = pd.DataFrame(
            {
                "name": [animal.name for animal in animals],
                "role": [animal.role for animal in animals],
                "description": [animal.description for animal in animals],
            }
        )
        matrices = {"attributes": signs, "strengths": strengths}
        named = {name: pd.DataFrame(values, columns=bestiary.columns()) for name, values in matrices.items()}
        self.table = ClassTable(frame, {**named, "numbers": pd.DataFrame(rng.standard_normal((40, 9)))})
        self.directions = rng.standard_normal((signs.shape[1], WIDTH))
        self.y = np.repeat(np.flatnonzero(self.table.seen), 12)
        self.X = self.pictures(signs[self.y], rng)
        self.query = self.pictures(signs[self.table.names.index("aye-aye")][None], rng)[0]

    def pictures(self, signs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (signs @ self.directions + rng.standard_normal((len(signs), WIDTH))).astype(np.float32)

    def classifier(self, mapper: str = "ridge", source: str | list[str] = "attributes") -> Classifier:
        key = f"{mapper} {source}"
        self.made[key] = self.made.get(key) or self._classifier(mapper, source)
        return self.made[key]

    def _classifier(self, mapper: str, source: str | list[str]) -> Classifier:
        name, settings = MAPPERS[mapper]
        space = build(self.table, Classes(source=source, dimensions=16), Path)
        fitted = create(name, **settings).fit(self.X, self.y, space.vectors)
        return Classifier(space, self.table.seen, fitted, gamma=0.07, temperature=0.1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def total(explained: dict[str, Any]) -> float:
    others = explained["hub_correction"] + explained["seen_offset"]
    return sum(part["contribution"] for part in explained["parts"]) + others


def check(classifier: Classifier, world: World) -> None:
    """The sum against the scores, for the winner and for two other classes."""
    ranking = classifier.scores(world.query[None])[0]
    first, second, *_, last = np.argsort(-ranking)
    for chosen, row, other in (
        ({}, first, second),
        ({"label": classifier.labels[last]}, last, first),
        ({"label": classifier.labels[second], "against": classifier.labels[last]}, second, last),
    ):
        explained = classifier.explain(world.query, **chosen)
        assert (explained["label"], explained["against"]) == (
            classifier.labels[row],
            classifier.labels[other],
        )
        assert (explained["score"], explained["against_score"]) == pytest.approx(
            (ranking[row], ranking[other])
        )
        assert explained["difference"] == pytest.approx(ranking[row] - ranking[other], abs=1e-5)
        assert total(explained) == pytest.approx(ranking[row] - ranking[other], abs=1e-5)
        sizes = [abs(part["contribution"]) for part in explained["parts"]]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_the_parts_add_up_to_the_difference_whatever_the_mapper(world: World, mapper: str) -> None:
    check(world.classifier(mapper), world)


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("mapper", ["ridge, quadratic", "prototype"])
def test_the_parts_add_up_to_the_difference_whatever_the_source(
    world: World, mapper: str, source: Any
) -> None:
    check(world.classifier(mapper, source), world)


@pytest.mark.parametrize("kind", hubs.KINDS)
def test_the_parts_add_up_to_the_difference_whatever_the_correction_of_hubs(world: World, kind: str) -> None:
    classifier = world.classifier()
    bank = classifier.raw_scores(world.X[::5])
    corrected = replace(classifier, correction=hubs.fit(kind, hubs.GRIDS[kind][0], bank))
    check(corrected, world)
    assert (corrected.explain(world.query)["hub_correction"] != 0) == (kind != "none")


@pytest.mark.parametrize("kind", hubs.KINDS)
def test_where_the_bank_says_the_same_of_both_the_correction_of_hubs_counts_nothing(
    world: World, kind: str
) -> None:
    classifier = world.classifier()
    fitted = hubs.fit(kind, hubs.GRIDS[kind][0], classifier.raw_scores(world.X[::5]))
    even = replace(
        fitted, statistic=np.full_like(fitted.statistic, fitted.statistic.mean() if kind != "none" else 0)
    )
    corrected = replace(classifier, correction=even)
    check(corrected, world)
    for against in ("aye-aye", classifier.labels[3], classifier.labels[-1]):
        explained = corrected.explain(world.query, classifier.labels[7], against)
        assert explained["hub_correction"] == pytest.approx(0, abs=1e-5)
        assert explained["difference"] != 0


def test_the_offset_stands_apart(world: World) -> None:
    classifier = world.classifier()
    seen = classifier.labels[int(np.flatnonzero(classifier.seen)[0])]
    explained = classifier.explain(world.query, "aye-aye", seen)
    assert explained["seen_offset"] == pytest.approx(0.07, abs=1e-6)


@pytest.mark.parametrize("source", ["attributes", "strengths"])
def test_attributes_on_which_both_agree_do_not_count(world: World, source: str) -> None:
    classifier = world.classifier(source=source)
    explained = classifier.explain(world.query, "aye-aye")
    values = world.table.matrices[source].set_index(pd.Index(world.table.names))
    label, against = values.loc["aye-aye"], values.loc[explained["against"]]
    found = {part["name"]: (part["value"], part["against_value"]) for part in explained["parts"]}
    assert found.keys() == set(values.columns[label != against])
    assert found == {name: pytest.approx((label[name], against[name])) for name in found}


@pytest.mark.parametrize("mapper", MAPPERS)
def test_taking_an_attribute_away_costs_about_what_it_counted(world: World, mapper: str) -> None:
    """Each in turn is taken from the winner, or given to the runner-up, and the class mapped anew."""
    classifier = world.classifier(mapper)
    explained = classifier.explain(world.query, "aye-aye")
    row, other = (classifier.labels.index(explained[name]) for name in ("label", "against"))
    image = classifier.mapper.map_images(world.query[None])

    def cosine(row: int, changed: dict[str, float]) -> float:
        signs = world.table.matrices["attributes"].iloc[[row]].assign(**changed)
        vectors = classifier.space.encode(ClassTable(world.table.frame.iloc[[row]], {"attributes": signs}))
        return float(scores(image, classifier.mapper.map_classes(vectors))[0, 0])

    taken = [
        cosine(row, {}) - cosine(row, {part["name"]: part["against_value"]}) for part in explained["parts"]
    ]
    given = [cosine(other, {part["name"]: part["value"]}) - cosine(other, {}) for part in explained["parts"]]
    worth = np.mean([taken, given], axis=0)
    counted = np.array([part["contribution"] for part in explained["parts"]])
    strongest = [int(counted.argmax()), 0, 1]
    assert (np.sign(taken) == np.sign(counted))[strongest].all()
    assert (np.sign(worth) == np.sign(counted))[strongest].all()
    assert np.corrcoef(worth, counted)[0, 1] > 0.8


def test_what_truly_makes_the_picture_is_what_counts(world: World) -> None:
    """Pictures are sums of their attributes: those that one has and not the other, and the reverse, speak for it."""
    classifier = world.classifier()
    speaking = []
    for name in np.array(classifier.labels)[~classifier.seen].tolist():
        signs = world.table.matrices["attributes"].iloc[[classifier.labels.index(name)]].to_numpy()
        query = world.pictures(signs, np.random.default_rng(1))[0]
        speaking += [part["contribution"] > 0 for part in classifier.explain(query, name)["parts"]]
    assert len(speaking) > 100
    assert np.mean(speaking) > 0.75


def test_it_is_as_fine_as_with_many_times_the_steps(world: World) -> None:
    for mapper, bound in (("ridge, gaussian", 1e-4), ("blend", 1e-4), ("prototype", 2e-3)):
        classifier = world.classifier(mapper)
        image = classifier.mapper.map_images(world.query[None])[0]
        way = contrast(classifier.space, 3, 17)
        once, finer = (contributions(image, classifier.mapper, way, steps) for steps in (STEPS, 20 * STEPS))
        np.testing.assert_allclose(once, finer, atol=bound)


def test_two_opposite_classes_are_explained_as_well(world: World) -> None:
    """Of two classes alone the way leads through the very middle, where there is no direction."""
    rows = np.flatnonzero(world.table.seen)[:2]
    for source in ("attributes", "tfidf", "numbers"):
        space = build(world.table.take(rows), Classes(source=source), Path)
        chosen = np.isin(world.y, rows)
        mapper = create("ridge").fit(world.X[chosen], np.searchsorted(rows, world.y[chosen]), space.vectors)
        classifier = Classifier(space, np.array([True, True]), mapper, 0.0, 0.1)
        explained = classifier.explain(world.X[chosen][0])
        assert explained["difference"] > 0.5
        assert total(explained) == pytest.approx(explained["difference"], abs=1e-5)


def test_the_nearest_seen_classes_are_told(world: World) -> None:
    classifier = world.classifier()
    found = classifier.explain(world.query, "aye-aye", top=3)["nearest_seen"]
    seen = np.flatnonzero(classifier.seen)
    cosines = classifier.raw_scores(world.query[None])[0][seen]
    assert [each["label"] for each in found["to_picture"]] == [
        classifier.labels[seen[place]] for place in np.argsort(-cosines)[:3]
    ]
    assert found["to_picture"][0]["cosine"] == pytest.approx(cosines.max())
    row = classifier.labels.index("aye-aye")
    cosines = classifier.space.vectors[seen] @ classifier.space.vectors[row]
    assert [each["cosine"] for each in found["to_label"]] == pytest.approx(np.sort(cosines)[:-4:-1])
    for each in found["to_label"]:
        other = classifier.space.vectors[classifier.labels.index(each["label"])]
        assert each["cosine"] == pytest.approx(other @ classifier.space.vectors[row])
    own = classifier.explain(world.query, classifier.labels[seen[0]])["nearest_seen"]["to_label"]
    assert classifier.labels[seen[0]] not in {each["label"] for each in own}


def test_a_class_that_there_is_not_is_refused_with_the_nearest_names(world: World) -> None:
    classifier = world.classifier()
    with pytest.raises(NoSuchClass, match="no class aye aye: did you mean aye-aye") as refused:
        classifier.explain(world.query, "aye aye")
    assert refused.value.unknown["aye aye"][0] == "aye-aye"
    with pytest.raises(DataError, match="nothing to be compared with"):
        classifier.explain(world.query, "aye-aye", "aye-aye")


@pytest.mark.parametrize("source", ["attributes", "tfidf", "word2vec", ["tfidf", "attributes"]], ids=str)
def test_a_class_that_came_later_is_explained_by_what_was_said_of_it(
    world: World, source: Any, tmp_path: Path
) -> None:
    place = world.table.names.index("aye-aye")
    rest = world.table.take(np.delete(np.arange(40), place))
    space = build(rest, Classes(source=source, dimensions=16), Path)
    y = np.searchsorted(np.delete(np.arange(40), place), world.y)
    classifier = Classifier(space, rest.seen, create("ridge").fit(world.X, y, space.vectors), 0.07, 0.1)
    new = NewClass(
        "aye-aye",
        world.table.frame["description"][place],
        synonyms=["Daubentonia"],
        attributes=world.table.matrices["attributes"].iloc[place].to_dict(),
    )
    with_vector = NewClass("vector", vector=(space.vectors[3] + space.vectors[5]).tolist())
    extended = classifier.with_classes([with_vector, new])
    extended.save(tmp_path)
    for found in (extended, Classifier.load(tmp_path), extended.without(["vector"])):
        explained = found.explain(world.query, "aye-aye", space.names[0])
        assert total(explained) == pytest.approx(explained["difference"], abs=1e-5)
        assert len(explained["parts"]) > 3
        assert all(part["value"] is not None for part in explained["parts"])
    as_a_whole = extended.explain(world.query, "vector", "aye-aye")
    assert all(part["value"] is None for part in as_a_whole["parts"])
    assert total(as_a_whole) == pytest.approx(as_a_whole["difference"], abs=1e-5)


def test_an_explanation_survives_saving(world: World, tmp_path: Path) -> None:
    classifier = world.classifier(source=["tfidf", "attributes"])
    classifier.save(tmp_path)
    assert Classifier.load(tmp_path).explain(world.query) == classifier.explain(world.query)


def part(
    name: str, contribution: float, value: float | None = 1.0, against: float | None = 0.0
) -> dict[str, Any]:
    return {"name": name, "contribution": contribution, "value": value, "against_value": against}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (part("nocturnal", 0.1), "nocturnal"),
        (part("neck=long", 0.1, 0, 1), "no long neck"),
        (part("horns=none", 0.1), "no horns"),
        (part("horns=none", 0.1, 0, 1), "horns"),
        (part("tail", 0.1, 0.5, 0.2), "more tail"),
        (part("tail", 0.1, 0.2, 0.5), "less tail"),
        (part("sentences", 0.1, None, None), "sentences as a whole"),
    ],
)
def test_a_difference_is_put_as_the_winner_has_it(given: dict[str, Any], said: str) -> None:
    assert phrase(given) == said


def test_a_sentence_holds_the_strongest_differences_and_what_else_counts() -> None:
    parts = [part("long fingers", 0.12), part("ring-tail", -0.03), part("dark", 0.02), part("fur", 0.001)]
    explained = {
        "label": "aye-aye",
        "against": "lemur",
        "parts": parts,
        "hub_correction": 0.0,
        "seen_offset": 0.07,
    }
    assert sentence(explained) == (
        "aye-aye rather than lemur: long fingers (+0.12), dark (+0.02); against it: ring-tail (−0.03); "
        "besides: offset of seen classes (+0.07)"
    )
    assert "nothing that was said of them speaks for it; against it: fur (−0.40)" in sentence(
        {**explained, "parts": [part("fur", -0.4)], "seen_offset": 0.0}
    )
