"""Texts from strangers: characters in them that nobody sees, and that a terminal may obey."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator

from ayeaye.errors import DataError

JOINERS = "\u200c\u200d"  # scripts need them within words
LINES = "\t\n\r\u2028\u2029"
# Controls, formats such as turns of direction, halves of characters, separators of lines.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


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


def _told(character: str) -> str:
    name = unicodedata.name(character, "")
    called = f" ({name})" if name else ""
    return f"holds the character U+{ord(character):04X}{called}, which nobody sees: remove it"
