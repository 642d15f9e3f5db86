"""The parts of a class space: words, terms and matrices, which make vectors of classes and take them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from ayeaye.class_vectors import text, words
from ayeaye.class_vectors.tfidf import TermTable
from ayeaye.class_vectors.words import Summands, WordTable
from ayeaye.core.errors import ClassSpaceError, UnknownWords, listed
from ayeaye.data.table import ClassTable

About = dict[str, Any]
Arrays = dict[str, np.ndarray]
NEAR_OF = 50  # classes whose unknown words are told with near ones


class Part(Protocol):
    """One source of class vectors, with all it needs to encode classes that come later."""

    kind: ClassVar[str]

    @property
    def source(self) -> str: ...

    @property
    def vocabulary(self) -> list[str]:
        """The words that it knows."""

    def raw(self, table: ClassTable) -> tuple[np.ndarray, list[About]]:
        """(m, k) vectors not yet centred, and the coverage of each class."""

    @property
    def sized(self) -> bool:
        """Whether a vector is the sum of its summands at unit length, or the sum as it is."""

    def summands(self, table: ClassTable) -> list[Summands] | None:
        """What each class's vector is the sum of, by names that a person can read; None where there are none."""

    def state(self) -> tuple[About, Arrays]: ...


@dataclass(frozen=True)
class Words:
    """Mean word vectors of names or descriptions, frequent words weighing less by `smoothing`."""

    kind: ClassVar[str] = "words"
    source: str
    text: str
    table: WordTable
    smoothing: float | None = None
    spare: int = 0

    @classmethod
    def fit(
        cls, source: str, chosen: str, words_: WordTable, smoothing: float | None, table: ClassTable
    ) -> Words:
        """With dimensions to spare where the descriptions hold words that `words_` does not."""
        part = cls(source, chosen, words_, smoothing)
        if chosen != text.DESCRIPTIONS:
            return part
        strange = any(missing for _, _, missing in map(part._described, text.descriptions(table)))
        return replace(part, spare=words.SPARE) if strange else part

    @property
    def vocabulary(self) -> list[str]:
        return self.table.words

    def raw(self, table: ClassTable) -> tuple[np.ndarray, list[About]]:
        if self.text == text.DESCRIPTIONS:
            found = [self._described(described) for described in text.descriptions(table)]
        else:
            found = [self._named(names) for names in text.phrases(table, self.text)]
        coverage = [_cover(self.source, tokens, missing) for _, tokens, missing in found]
        unknown = [
            (name, missing)
            for name, (vector, _, missing) in zip(table.names, found, strict=True)
            if vector is None
        ]
        if unknown:
            raise _unknown_words(unknown, self.table.origin or self.source, self.text, self.table.words)
        return np.stack([vector for vector, _, _ in found if vector is not None]), coverage

    def _described(self, described: str) -> tuple[np.ndarray | None, list[str], list[str]]:
        tokens = self._tokens(described)
        vector, missing = self.table.mean(tokens, self.spare, self.smoothing)
        return vector, tokens, missing

    def _tokens(self, described: str) -> list[str]:
        return self.table.cut(text.content_words(described) or text.words(described))

    def _named(self, names: list[str]) -> tuple[np.ndarray | None, list[str], list[str]]:
        found = [self.table.find_name(name, self.smoothing) for name in names]
        known = [vector for vector, _ in found if vector is not None]
        tokens = [word for name in names for word in self.table.cut(text.name_words(name) or [name])]
        missing = [word for _, words_ in found for word in words_]
        return (np.mean(known, axis=0) if known else None), tokens, missing

    @property
    def sized(self) -> bool:
        return self.text == text.DESCRIPTIONS

    def summands(self, table: ClassTable) -> list[Summands]:
        if self.sized:
            return [
                self.table.summands(self._tokens(said), self.spare, self.smoothing)[0]
                for said in text.descriptions(table)
            ]
        return [self._name_summands(names) for names in text.phrases(table, self.text)]

    def _name_summands(self, names: list[str]) -> Summands:
        """Of the mean of the names' unit vectors; a word in several names counts once for each."""
        found = [self.table.name_summands(name, self.smoothing)[0] for name in names]
        known = [summands for summands in found if summands]
        total: Summands = {}
        for summands in known:
            length = len(known) * np.linalg.norm(np.sum([vector for _, vector in summands.values()], axis=0))
            for word, (weight, vector) in summands.items():
                before = total.get(word, (0.0, np.zeros_like(vector)))
                total[word] = (before[0] + float(weight / length), before[1] + vector / length)
        return total

    def state(self) -> tuple[About, Arrays]:
        about = {
            "text": self.text,
            "words": self.table.words,
            "lengths": list(self.table.lengths),
            "origin": self.table.origin,
            "smoothing": self.smoothing,
            "spare": self.spare,
        }
        table = self.table
        arrays = {"vectors": table.vectors, "ngrams": table.ngrams, "frequencies": table.frequencies}
        return about, {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def restore(cls, source: str, about: About, arrays: Arrays) -> Words:
        low, high = about["lengths"]
        table = WordTable(
            about["words"],
            arrays["vectors"],
            arrays.get("ngrams"),
            (low, high),
            about["origin"],
            arrays.get("frequencies"),
        )
        # A space of an earlier ayeaye weighed all words alike.
        return cls(source, about["text"], table, about.get("smoothing"), int(about["spare"]))


@dataclass(frozen=True)
class Terms:
    """TF-IDF of the names and descriptions, or of the names alone where `text` says so."""

    kind: ClassVar[str] = "tfidf"
    source: str
    text: str
    table: TermTable

    @property
    def vocabulary(self) -> list[str]:
        return self.table.terms

    def raw(self, table: ClassTable) -> tuple[np.ndarray, list[About]]:
        found = [self.table.vector(said) for said in documents(table, self.text)]
        coverage = [
            _cover(self.source, [*np.flatnonzero(vector), *missing], missing) for vector, missing in found
        ]
        unknown = [
            (name, missing)
            for name, (vector, missing) in zip(table.names, found, strict=True)
            if not vector.any()
        ]
        if unknown:
            raise _unknown_words(unknown, "TF-IDF", self.text, self.table.terms)
        return np.stack([vector for vector, _ in found]), coverage

    @property
    def sized(self) -> bool:
        return True

    def summands(self, table: ClassTable) -> list[Summands]:
        found = [self.table.weights(said)[0] for said in documents(table, self.text)]
        return [_by_column(weights, self.table.terms) for weights in found]

    def state(self) -> tuple[About, Arrays]:
        return {"text": self.text, "terms": self.table.terms}, {"idf": self.table.idf}

    @classmethod
    def restore(cls, source: str, about: About, arrays: Arrays) -> Terms:
        return cls(source, about["text"], TermTable(about["terms"], arrays["idf"]))


@dataclass(frozen=True)
class Matrix:
    """A matrix of the class table, such as attributes: each class's row at unit length.

    Not so where the matrix is `binary`: a class of which nothing is true has a row of zeros, and says as much
    as any other.
    """

    kind: ClassVar[str] = "matrix"
    source: str
    columns: list[str]
    binary: bool = False

    @classmethod
    def fit(cls, source: str, table: ClassTable) -> Matrix:
        """Of the columns that tell classes apart: one that is the same for all would still lengthen the rows."""
        values = table.matrices[source].to_numpy()
        columns = [str(column) for column in table.matrices[source]]
        differing = (values != values[:1]).any(axis=0)
        telling = [column for column, differs in zip(columns, differing, strict=True) if differs]
        return cls(source, telling or columns, binary=len(np.unique(values)) <= 2)

    @property
    def vocabulary(self) -> list[str]:
        return []

    @property
    def readable(self) -> bool:
        """Whether the columns have names, not numbers alone as those of sentence vectors: 0, 1, … or e0, e1, …"""
        numbered = all(column[-1:].isdigit() for column in self.columns)
        return not numbered or len({column.rstrip("0123456789") for column in self.columns}) > 1

    @property
    def sized(self) -> bool:
        return not self.binary

    def raw(self, table: ClassTable) -> tuple[np.ndarray, list[About]]:
        values = self.values(table)
        rows = values if self.binary else values / np.linalg.norm(values, axis=1, keepdims=True)
        return rows, [_cover(self.source, self.columns, []) for _ in table.names]

    def summands(self, table: ClassTable) -> list[Summands] | None:
        if not self.readable:
            return None
        return [_by_column(values, self.columns) for values in self.values(table)]

    def values(self, table: ClassTable) -> np.ndarray:
        """(m, k) float64 of the table; raises ClassSpaceError where there is no number or nothing but zeros."""
        if self.source not in table.matrices:
            raise ClassSpaceError(
                f"the classes have no {self.source}: give {listed(table.names)} a row of "
                f"{len(self.columns)} numbers ({listed(self.columns)}), made as those of the others were"
            )
        frame = table.matrices[self.source]
        frame = frame.rename(columns=str)
        absent = [column for column in self.columns if column not in frame]
        if absent:
            raise ClassSpaceError(f"{self.source} lacks {listed(absent)}: give every column", absent)
        values = frame[self.columns].to_numpy(np.float64)
        self._check(values, table.names)
        return values

    def _check(self, values: np.ndarray, names: list[str]) -> None:
        gaps = ~np.isfinite(values)
        holes = [
            f"{name} has no number in {listed(np.array(self.columns)[row].tolist())}"
            for name, row in zip(names, gaps, strict=True)
            if row.any()
        ]
        if holes:
            raise ClassSpaceError(
                f"{self.source} of {holes[0]}; {len(holes)} classes have gaps: fill them", holes
            )
        empty = [name for name, row in zip(names, values, strict=True) if not row.any()]
        if empty and not self.binary:
            raise ClassSpaceError(
                f"{self.source} is zero throughout for {listed(empty)}: describe them", empty
            )

    def state(self) -> tuple[About, Arrays]:
        return {"columns": self.columns, "binary": self.binary}, {}

    @classmethod
    def restore(cls, source: str, about: About, arrays: Arrays) -> Matrix:
        return cls(source, about["columns"], bool(about.get("binary", False)))


KINDS: dict[str, type[Words] | type[Terms] | type[Matrix]] = {
    part.kind: part for part in (Words, Terms, Matrix)
}


def documents(table: ClassTable, chosen: str) -> list[str]:
    """The names of every class, with synonyms where `chosen` has these, or names and description.

    A name says more than a word in a sentence and stands twice: held-out seen classes were placed better by
    that than by one name, and than by none.
    """
    described = chosen == text.DESCRIPTIONS
    names = [
        " ".join(word for name in names for word in text.name_words(name))
        for names in text.phrases(table, text.SYNONYMS if described else chosen)
    ]
    if not described:
        return names
    return [f"{name} {name} {said}" for name, said in zip(names, text.descriptions(table), strict=True)]


def _unknown_words(
    unknown: list[tuple[str, list[str]]], origin: str, kind: str, known: list[str]
) -> UnknownWords:
    # Near spellings take milliseconds a word.
    found = {
        name: {
            word: text.near_spellings(word, known) if row < NEAR_OF and place < 5 else []
            for place, word in enumerate(missing)
        }
        for row, (name, missing) in enumerate(unknown)
    }
    lines = []
    for name, missing in unknown[:5]:
        near = [close for closest in found[name].values() for close in closest]
        spelled = f"; near: {', '.join(dict.fromkeys(near))}" if near else ""
        lines.append(f"{name} ({', '.join(missing[:5]) or 'no words'}{spelled})")
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return UnknownWords(
        f"{origin} knows no word of the {kind} of {len(unknown)} class{'es' * (len(unknown) > 1)}: "
        f"{', '.join(lines)}{more}; add synonyms or descriptions, or use another source",
        found,
    )


def _by_column(values: np.ndarray, columns: list[str]) -> Summands:
    """Of a vector (k,) with named columns those that are not zero."""
    summands: Summands = {}
    for place in np.flatnonzero(values).tolist():
        alone = np.zeros(len(values))
        alone[place] = values[place]
        summands[columns[place]] = (float(values[place]), alone)
    return summands


def _cover(source: str, tokens: list[Any], missing: list[str]) -> About:
    return {
        "source": source,
        "tokens": len(tokens),
        "known": len(tokens) - len(missing),
        "missing": missing,
    }
