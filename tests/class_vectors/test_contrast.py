"""What tells two classes apart leads exactly from the one to the other, and what they share does not count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors.contrast import Contrast, contrast
from ayeaye.class_vectors.space import ClassSpace, build
from ayeaye.core.params import Classes
from ayeaye.data.table import ClassTable

DESCRIPTIONS = {
    "Polar-Bear": "A large white bear that walks on ice and eats fish.",
    "brown_bear": "A large brown Bear of the forest that eats fish, fish and berries.",
    "Ring-tailed lemur": "A small grey lemur with a long striped tail that eats fruit.",
    "RedFox": "A small red fox of the forest with a thick tail and a squamoid nose.",
    "Seal": "A grey seal that swims and eats fish under the ice.",
}
STRENGTHS = pd.DataFrame(
    {"size": [90, 90, 20, 30, 70], "long_tail": [0, 10, 90, 80, 5], "Water": [60, 20, 5, 5, 99]}
)
SIGNS = pd.DataFrame(
    {
        "walks": [1, 1, 1, 1, 0],
        "bear": [1, 1, 0, 0, 0],
        "white": [1, 0, 0, 0, 0],
        "red": [0, 0, 0, 1, 0],
        "sea": [1, 0, 0, 0, 1],
    }
)
NUMBERED = pd.DataFrame(np.random.default_rng(1).standard_normal((5, 7)))
SOURCES: list[str | list[str]] = [
    "glove",
    "fasttext",
    "tfidf",
    "strengths",
    "signs",
    "numbered",
    ["glove", "tfidf", "strengths", "numbered"],
]


def table() -> ClassTable:
    synonyms = [["ice bear"], [], ["maki"], [], []]
    frame = pd.DataFrame(
        {"name": list(DESCRIPTIONS), "description": list(DESCRIPTIONS.values()), "synonyms": synonyms}
    )
    return ClassTable(frame, {"strengths": STRENGTHS, "signs": SIGNS, "numbered": NUMBERED})


def space_of(folder: Path, source: str | list[str], text: str = "descriptions") -> ClassSpace:
    """Saved and loaded, as it comes with a bundle; `squamoid` and `brown` are no words of its file."""
    words = (
        "polar_bear bear large white ice fish lemur maki small grey tail fruit fox red forest seal eats long"
    )
    rng = np.random.default_rng(0)
    rows = [f"{word} {' '.join(f'{x:.4f}' for x in rng.standard_normal(8))}" for word in words.split()]
    (folder / "words.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    files = {"glove": str(folder / "words.txt")} if "glove" in source else ""
    made = build(table(), Classes(source=source, text=text, vectors=files, dimensions=8), Path)
    made.save(folder / "space")
    return ClassSpace.load(folder / "space")


def found(way: Contrast) -> dict[str, tuple[float | None, float | None]]:
    return {each.name: (each.value, each.against_value) for each in way.differences}


@pytest.mark.parametrize("text", ["names", "synonyms", "descriptions"])
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_the_way_leads_from_the_one_vector_to_the_other(tmp_path: Path, source, text: str) -> None:
    space = space_of(tmp_path, source, text)
    for against, label in ((0, 1), (2, 4), (3, 0)):
        way = contrast(space, label, against)
        ends = way.vectors(np.array([0.0, 1.0]))
        np.testing.assert_allclose(ends, space.vectors[[against, label]], atol=1e-5)
        assert (
            {each.source for each in way.differences} == {source} if isinstance(source, str) else set(source)
        )
        assert {each.source for each in way.differences if not each.readable} == {"numbered"} & {
            each.source for each in way.differences
        }


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_rates_add_up_to_the_derivative_along_the_way(tmp_path: Path, source) -> None:
    way = contrast(space_of(tmp_path, source), 2, 3)
    times = np.array([0.1, 0.5, 0.8])
    gradients = np.random.default_rng(2).standard_normal(way.vectors(times).shape)
    ahead, behind = way.vectors(times + 1e-5), way.vectors(times - 1e-5)
    expected = np.sum(gradients * (ahead - behind), axis=1) / 2e-5
    rates = way.rates(times, gradients)
    assert rates.shape == (3, len(way.differences))
    np.testing.assert_allclose(rates.sum(axis=1), expected, rtol=1e-5, atol=1e-7)


def test_attributes_are_those_that_differ_with_their_values(tmp_path: Path) -> None:
    assert found(contrast(space_of(tmp_path, "strengths"), 1, 0)) == {"long tail": (10, 0), "water": (20, 60)}
    assert found(contrast(space_of(tmp_path, "signs"), 4, 0)) == {
        "walks": (0, 1),
        "bear": (0, 1),
        "white": (0, 1),
    }


def test_a_class_of_which_no_sign_is_true_is_read_as_well(tmp_path: Path) -> None:
    signs = SIGNS.copy()
    signs.iloc[3] = 0
    made = build(ClassTable(table().frame, {"signs": signs}), Classes(source="signs"), Path)
    assert found(contrast(made, 0, 3)) == {"walks": (1, 0), "bear": (1, 0), "white": (1, 0), "sea": (1, 0)}


@pytest.mark.parametrize(
    ("names", "readable"), [("0 1 2", False), ("e1 e2 e3", False), ("leg2 leg4 tail", True)]
)
def test_columns_that_are_only_numbered_have_no_names(names: str, readable: bool) -> None:
    matrix = pd.DataFrame(STRENGTHS.to_numpy(), columns=names.split())
    made = build(ClassTable(table().frame, {"given": matrix}), Classes(source="given"), Path)
    assert {each.readable for each in contrast(made, 0, 2).differences} == {readable}
    assert ("given" in made.values) == readable


def test_words_are_those_of_one_description_alone(tmp_path: Path) -> None:
    differing = found(contrast(space_of(tmp_path, "glove"), 1, 0))
    assert differing.keys() == {"white", "walks", "ice", "brown", "forest", "berries"}
    assert all(min(pair) == 0 < max(pair) for pair in differing.values())


def test_a_term_said_more_often_of_one_counts(tmp_path: Path) -> None:
    differing = found(contrast(space_of(tmp_path, "tfidf"), 1, 0))
    assert differing.keys() == {"polar", "ice", "white", "walk", "brown", "forest", "berry", "fish", "bear"}
    more, less = differing["fish"]
    assert more > less > 0


def test_a_source_of_which_nothing_was_kept_is_taken_as_a_whole(tmp_path: Path) -> None:
    """As in a bundle of an earlier ayeaye, or for a class that came later without what was said of it."""
    space = space_of(tmp_path, ["strengths", "tfidf"])
    for forgetful in (
        replace(space, values={}, descriptions=[]),
        replace(
            space, values={"strengths": space.values["strengths"][:2]}, descriptions=space.descriptions[:2]
        ),
        replace(space, values={"strengths": np.full((5, 3), np.nan)}, descriptions=[""] * 5),
        replace(space, values={"strengths": space.values["strengths"][::-1]}, descriptions=space.names),
    ):
        way = contrast(forgetful, 3, 1)
        assert [(each.name, each.readable) for each in way.differences] == [
            ("strengths", False),
            ("tfidf", False),
        ]
        np.testing.assert_allclose(way.vectors(np.array([0.0, 1.0])), space.vectors[[1, 3]], atol=1e-5)


def test_a_space_of_an_earlier_ayeaye_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """It kept descriptions alone: classes with synonyms, and attributes, are taken as a whole."""
    about, arrays = space_of(tmp_path, ["strengths", "tfidf"]).state()
    del about["synonyms"], arrays["values/strengths"]
    space = ClassSpace.from_state(about, arrays)
    way = contrast(space, 3, 1)
    assert {each.source for each in way.differences if each.readable} == {"tfidf"}
    assert {each.name for each in way.differences if not each.readable} == {"strengths"}
    assert {each.name for each in contrast(space, 3, 0).differences} == {"strengths", "tfidf"}
