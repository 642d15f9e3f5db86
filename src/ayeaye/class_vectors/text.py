"""Texts of classes: which are used, and how names and descriptions become words.

Words are cut as Unicode does it (UAX #29): marks, points and joiners stay with their letters, and so do an
apostrophe, a middle dot and Hebrew's gershayim between letters. Underscores, full stops and hyphens part words.
Han, kana, Thai, Lao, Khmer and Myanmar are written without spaces: a run of these is one word here. TF-IDF and
vectors trained here take its `grams`, vectors of a file the longest words that they know (`WordTable.cut`).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import regex

from ayeaye.core.errors import IncompleteClass, listed
from ayeaye.core.unicode_checks import normal
from ayeaye.data.table import ClassTable

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
_UNSPACED = r"[[\p{L}\p{N}]&&[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{lb=SA}]]"
_LETTER = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]"
_ADDED = r"\p{M}\u200c\u200d"  # to the letter before: marks and joiners
_REST = rf"[{_LETTER}{_ADDED}\u05f3\u05f4]"  # also Hebrew's geresh and gershayim, which are no letters
_BETWEEN = rf"""(?:['’·]|(?<=\p{{Hebrew}}\p{{M}}*)"(?=\p{{Hebrew}}))(?={_LETTER})"""
_WORD = regex.compile(rf"(?V1){_UNSPACED}[{_UNSPACED}{_ADDED}]*|{_LETTER}{_REST}*(?:{_BETWEEN}{_REST}+)*")
_RUN = regex.compile(rf"(?V1){_UNSPACED}")
_HAN = regex.compile(r"\p{scx=Han}")
_CHARACTER = regex.compile(r"\X")
_HUMP = regex.compile(r"(?<=\p{Ll}\p{M}*)(?=\p{Lu})|(?<=\p{Lu}\p{M}*)(?=\p{Lu}\p{M}*\p{Ll})")
# Soft hyphens, marks of direction, choices of a glyph; a space of no width, as Thai and Khmer have it, parts words.
_HIDDEN = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--[\u200b\u200c\u200d]]+")
# Letters by their width, by their place in a word, and in one with the next.
_FORMS = re.compile("[\uff00-\uffef\ufb00-\ufdff\ufe70-\ufefc]+")
# Points of Arabic and Hebrew, the stretching of a line, joiners.
_OPTIONAL = regex.compile(r"(?V1)[[[\p{scx=Arab}\p{scx=Hebr}]&&\p{Mn}]\u0640\u200c\u200d]+")
_NUMBERED = re.compile(r"^\d+\.")


def choose(table: ClassTable, text: str) -> str:
    """Resolve `auto`: descriptions where all classes have one, else names with their synonyms."""
    if text != "auto":
        return text
    return SYNONYMS if bare(table) else DESCRIPTIONS


def bare(table: ClassTable) -> list[str]:
    """The classes without a description."""
    rows = zip(table.names, table.frame["description"], strict=True)
    return [name for name, described in rows if not described.strip()]


def descriptions(table: ClassTable) -> list[str]:
    """The description of every class; raises IncompleteClass naming the classes without one."""
    if missing := bare(table):
        raise IncompleteClass(
            f"no description for {listed(missing)}: describe them, or set classes.text to names",
            ["description"],
            missing,
        )
    return [str(text).strip() for text in table.frame["description"]]


def phrases(table: ClassTable, text: str) -> list[list[str]]:
    """The names of every class, its synonyms after them where `text` says so."""
    rows = zip(table.names, table.frame["synonyms"], strict=True)
    return [[name, *(synonyms if text == SYNONYMS else ())] for name, synonyms in rows]


def words(text: str) -> list[str]:
    """The words of running text in normal form C, case as is, with straight apostrophes; a possessive 's is dropped."""
    plain = _FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms[0]), _HIDDEN.sub("", text))
    return [re.sub(r"'s$", "", word) for word in _WORD.findall(normal(plain).replace("’", "'"))]


def folded(word: str) -> str:
    """A word as words are compared: in lower case, without what Arabic and Hebrew may leave out."""
    return _OPTIONAL.sub("", word.lower()) or word


def content_words(text: str) -> list[str]:
    """The words of running text that are no stop words, each once whatever its case, in their order."""
    distinct: dict[str, str] = {}
    for word in words(text):
        distinct.setdefault(folded(word), word)
    return [word for key, word in distinct.items() if key not in STOP_WORDS]


def without_stop_words(said: list[str]) -> list[str]:
    """Words as they are compared, as often as they are said."""
    return [key for key in map(folded, said) if key not in STOP_WORDS]


def name_words(name: str) -> list[str]:
    """A name split at spaces, hyphens, underscores and camel case: `GrannySmith-apple` is three words."""
    return words(_HUMP.sub(" ", _NUMBERED.sub("", normal(name))))


def unspaced(word: str) -> bool:
    """Whether a word is a run of a script that is written without spaces."""
    return not word.isascii() and bool(_RUN.match(word))


def characters(word: str) -> list[str]:
    """The characters of a word as a reader counts them, each with its marks."""
    return _CHARACTER.findall(word)


def grams(word: str) -> list[str]:
    """A word; of a run without spaces all pairs of characters and, for each is a word, the single ones of Han."""
    if not unspaced(word):
        return [word]
    single = characters(word)
    pairs = ["".join(pair) for pair in pairwise(single)]
    return [one for one in single if _HAN.match(one)] + pairs or single


def cases(word: str) -> Iterator[str]:
    """Spellings under which a word is looked up: as is, lower, title, and as words are compared."""
    yield from dict.fromkeys((word, word.lower(), word.title(), folded(word)))


def whole_names(name: str) -> list[str]:
    """Spellings of a name as one entry of a vocabulary, such as `polar_bear`."""
    parts = name_words(name)
    joined = [normal(name), *(mark.join(parts) for mark in ("_", "-", ""))]
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


def shown_left_out(left_out: Mapping[str, Sequence[str]]) -> str:
    """The first classes with words that are not known, each with its words: `cougar_face (cougar)`."""
    return listed([f"{name} ({listed(unknown)})" for name, unknown in left_out.items()])


def near_spellings(word: str, known: list[str], most: int = 3) -> list[str]:
    """Up to `most` of the known words that are spelled much like `word`, first those of the same stem."""
    lower = word.lower()
    # Comparing with every word of a large vocabulary would take seconds.
    alike = [other for other in known if abs(len(other) - len(lower)) <= 3 and other[:1].lower() == lower[:1]]
    kin = [other for other in alike if _of_one_stem(other.lower(), lower)]
    kin.sort(key=lambda other: (stem(other.lower()) != stem(lower), abs(len(other) - len(lower))))
    close = [other for other in alike if abs(len(other) - len(lower)) <= 2]
    spelled = difflib.get_close_matches(lower, close, n=most, cutoff=0.7)
    return list(dict.fromkeys([*kin, *spelled]))[:most]


def _of_one_stem(one: str, other: str) -> bool:
    """Whether one is a plural of the other, or the other with an ending."""
    shorter, longer = sorted((one, other), key=len)
    return stem(one) == stem(other) or (len(shorter) >= 4 and longer.startswith(shorter))
