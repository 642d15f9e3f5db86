"""Leakage: which unseen classes a backbone knows, by name and by kin, and by which of its classes."""

from __future__ import annotations

import pytest

from ayeaye.backbones.backbones import imagenet_categories
from ayeaye.evaluation.leakage import Flag, Named, flags, fold, possible

IMAGENET = [Named(name) for name in imagenet_categories()]
# As WordNet 3.0 has it, shortened.
KIN = [
    ("ram.n.05", "sheep.n.01"),
    ("bighorn.n.02", "mountain_sheep.n.01"),
    ("mountain_sheep.n.01", "wild_sheep.n.01"),
    ("wild_sheep.n.01", "sheep.n.01"),
    ("killer_whale.n.01", "dolphin.n.02"),
    ("dolphin.n.02", "toothed_whale.n.01"),
    ("blue_whale.n.01", "baleen_whale.n.01"),
    ("baleen_whale.n.01", "whale.n.02"),
    ("toothed_whale.n.01", "whale.n.02"),
    ("sea_lion.n.01", "eared_seal.n.01"),
    ("eared_seal.n.01", "seal.n.09"),
    ("walrus.n.01", "pinniped_mammal.n.01"),
    ("seal.n.09", "pinniped_mammal.n.01"),
    ("sorrel.n.05", "horse.n.01"),
    ("bobcat.n.01", "lynx.n.02"),
]
# The unseen classes of AWA2's proposed split (Xian et al., 2019), as the data set spells them.
AWA2 = ["sheep", "dolphin", "bat", "seal", "blue+whale", "rat", "horse", "walrus", "giraffe", "bobcat"]


def flagged(
    *named: Named, pretrained: list[Named], pairs: list[tuple[str, str]] | None = None
) -> dict[str, Flag]:
    return flags(named, pretrained, pairs or [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Killer-Whales", "killer whale"),
        ("granny_smith", "Granny Smith"),
        ("Persian+cat", "persian cats"),
        ("Strawberries", "strawberry"),
        ("007.Aye_aye", "aye-aye"),
        ("GrannySmith", "granny-smith"),
    ],
)
def test_spellings_of_one_name_fold_together(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("ram", "tram"), ("bass", "base"), ("sea lion", "lion"), ("ox", "")]
)
def test_other_names_stay_apart(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_no_unseen_class_of_awa2_is_called_as_a_class_of_imagenet() -> None:
    assert len(IMAGENET) == 1000
    assert flags(map(Named, AWA2), IMAGENET) == {}


def test_with_wordnet_half_the_unseen_classes_of_awa2_are_known_by_their_kin() -> None:
    assert flags(map(Named, AWA2), IMAGENET, KIN) == {
        "sheep": Flag("descendant", "ram"),
        "dolphin": Flag("descendant", "killer whale"),
        "seal": Flag("descendant", "sea lion"),
        "horse": Flag("descendant", "sorrel"),
        "bobcat": Flag("ancestor", "lynx"),
    }


def test_kin_count_upwards_too_and_siblings_do_not() -> None:
    pretrained = [Named("whale"), Named("killer whale")]
    found = flagged(Named("blue whale"), Named("bobcat"), pretrained=pretrained, pairs=KIN)
    assert found == {"blue whale": Flag("ancestor", "whale")}
    assert flagged(Named("blue whale"), pretrained=pretrained[1:], pairs=KIN) == {}


def test_a_name_goes_before_a_synonym_and_that_before_kin() -> None:
    orca = Named("orca", ("grampus", "Killer_Whales"))
    assert flagged(orca, pretrained=IMAGENET, pairs=KIN) == {"orca": Flag("synonym", "killer whale")}
    zebras = Named("zebras", ("ram",))
    assert flagged(zebras, pretrained=IMAGENET) == {"zebras": Flag("exact", "zebra")}
    both = Named("dolphin", ("hog",))
    assert flagged(both, pretrained=IMAGENET, pairs=KIN) == {"dolphin": Flag("synonym", "hog")}


def test_a_synset_finds_its_class_under_another_name() -> None:
    pretrained = [Named("killer whale", synset="n02071294")]
    assert flagged(Named("orca", synset="n02071294"), pretrained=pretrained) == {
        "orca": Flag("synonym", "killer whale")
    }
    kin = [("n02071294", "n02068974")]
    assert flagged(Named("Delphinidae", synset="n02068974"), pretrained=pretrained, pairs=kin) == {
        "Delphinidae": Flag("descendant", "killer whale")
    }


def test_a_synset_tells_the_senses_of_a_name_apart() -> None:
    kin = [("baseball bat.n.01", "bat.n.05"), ("fruit_bat.n.01", "bat.n.01")]
    pretrained = [Named("baseball bat")]
    assert flagged(Named("bat", synset="bat.n.01"), pretrained=pretrained, pairs=kin) == {}
    # Without one every sense is meant: rather a flag too many.
    assert flagged(Named("bat"), pretrained=pretrained, pairs=kin) == {
        "bat": Flag("descendant", "baseball bat")
    }


def test_plain_names_make_a_hierarchy_and_a_synset_unknown_to_it_is_no_matter() -> None:
    found = flagged(
        Named("Apples", synset="n1"), pretrained=[Named("Granny_Smith")], pairs=[("granny smith", "apple")]
    )
    assert found == {"Apples": Flag("descendant", "Granny_Smith")}


def test_a_circle_ends_and_a_class_is_not_its_own_kin() -> None:
    circle = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "a")]
    assert flagged(Named("a"), pretrained=[Named("x")], pairs=circle) == {}
    assert flagged(Named("a"), pretrained=[Named("c")], pairs=circle) == {"a": Flag("descendant", "c")}


def test_nothing_is_known_to_a_backbone_without_pretraining() -> None:
    assert flags([Named("zebra", ("ram",), "n1")], [], KIN) == {}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("panda", "lesser panda"),
        ("Pandas", "lesser panda"),
        ("bear", "brown bear"),
        ("sea_lion", None),  # it is one of them
        ("wolf dog", None),
        ("giant", None),  # what a name begins with says little
        ("apple", "custard apple"),  # of a Granny Smith its name does not say so
        ("fruit", None),
        ("hog", None),
    ],
)
def test_a_name_that_ends_a_pretraining_classs_name_possibly_leaks(name: str, match: str | None) -> None:
    named = Named(name)
    assert possible([] if flags([named], IMAGENET) else [named], IMAGENET) == (
        {name: Flag("head", match)} if match else {}
    )
    if match:
        assert flags([named], IMAGENET) == {}


def test_what_stands_in_brackets_is_the_sense_and_not_the_head() -> None:
    senses = [Named("crane (machine)"), Named("Granny Smith")]
    found = possible([Named("cranes"), Named("machine"), Named("crane [bird]"), Named("smith")], senses)
    assert found == {
        "cranes": Flag("head", "crane (machine)"),
        "crane [bird]": Flag("head", "crane (machine)"),
        "smith": Flag("head", "Granny Smith"),
    }
    assert possible([Named("ursus", ("bear",))], [Named("Ice bear")]) == {"ursus": Flag("head", "Ice bear")}
    assert possible([Named("(?)")], [Named("")]) == {}
