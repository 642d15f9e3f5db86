"""Names: how they are kept, what may be in them, and which are one."""

from __future__ import annotations

import time
import unicodedata

import pytest

from ayeaye.core.errors import DataError
from ayeaye.core.unicode_checks import clean, collisions, comparable, composed, near


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Okapi", "oKAPI"),
        ("ｏｋａｐｉ", "okapi"),
        (" aye  aye ", "aye\u00a0aye"),
        ("k\u00e4fer", "ka\u0308fer"),
        ("Stra\u00dfe", "STRASSE"),
        ("ﾈｺ", "ネコ"),
        ("고양이", unicodedata.normalize("NFD", "고양이")),
        ("oka\u200dpi", "okapi"),
        ("葛\U000e0100", "葛"),
        ("oka\u034fpi", "okapi"),
        ("Σκύλος", "ΣΚΎΛΟΣ"),
        ("\u0149", "'n"),
        ("Grévy’s zebra", "Grévy's zebra"),
        ("black‑footed cat", "black-footed cat"),
    ],
)
def test_names_are_one_whatever_their_case_width_spaces_and_marks(name: str, other: str) -> None:
    assert comparable(name) == comparable(other)
    assert comparable(comparable(name)) == comparable(name)


@pytest.mark.parametrize("other", ["polar bear", "polar-bear", "polarbear", "polár_bear"])
def test_what_a_person_reads_as_another_name_is_one(other: str) -> None:
    assert comparable("polar_bear") != comparable(other)


def test_a_name_is_kept_composed_with_single_spaces_and_else_as_it_is_written() -> None:
    assert clean("  Ka\u0308fer \u3000 Ｘ ", "the name") == "Käfer Ｘ"


@pytest.mark.parametrize("name", ["می\u200cخواهم", "ක්\u200dෂ", "ന്\u200d"])
def test_joiners_that_a_script_needs_stay(name: str) -> None:
    assert clean(name, "the name") == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "character", ["\n", "\t", "\x1b", "\x7f", "\u200b", "\u202e", "\u2028", "\ufeff", "\u00ad"]
)
def test_what_nobody_sees_is_refused_by_its_number_and_stays_until_then(character: str) -> None:
    with pytest.raises(DataError, match=rf"the name holds the character U\+{ord(character):04X}"):
        clean(composed(f"oka{character}pi"), "the name")


@pytest.mark.parametrize("name", ["", " ", "\u3000", "\u200d", "\u3164", "\ufe0f"])
def test_a_name_that_shows_nothing_is_empty(name: str) -> None:
    with pytest.raises(DataError, match="the name is empty"):
        clean(name, "the name")


def test_collisions_are_all_named_in_their_order() -> None:
    assert collisions(["a", "B", "A", "c", "b", "ａ"]) == [["a", "A", "ａ"], ["B", "b"]]


# Names that are spelled alike


def test_near_names_are_found_whatever_their_case() -> None:
    known = ["Okapi", "zebra", "Zébra", "killer whale"]
    assert near("OKAPPI", known) == ["Okapi"]
    assert near("zebre", known, 1) == ["zebra"]
    assert near("whale killer", ["killer whales"], cutoff=0.4) == ["killer whales"]
    assert near("gnu", known) == []


@pytest.mark.parametrize("wrong", ["paint 04x21", "pant 0421", "Paint  0421 ", "aint 0421", "paint 0421 a"])
def test_a_slip_is_found_among_very_many_names(wrong: str) -> None:
    known = [f"paint {number:04}" for number in range(20_000)]
    began = time.process_time()
    assert "paint 0421" in near(wrong, known, 10)
    assert time.process_time() - began < 2
