"""Texts of classes: which are used, and how names and descriptions become words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from ayeaye.data.table import ClassTable
from ayeaye.errors import IncompleteClass, listed

NAMES, SYNONYMS, DESCRIPTIONS = "names", "synonyms", "descriptions"

# Function words only: longer lists also drop words that describe looks (thick, thin, top, back, two).
STOP_WORDS = frozenset(
    """a about after again against all also although am among an and another any are as at be became because
    become becomes been before being between both but by can cannot could did do does doing done down during
    each either else etc even ever every for from further get had has have having he hence her here hers
    herself him himself his how however i ie if in indeed into is it its itself just less may me might more
    most much must my myself neither no nor not now of off often on once only onto or other others otherwise
    our ours out over own per perhaps rather same she should since so some such than that the their theirs
    them themselves then there therefore these they this those through thus to too toward towards under until
    up upon us very via was we well were what when where whether which while who whom whose why will with
    within without would yet you your yours""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_HUMP = re.compile(r"(?<=[a-zß-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])|(?<=[A-ZÀ-ÖØ-Þ])(?=[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ])")
_NUMBERED = re.compile(r"^\d+\.")


def choose(table: ClassTable, text: str) -> str:
    """Resolve `auto`: descriptions where all classes have one, else names with their synonyms."""
    if text != "auto":
        return text
    return DESCRIPTIONS if all(described.strip() for described in table.frame["description"]) else SYNONYMS


def descriptions(table: ClassTable) -> list[str]:
    """The description of every class; raises IncompleteClass naming the classes without one."""
    texts = [str(text).strip() for text in table.frame["description"]]
    bare = [name for name, text in zip(table.names, texts, strict=True) if not text]
    if bare:
        raise IncompleteClass(
            f"no description for {listed(bare)}: describe them, or set classes.text to names", ["description"]
        )
    return texts


def phrases(table: ClassTable, text: str) -> list[list[str]]:
    """The names of every class, its synonyms after them where `text` says so."""
    rows = zip(table.names, table.frame["synonyms"], strict=True)
    return [[name, *(synonyms if text == SYNONYMS else ())] for name, synonyms in rows]


def words(text: str) -> list[str]:
    """The words of running text, case as is; a possessive 's is dropped."""
    return [re.sub(r"['’]s$", "", word) for word in _WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """The words of running text that are no stop words, each once whatever its case, in their order."""
    distinct: dict[str, str] = {}
    for word in words(text):
        distinct.setdefault(word.lower(), word)
    return [word for lower, word in distinct.items() if lower not in STOP_WORDS]


def without_stop_words(said: list[str]) -> list[str]:
    """Words in lower case, as often as they are said."""
    return [word.lower() for word in said if word.lower() not in STOP_WORDS]


def name_words(name: str) -> list[str]:
    """A name split at spaces, hyphens, underscores and camel case: `GrannySmith-apple` is three words."""
    return words(_HUMP.sub(" ", _NUMBERED.sub("", name)))


def cases(word: str) -> Iterator[str]:
    """Spellings under which a word is looked up: as is, lower, title."""
    yield from dict.fromkeys((word, word.lower(), word.title()))


def whole_names(name: str) -> list[str]:
    """Spellings of a name as one entry of a vocabulary, such as `polar_bear`."""
    parts = name_words(name)
    joined = [name, *(mark.join(parts) for mark in ("_", "-", ""))]
    return list(dict.fromkeys(form for whole in joined for form in cases(whole)))


def stem(word: str) -> str:
    """An English plural folded onto its singular (the S-stemmer of Harman, 1991)."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith(("ses", "xes", "zes", "hes", "oes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def near_spellings(word: str, known: list[str], most: int = 3) -> list[str]:
    """Up to `most` of the known words that are spelled much like `word`."""
    lower = word.lower()
    # Comparing with every word of a large vocabulary would take seconds.
    alike = [other for other in known if abs(len(other) - len(lower)) <= 2 and other[:1].lower() == lower[:1]]
    return difflib.get_close_matches(lower, alike, n=most, cutoff=0.7)
