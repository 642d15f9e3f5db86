"""The class space: built from a class table, able to encode classes described later, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from ayeaye.class_vectors import sentences, text, words
from ayeaye.class_vectors.new_class import NewClass, strange_attributes, table_of, unit_vector
from ayeaye.class_vectors.parts import KINDS, About, Arrays, Matrix, Part, Terms, Words, documents
from ayeaye.class_vectors.tfidf import TermTable, terms
from ayeaye.class_vectors.words import WordTable
from ayeaye.core import contents, params
from ayeaye.core.array_namespaces import below, under
from ayeaye.core.errors import ClassSpaceError, CoincidentClasses, IncompleteClass, TakenName, listed
from ayeaye.core.files import replacing, write_atomic
from ayeaye.core.unicode_checks import comparable, near
from ayeaye.data.table import ClassTable

SAME = 0.9999  # cosine above which two classes cannot be told apart
WORD_SOURCES = ("word2vec", "fasttext", "glove")
SENTENCES = "sentences"
VERSION = 1
SHOWN_NEAR = 20  # near spellings take a moment each

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """The parts of a class space, their weights, and their centres over the training-time classes."""

    parts: list[Part]
    weights: list[float]
    centres: list[np.ndarray]

    @classmethod
    def fit(cls, parts: list[Part], weights: list[float], table: ClassTable) -> Encoder:
        # Centres are stored as float32: what is fitted is rounded first, so that it encodes as it is stored.
        return cls(parts, weights, [part.raw(table)[0].mean(axis=0).astype(np.float32) for part in parts])

    @property
    def described(self) -> bool:
        """Whether descriptions, with names at most, are all that tells classes apart."""
        return all(getattr(part, "text", "") == text.DESCRIPTIONS for part in self.parts)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns of each matrix, by source."""
        return {part.source: part.columns for part in self.parts if isinstance(part, Matrix)}

    def told_apart(self, descriptions: list[str]) -> list[str]:
        """The words of each description, equal where two say the same; blank where more than they counts."""
        described = self.described
        return [_words_of(said) if described else "" for said in descriptions]

    def encode(self, table: ClassTable) -> tuple[np.ndarray, list[About]]:
        """(m, k) float32 of unit rows, and per class its coverage by each part."""
        vectors, coverage = [], []
        total = sum(self.weights)
        for part, weight, centre in zip(self.parts, self.weights, self.centres, strict=True):
            raw, covered = part.raw(table)
            coverage.append(covered)
            vectors.append(_unit(raw - centre) * np.sqrt(weight / total))
        rows = zip(table.names, zip(*coverage, strict=True), strict=True)
        return (
            _unit(np.hstack(vectors)).astype(np.float32),
            [{"name": name, "parts": list(parts)} for name, parts in rows],
        )


@dataclass(frozen=True)
class ClassSpace:
    """Class vectors (C, k) float32 of unit length in the order of `names`, and the encoder that made them.

    `descriptions`, `synonyms` and, by source, `values` (C, k_source) of matrices with named columns are what they
    were made of, so that a label can be explained. `unread` says which descriptions were left out.
    """

    names: list[str]
    vectors: np.ndarray
    coverage: list[About]
    encoder: Encoder
    descriptions: list[str] = field(default_factory=list)
    synonyms: list[list[str]] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    unread: str = ""

    @property
    def sources(self) -> dict[str, tuple[int, int]]:
        """First and last column, exclusive, of each source in the vectors."""
        ends = np.cumsum([len(centre) for centre in self.encoder.centres]).tolist()
        named = [part.source for part in self.encoder.parts]
        return dict(zip(named, zip([0, *ends[:-1]], ends, strict=True), strict=True))

    def table(self, rows: list[int]) -> ClassTable:
        """Some classes as they were described, as far as that was kept."""
        frame = pd.DataFrame(
            {
                "name": [self.names[row] for row in rows],
                "description": [
                    self.descriptions[row] if row < len(self.descriptions) else "" for row in rows
                ],
                "synonyms": [self.synonyms[row] if row < len(self.synonyms) else [] for row in rows],
            }
        )
        columns = self.encoder.columns
        matrices = {
            source: pd.DataFrame(values[rows], columns=columns[source])
            for source, values in self.values.items()
            if max(rows) < len(values)
        }
        return ClassTable(frame, matrices)

    def by_descriptions(self) -> np.ndarray | None:
        """(C, T) the classes by their descriptions without their names; None where names do not count, or other
        sources do."""
        for part in self.encoder.parts if self.encoder.described else ():
            if isinstance(part, Terms):
                rows = np.stack([part.table.vector(said)[0] for said in self.descriptions])
                return _unit(rows - rows.mean(axis=0))
        return None

    def encode(self, table: ClassTable) -> np.ndarray:
        """(m, k) float32: classes described later, in the same space with the stored centre.

        Raises UnknownWords, ClassSpaceError for missing texts or columns, and CoincidentClasses when one
        cannot be told from another or from a class of this space with another name.
        """
        vectors, _ = self.encoder.encode(table)
        self._check_distinct(vectors, table.names, table.frame["description"].tolist(), self.names)
        return vectors

    def extended(self, classes: Sequence[NewClass], beside: Collection[str] | None = None) -> ClassSpace:
        """The space with classes described later after its own, which stay as they are, and so does the encoder.

        Words that it does not know are left out, and named by `unknown_words`, while it knows one of the class.
        They must have other names and vectors than each other and those classes that are named `beside` them, none
        given: than all.
        Raises TakenName for a name that a class has already, UnknownWords for classes of which no word is known,
        IncompleteClass for missing descriptions and columns, ClassSpaceError for vectors that are not of this
        space, and CoincidentClasses.
        """
        beside = self.names if beside is None else beside
        self._check_names([each.name for each in classes], beside)
        vectors = np.empty((len(classes), self.vectors.shape[1]), np.float32)
        coverage: list[About] = [{"name": each.name, "parts": []} for each in classes]
        # A class with a vector of its own has no numbers.
        values = {
            source: np.full((len(classes), rows.shape[1]), np.nan, np.float32)
            for source, rows in self.values.items()
        }
        given = [row for row, each in enumerate(classes) if each.vector is not None]
        told = [row for row, each in enumerate(classes) if each.vector is None]
        for row in given:
            vectors[row] = unit_vector(classes[row], self.vectors.shape[1])
        if told:
            self._check_described([classes[row] for row in told])
            table = table_of([classes[row] for row in told], self.encoder.columns)
            vectors[told], covered = self.encoder.encode(table)
            for source, rows in _values(self.encoder.parts, table).items():
                if source in values:
                    values[source][told] = rows
            for row, each in zip(told, covered, strict=True):
                coverage[row] = each
        # What is said of a class with a vector of its own did not make that vector.
        said = ["" if each.vector is not None else each.description for each in classes]
        synonyms = [[] if each.vector is not None else list(each.synonyms) for each in classes]
        names = [each.name for each in classes]
        self._check_distinct(vectors, names, said, beside)
        return replace(
            self,
            names=[*self.names, *names],
            vectors=np.vstack([self.vectors, vectors]),
            coverage=[*self.coverage, *coverage],
            descriptions=[*self.descriptions, *said],
            synonyms=[*self.synonyms, *synonyms],
            values={source: np.vstack([rows, values[source]]) for source, rows in self.values.items()},
        )

    def take(self, rows: Sequence[int]) -> ClassSpace:
        """The space with some of its classes, ascending, and the encoder as it stands."""

        def some(parts: list[T]) -> list[T]:
            # A space of an earlier ayeaye may tell of fewer classes than it has.
            return [parts[row] for row in rows if row < len(parts)]

        return replace(
            self,
            names=some(self.names),
            vectors=self.vectors[list(rows)],
            coverage=some(self.coverage),
            descriptions=some(self.descriptions),
            synonyms=some(self.synonyms),
            values={
                source: values[[row for row in rows if row < len(values)]]
                for source, values in self.values.items()
            },
        )

    def unknown_attributes(self, new: NewClass) -> dict[str, list[str]]:
        """The attributes of a class that nothing is made of here, the first few with near ones that are known."""
        columns = [column for own in self.encoder.columns.values() for column in own]
        return {
            name: text.near_spellings(name, columns) if place < SHOWN_NEAR else []
            for place, name in enumerate(strange_attributes(new, self.encoder.columns))
        }

    def unknown_words(self, name: str) -> dict[str, list[str]]:
        """The words of a class that its vector was made without, each with near ones that are known."""
        parts = self.coverage[self.names.index(name)]["parts"]
        known = {part.source: part.vocabulary for part in self.encoder.parts}
        missing = {word: known[part["source"]] for part in parts for word in part["missing"]}
        return {
            word: text.near_spellings(word, vocabulary) if place < SHOWN_NEAR else []
            for place, (word, vocabulary) in enumerate(missing.items())
        }

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The words that vectors were made without, by class, of the classes with such words."""
        found = {
            about["name"]: list(dict.fromkeys(word for part in about["parts"] for word in part["missing"]))
            for about in self.coverage
        }
        return {name: missing for name, missing in found.items() if missing}

    def _check_described(self, classes: Sequence[NewClass]) -> None:
        bare = [each.name for each in classes if not each.description.strip()]
        texts = [getattr(part, "text", "") for part in self.encoder.parts]
        if bare and text.DESCRIPTIONS in texts:
            raise IncompleteClass(
                f"no description for {listed(bare)}: give one, as the other classes have, or a vector",
                ["description"],
            )

    def _check_names(self, names: list[str], beside: Collection[str]) -> None:
        there = {comparable(name): name for name in beside}
        for name in names:
            key = comparable(name)
            if not key:
                raise IncompleteClass("a class has no name: give it one", ["name"])
            if key in there:
                raise TakenName(f"{there[key]} is a class already: choose another name")
            there[key] = name

    def _check_distinct(
        self, vectors: np.ndarray, names: list[str], said: list[str], beside: Collection[str]
    ) -> None:
        """Raises CoincidentClasses where a class is like another of these, or like one of the space's by another
        name, of those that are `beside` them."""
        compared = set(map(comparable, beside)).difference(map(comparable, names))
        others = [row for row, name in enumerate(self.names) if comparable(name) in compared]
        _check_distinct(
            np.vstack([vectors, self.vectors[others]]),
            [*names, *(self.names[row] for row in others)],
            self.encoder.told_apart([*said, *(self.descriptions[row] for row in others)]),
            first=len(vectors),
        )

    def state(self) -> tuple[About, Arrays]:
        """What JSON holds and what safetensors hold, from which `from_state` makes the same space."""
        parts, arrays = [], {"vectors": self.vectors}
        triples = zip(self.encoder.parts, self.encoder.weights, self.encoder.centres, strict=True)
        for number, (part, weight, centre) in enumerate(triples):
            about, own = part.state()
            parts.append({"kind": part.kind, "source": part.source, "weight": weight, **about})
            arrays |= under(str(number), {**own, "centre": centre})
        arrays |= under("values", self.values)
        about = {
            "version": VERSION,
            "names": self.names,
            "descriptions": self.descriptions,
            "synonyms": self.synonyms,
            "coverage": self.coverage,
            "parts": parts,
            **({"unread": self.unread} if self.unread else {}),
        }
        return about, arrays

    @classmethod
    def from_state(cls, about: About, arrays: Arrays) -> ClassSpace:
        """Raises ClassSpaceError when the state is of another version or incomplete."""
        if about.get("version") != VERSION:
            raise ClassSpaceError(
                f"class space version {about.get('version')}, expected {VERSION}: run `ayeaye classes` again"
            )
        try:
            parts: list[Part] = []
            for number, part in enumerate(about["parts"]):
                own = below(str(number), arrays)
                parts.append(KINDS[part["kind"]].restore(part["source"], part, own))
            weights = [float(part["weight"]) for part in about["parts"]]
            centres = [arrays[f"{number}/centre"] for number in range(len(parts))]
            encoder = Encoder(parts, weights, centres)
            # An earlier ayeaye kept no synonyms.
            said = (about["descriptions"], about.get("synonyms") or [[] for _ in about["names"]])
            values = below("values", arrays)
            return cls(
                about["names"],
                arrays["vectors"],
                about["coverage"],
                encoder,
                *said,
                values,
                about.get("unread", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ClassSpaceError(
                f"the class space is damaged ({error!r}): run `ayeaye classes` again"
            ) from None

    def save(self, folder: Path) -> None:
        """Write space.json and space.safetensors; the same space makes the same bytes."""
        from safetensors.numpy import save_file

        about, arrays = self.state()
        with replacing(folder / "space.safetensors") as part:
            save_file({key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}, part)
        content = json.dumps(about, ensure_ascii=False, sort_keys=True) + "\n"
        write_atomic(folder / "space.json", content.encode())

    @classmethod
    def load(cls, folder: Path) -> ClassSpace:
        """Raises ClassSpaceError when the folder holds no class space, or a damaged one."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            about = json.loads((folder / "space.json").read_text(encoding="utf-8"))
            return cls.from_state(about, load_file(folder / "space.safetensors"))
        except FileNotFoundError:
            raise ClassSpaceError(f"{folder} holds no class space: run `ayeaye classes`") from None
        except (OSError, ValueError, SafetensorError) as error:
            raise ClassSpaceError(f"{folder} is damaged ({error}): run `ayeaye classes` again") from None


def build(table: ClassTable, settings: params.Classes, read: Callable[[str], Path]) -> ClassSpace:
    """The class space of a table; `read` finds the files that `settings` name.

    Each source is centred over the classes and normalised; several are concatenated by the square roots of
    their weights. Raises ClassSpaceError, UnknownWords and CoincidentClasses, each naming the classes.
    """
    if not table.names:
        raise ClassSpaceError("the class table is empty: expected at least two classes")
    weights = _weights(settings)
    if SENTENCES in settings.sources and SENTENCES not in table.matrices:
        table = _with_sentences(table, settings, read)
    parts = [_part(source, table, settings, read) for source in settings.sources]
    encoder = Encoder.fit(parts, weights, table)
    vectors, coverage = encoder.encode(table)
    said = table.frame["description"].tolist()
    _check_distinct(vectors, table.names, encoder.told_apart(said), first=len(vectors))
    synonyms = table.frame["synonyms"].tolist()
    values, left = _values(parts, table), unread(table, settings)
    return ClassSpace(table.names, vectors, coverage, encoder, said, synonyms, values, left)


def unread(table: ClassTable, settings: params.Classes) -> str:
    """Which descriptions nobody reads because `auto` found classes without one, in words; blank where none are."""
    bare = text.bare(table)
    described = len(table.names) - len(bare)
    wordy = any(source not in table.matrices and source != SENTENCES for source in settings.sources)
    if settings.text != "auto" or not wordy or not bare or not described:
        return ""
    one, them = described == 1, "it" if len(bare) == 1 else "them"
    return (
        f"{described:,} description{' is' if one else 's are'} not read, since {listed(bare)} "
        f"{'has' if len(bare) == 1 else 'have'} none: describe {them}, or set classes.text"
    )


def check(table: ClassTable, settings: params.Classes, read: Callable[[str], Path]) -> None:
    """Raise what `build` would, as far as that can be known without training word vectors.

    Vectors that are trained here know every word; whether they tell all classes apart, `build` alone can say.
    """
    trained = [source for source in settings.sources if _is_trained(source, table, settings)]
    if not trained:
        build(table, settings, read)
        return
    _weights(settings)
    if settings.corpus:
        _read_corpus(read(settings.corpus))
    chosen = text.choose(table, settings.text)
    if chosen == text.DESCRIPTIONS:
        text.descriptions(table)
    if SENTENCES in settings.sources and SENTENCES not in table.matrices:
        table = _with_sentences(table, settings, read)
    if chosen == text.DESCRIPTIONS and not table.matrices.keys() & settings.sources:
        said = [_words_of(each) for each in table.frame["description"]]
        first = {each: row for row, each in reversed(list(enumerate(said)))}
        _refuse(
            [(first[each], row) for row, each in enumerate(said) if each and first[each] < row],
            table.names,
            said,
        )
    for source in settings.sources:
        if source not in trained:
            _part(source, table, settings, read).raw(table)


def _is_trained(source: str, table: ClassTable, settings: params.Classes) -> bool:
    named = source in table.matrices or settings.vectors_of(source)
    return source in WORD_SOURCES and source != "glove" and not named


def _part(source: str, table: ClassTable, settings: params.Classes, read: Callable[[str], Path]) -> Part:
    # A matrix of the table goes first: it may well be called glove.
    if source in table.matrices:
        return Matrix.fit(source, table)
    chosen = text.choose(table, settings.text)
    if source == "tfidf":
        return Terms(source, chosen, TermTable.fit(documents(table, chosen)))
    if source in WORD_SOURCES:
        vectors = _word_table(source, chosen, table, settings, read)
        return Words.fit(source, chosen, vectors, settings.smoothing, table)
    known = [*WORD_SOURCES, "tfidf", SENTENCES, *table.matrices]
    alike = near(source, known, 1)
    hint = f"did you mean {alike[0]}?" if alike else f"expected one of {', '.join(known)}"
    none = "" if table.matrices else ", which has no matrices"
    raise ClassSpaceError(
        f"classes.source {source}: no such source or matrix of the class table{none}; {hint}"
    )


def _with_sentences(table: ClassTable, settings: params.Classes, read: Callable[[str], Path]) -> ClassTable:
    """The table with the vectors of a file as one more matrix."""
    file = settings.vectors_of(SENTENCES)
    if not file:
        raise ClassSpaceError(
            f"{SENTENCES} are not made here: set classes.vectors to a {sentences.FORMATS}, one row a class"
        )
    given = sentences.read(read(file), table.names)
    return ClassTable(table.frame, {**table.matrices, SENTENCES: given})


def _word_table(
    source: str, chosen: str, table: ClassTable, settings: params.Classes, read: Callable[[str], Path]
) -> WordTable:
    file = settings.vectors_of(source)
    if file:
        return words.read(read(file), _wanted(table))
    if source == "glove":
        raise ClassSpaceError("glove vectors are not trained here: set classes.vectors to a file of them")
    corpus = _training_sentences(table, chosen)
    origin = "the descriptions"
    if settings.corpus:
        corpus += _corpus(read(settings.corpus))
        origin = "the corpus"
    return words.train(corpus, source, settings.dimensions, settings.seed, origin)


def _wanted(table: ClassTable) -> set[str]:
    """Every spelling under which a word of the table may be looked up."""
    names = [name for names in text.phrases(table, text.SYNONYMS) for name in names]
    whole = {form for name in names for form in text.whole_names(name)}
    said = {word for name in names for word in text.name_words(name)}
    said |= {word for described in table.frame["description"] for word in text.words(described)}
    return whole | {form for word in said for form in (*text.cases(word), *_within(word))}


def _within(word: str) -> set[str]:
    """All words that a run without spaces may be made of."""
    single = text.characters(word) if text.unspaced(word) else []
    return {
        "".join(single[start : start + length])
        for start in range(len(single))
        for length in range(1, words.LONGEST + 1)
    }


def _training_sentences(table: ClassTable, chosen: str) -> list[list[str]]:
    """The descriptions as training sentences, after the names they describe where names are encoded."""
    found = []
    for names, described in zip(text.phrases(table, text.SYNONYMS), table.frame["description"], strict=True):
        named = [] if chosen == text.DESCRIPTIONS else [w for name in names for w in text.name_words(name)]
        found.append(_sentence([*named, *text.words(described)]))
    return found


def _sentence(said: list[str]) -> list[str]:
    return [term for word in text.without_stop_words(said) for term in text.grams(word)]


def _corpus(path: Path) -> list[list[str]]:
    return [_sentence(text.words(line)) for line in _read_corpus(path).splitlines() if line.strip()]


def _read_corpus(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClassSpaceError(f"classes.corpus {path} {contents.unlike_utf8(path, error)}") from None
    except OSError as error:
        raise ClassSpaceError(
            f"classes.corpus {path} cannot be read ({error.strerror}): expected UTF-8 text, one sentence a line"
        ) from None
    if found := contents.foreign(content[: contents.HEAD].encode()):
        raise ClassSpaceError(f"classes.corpus {path} {found}")
    return content


def _weights(settings: params.Classes) -> list[float]:
    sources = settings.sources
    weights = settings.weights or [1.0] * len(sources)
    if not sources or len(set(sources)) < len(sources):
        raise ClassSpaceError(f"classes.source {sources}: expected one or more different sources")
    if len(weights) != len(sources):
        raise ClassSpaceError(
            f"classes.weights has {len(weights)} numbers for {len(sources)} sources: give one each"
        )
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ClassSpaceError(f"classes.weights {weights}: expected positive numbers")
    return weights


def _check_distinct(vectors: np.ndarray, names: list[str], said: list[str], first: int) -> None:
    """Raises CoincidentClasses when one of the `first` rows points where another does, or nowhere, or is of a
    class of which the same is `said`: then only its name would tell it apart."""
    blank = [row for row in range(first) if not vectors[row].any()]
    cosines = vectors[:first].astype(np.float64) @ vectors.T.astype(np.float64)
    content = np.array(said, object)
    alike = (cosines > SAME) | ((content[:first, None] == content) & (content != ""))
    rows, columns = np.nonzero(alike)
    pairs = [(a, b) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if a < b]
    pairs += [(blank[0], row) for row in blank[1:]]
    _refuse(pairs, names, said)
    if blank:
        raise CoincidentClasses(
            f"the vector of {names[blank[0]]} is the mean of all classes: describe what tells it apart"
        )


def _refuse(pairs: list[tuple[int, int]], names: list[str], said: list[str]) -> None:
    if pairs:
        all_of_them = [
            f"{names[a]} and {names[b]}{' have the same description' * (said[a] == said[b] != '')}"
            for a, b in pairs
        ]
        more = f"; {len(pairs) - 5} more pairs" if len(pairs) > 5 else ""
        raise CoincidentClasses(
            f"not told apart: {'; '.join(all_of_them[:5])}{more}; describe what tells them apart", all_of_them
        )


def _values(parts: list[Part], table: ClassTable) -> Arrays:
    """By source the numbers (m, k) float32 of matrices with named columns."""
    matrices = [part for part in parts if isinstance(part, Matrix) and part.readable]
    return {part.source: part.values(table).astype(np.float32) for part in matrices}


@lru_cache(maxsize=10_000)  # a class that comes later is compared with every one that is there
def _words_of(said: str) -> str:
    return " ".join(sorted(terms(said)))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; one that is all but zero becomes zero, to be refused by name later."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1e-5, rows / np.maximum(norms, 1e-12), 0.0)
