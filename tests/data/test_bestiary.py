"""The bestiary: which species there are, what is written of them, and how they are drawn."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from ayeaye.core.errors import SourceError
from ayeaye.data import bestiary
from ayeaye.data.bestiary import ATTRIBUTES, draw, species, table

SETTINGS = [(32, 0), (33, 7), (72, 0), (72, -5), (72, 2**80), (300, 1)]


@pytest.fixture(
    scope="module", params=SETTINGS, ids=lambda setting: f"{setting[0]} species, seed {setting[1]}"
)
def animals(request):
    return species(*request.param)


def test_a_sixth_of_the_species_and_at_least_eight_are_unseen(animals):
    unseen = sum(animal.role == "unseen" for animal in animals)
    assert unseen == max(8, round(len(animals) / 6))
    assert {animal.role for animal in animals} == {"seen", "unseen"}


def test_every_value_of_an_unseen_species_occurs_in_two_seen_ones(animals):
    seen = [animal for animal in animals if animal.role == "seen"]
    for animal in animals:
        if animal.role == "unseen":
            for name, value in animal.attributes.items():
                assert sum(other.attributes[name] == value for other in seen) >= 2, (animal.name, name, value)


def test_two_species_differ_in_at_least_four_attributes(animals):
    rows = [tuple(animal.attributes.values()) for animal in animals]
    for position, row in enumerate(rows):
        for other in rows[:position]:
            assert sum(a != b for a, b in zip(row, other, strict=True)) >= bestiary.LEAST_DIFFERENCE


def test_markings_show_on_every_coat(animals):
    pairs = {(animal.attributes["colour"], animal.attributes["marking"]) for animal in animals}
    assert not pairs & bestiary.HIDDEN_MARKINGS


def test_the_aye_aye_is_unseen_lives_on_land_is_small_and_has_no_long_neck(animals):
    (aye_aye,) = [animal for animal in animals if animal.name == "aye-aye"]
    assert aye_aye.role == "unseen"
    assert aye_aye.attributes == bestiary.AYE_AYE
    assert [aye_aye.attributes[key] for key in ("habitat", "size", "neck")] == ["land", "small", "short"]
    assert {"land", "small", "short", "big", "bushy"} <= words(aye_aye.description)


def test_names_and_descriptions_are_all_different(animals):
    assert len({animal.name for animal in animals}) == len(animals)
    assert len({animal.description for animal in animals}) == len(animals)


def test_a_description_has_two_to_four_sentences_and_both_words_of_every_attribute(animals):
    for animal in animals:
        assert 2 <= animal.description.count(".") <= 4
        assert animal.description.endswith(".")
        said = words(animal.description)
        for name, value in animal.attributes.items():
            assert said >= set(bestiary._WORDS[name][value]), (animal.description, name, value)


def test_a_description_has_no_word_of_a_value_the_species_lacks(animals):
    for animal in animals:
        said = words(animal.description)
        for name, values in ATTRIBUTES.items():
            for value in values:
                if animal.attributes[name] != value:
                    assert not said & set(bestiary._WORDS[name][value]), (animal.description, name, value)


def test_descriptions_vary_in_their_order_and_wording():
    texts = [animal.description for animal in species(72, 0)]
    assert len({text.split()[0] for text in texts}) > 5
    assert len({text.count(".") for text in texts}) == 3


def test_articles_fit_the_word_that_follows():
    for animal in species(300, 1):
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", animal.description), animal.description


def test_the_values_of_an_attribute_are_spread_evenly():
    animals = species(72, 3)
    for name, values in ATTRIBUTES.items():
        counts = [sum(animal.attributes[name] == value for animal in animals) for value in values]
        assert max(counts) - min(counts) <= 1


def test_the_same_seed_gives_the_same_species_and_another_seed_others():
    assert species(40, 5) == species(40, 5)
    assert {animal.name for animal in species(40, 5)} != {animal.name for animal in species(40, 6)}
    combinations = [{tuple(animal.attributes.values()) for animal in species(40, seed)} for seed in (5, 6)]
    assert len(combinations[0] & combinations[1]) < 5


def test_fewer_than_32_species_are_refused():
    with pytest.raises(SourceError, match=r"31 species are too few.*32"):
        species(31, 0)


def test_the_table_has_roles_descriptions_and_one_hot_attributes():
    animals = species(32, 0)
    frame = table(animals)
    hot = frame.filter(regex="^attributes/")
    assert list(frame.columns[:3]) == ["name", "role", "description"]
    assert list(hot.columns) == [f"attributes/{column}" for column in bestiary.columns()]
    assert (hot.dtypes == np.float32).all()
    assert (hot.sum(axis=1) == len(ATTRIBUTES)).all()
    row = frame.set_index("name").loc["aye-aye"]
    assert row["attributes/ears=big"] == 1
    assert row["attributes/neck=long"] == 0


@pytest.mark.parametrize("side", [24, 64, 96, 128])
def test_a_picture_has_the_size_asked_for(side):
    picture = draw(species(32, 0)[0], 0, 0, side)
    assert picture.mode == "RGB"
    assert picture.size == (side, side)


def test_a_picture_repeats_by_seed_and_differs_by_index_and_seed():
    animal = species(32, 0)[3]
    first = pixels(animal, 0, 0)
    assert np.array_equal(first, pixels(animal, 0, 0))
    assert not np.array_equal(first, pixels(animal, 1, 0))
    assert not np.array_equal(first, pixels(animal, 0, 1))


def test_no_two_pictures_of_a_bestiary_are_the_same():
    animals = species(32, 0)
    digests = {
        hashlib.sha256(draw(animal, index, 0).tobytes()).hexdigest()
        for animal in animals
        for index in range(4)
    }
    assert len(digests) == 4 * len(animals)


@pytest.mark.parametrize("attribute", list(ATTRIBUTES))
def test_every_value_of_an_attribute_changes_the_look(attribute):
    looks = [look(AYE_AYE_IN_FULL | {attribute: value}) for value in ATTRIBUTES[attribute]]
    for position, one in enumerate(looks):
        for other in looks[:position]:
            # Noise of the same seed cancels: what is left is the animal and its scene.
            assert np.abs(one - other).mean() > 0.5


def test_light_and_background_differ_from_picture_to_picture():
    animal = species(32, 0)[0]
    means = np.array([pixels(animal, index, 0).mean(axis=(0, 1)) for index in range(16)])
    assert (means.std(axis=0) > 5).all()


AYE_AYE_IN_FULL = {**bestiary.AYE_AYE, "size": "large"}


def look(attributes):
    animal = bestiary.Species("model", "seen", "", attributes)
    return np.mean([pixels(animal, index, 0) for index in range(6)], axis=0)


def pixels(animal, index, seed):
    return np.asarray(draw(animal, index, seed), np.float32)


def words(text):
    return set(re.findall(r"[a-z]+", text.lower()))
