"""Names and other texts: what may be in them, how they are kept, and which names are one.

composed      how a name is kept: in Unicode's normal form C, with single spaces
check_name    which characters it may hold: all that are seen, and the joiners that scripts need within words
comparable    the same for names that are one: case, width, ways to write an accent, spaces, and characters that
              nobody sees do not tell two apart; accents themselves, hyphens and underscores do
collisions    names that are one
near          names that are spelled much alike

Classes, their synonyms and groups are names, whether they come from a table, a folder, a request or feedback.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from heapq import nlargest
from itertools import takewhile

import regex

from ayeaye.core.errors import DataError

JOINERS = "\u200c\u200d"  # scripts need them within words
SHOWN_NEAR = (
    5  # of several names that nobody knows only so many are shown with near ones, which take a moment each
)
_COMPARED = 500  # known names that one is compared with letter by letter, at most
LINES = "\t\n\r\u2028\u2029"
# Controls, formats such as turns of direction, halves of characters, separators of lines.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SPACES = regex.compile(r"\p{Zs}+")
_TYPOGRAPHIC = str.maketrans("‘’ʼ‐‑", "'''--")  # as word processors write apostrophes and hyphens
_IGNORED = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]+")


def composed(name: str) -> str:
    """A name as it is kept; what it must not hold stays, to be refused."""
    return _SPACES.sub(" ", normal(name)).strip(" ")


def normal(text: str) -> str:
    """A text in normal form C, in which every letter with an accent is written in one way."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=1 << 16)
def comparable(name: str) -> str:
    """A name as names are compared: 'Okapi' and ' okapi ' are one, as are all ways to write an é or an apostrophe.

    Compatibility caseless matching (The Unicode Standard, 3.13), less invisible characters and outer spaces.
    """
    folded = unicodedata.normalize("NFKC", _IGNORED.sub("", name)).translate(_TYPOGRAPHIC).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def clean(name: str, what: str) -> str:
    """A name as it is kept; raises DataError where it shows nothing, or not all that is in it."""
    check_name(name, what)
    if not comparable(name):
        raise DataError(f"{what} is empty: give one")
    return composed(name)


def collisions(names: Iterable[str]) -> list[list[str]]:
    """The names that are one with others of them, together and in their order."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(comparable(name), []).append(name)
    return [same for same in alike.values() if len(same) > 1]


def near(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.6) -> list[str]:
    """Up to `most` of the known names that are spelled much like `name`, the most alike first; `cutoff` is difflib's.

    Of very many known names only those are looked at that begin and end most like it.
    """
    asked, names = comparable(name), {comparable(other): other for other in known}

    def ends(other: str) -> int:
        return _shared(asked, other) + _shared(reversed(asked), reversed(other))

    alike = nlargest(_COMPARED, names, key=ends) if len(names) > _COMPARED else names
    return [names[close] for close in difflib.get_close_matches(asked, alike, most, cutoff)]


def check_name(text: str, what: str) -> None:
    """Raise DataError for a name with a character that is not seen."""
    for character in unseen(text):
        raise DataError(f"{what} {_told(character)}")


def check_prose(text: str, what: str) -> None:
    """The same for text of several lines, whose words may hold soft hyphens and marks of direction."""
    for character in unseen(text):
        if character not in LINES and unicodedata.category(character) != "Cf":
            raise DataError(f"{what} {_told(character)}")


def unseen(text: str) -> Iterator[str]:
    return (c for c in text if c not in JOINERS and unicodedata.category(c) in _UNSEEN)


def shown(text: str) -> str:
    """A text as it may be printed: what is not seen is written as in JSON, such as \\u001b."""
    return text.translate({ord(c): json.dumps(c)[1:-1] for c in unseen(text)})


def _shared(one: Iterable[str], other: Iterable[str]) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _told(character: str) -> str:
    name = unicodedata.name(character, "")
    called = f" ({name})" if name else ""
    return f"holds the character U+{ord(character):04X}{called}, which nobody sees: remove it"
