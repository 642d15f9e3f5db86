"""How names and descriptions become words."""

from __future__ import annotations

import pandas as pd
import pytest

from ayeaye.class_vectors import text
from ayeaye.core.errors import ClassSpaceError
from ayeaye.data.table import ClassTable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Granny-Smith", ["Granny", "Smith"]),
        ("polar_bear", ["polar", "bear"]),
        ("GrannySmith apple", ["Granny", "Smith", "apple"]),
        ("ÄppleRöd", ["Äpple", "Röd"]),
        ("001.Black_footed_Albatross", ["Black", "footed", "Albatross"]),
        ("BMWCar", ["BMW", "Car"]),
        ("aye-aye", ["aye", "aye"]),
        ("キウイ", ["キウイ"]),
    ],
)
def test_a_name_is_split(name: str, expected: list[str]) -> None:
    assert text.name_words(name) == expected


def test_whole_names_begin_with_the_name_as_it_is() -> None:
    forms = text.whole_names("Polar-Bear")
    assert forms[0] == "Polar-Bear"
    assert {"polar_bear", "polar-bear", "Polar_Bear", "polarbear"} <= set(forms)


def test_content_words_come_once_and_without_stop_words() -> None:
    assert text.content_words("The bear's thick fur, and the Thick ears.") == ["bear", "thick", "fur", "ears"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("apples", "apple"),
        ("berries", "berry"),
        ("potatoes", "potato"),
        ("bushes", "bush"),
        ("grass", "grass"),
        ("citrus", "citrus"),
        ("gas", "gas"),
    ],
)
def test_plurals_are_folded(word: str, expected: str) -> None:
    assert text.stem(word) == expected


def table(*descriptions: str) -> ClassTable:
    names = [f"class {number}" for number in range(len(descriptions))]
    return ClassTable(pd.DataFrame({"name": names, "role": "seen", "description": descriptions}))


def test_auto_means_descriptions_only_where_all_classes_have_one() -> None:
    assert text.choose(table("small", "large"), "auto") == "descriptions"
    assert text.choose(table("small", " "), "auto") == "synonyms"
    assert text.choose(table("small", "large"), "names") == "names"


def test_a_missing_description_is_named() -> None:
    with pytest.raises(ClassSpaceError, match="no description for class 1"):
        text.descriptions(table("small", ""))
