"""TF-IDF of class names and descriptions, from a stored table of terms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ayeaye.class_vectors import text
from ayeaye.core.errors import ClassSpaceError

MOST_TERMS = 20_000


@dataclass(frozen=True)
class TermTable:
    """Terms in alphabetical order and their inverse document frequencies (T,) float32.

    A term said n times counts 1 + ln n, plurals are folded, stop words dropped: on names and descriptions of a
    few sentences that placed held-out seen classes best. Bigrams, parts of words and latent dimensions placed
    them worse, BM25's weights no better than chance allows.
    """

    terms: list[str]
    idf: np.ndarray

    @classmethod
    def fit(cls, texts: list[str]) -> TermTable:
        """Smoothed idf over `texts`; raises ClassSpaceError when they hold no word."""
        counts = Counter(term for text_ in texts for term in set(terms(text_)))
        if not counts:
            raise ClassSpaceError(
                "the names and descriptions hold no words: write some, or set classes.source"
            )
        most = sorted(sorted(counts), key=lambda term: -counts[term])[:MOST_TERMS]
        kept = sorted(most)
        idf = [np.log((1 + len(texts)) / (1 + counts[term])) + 1 for term in kept]
        return cls(kept, np.array(idf, np.float32))

    def vector(self, text_: str) -> tuple[np.ndarray, list[str]]:
        """The unit vector (T,) of a text, zero where no term is known, and the terms not known."""
        vector, missing = self.weights(text_)
        return vector / (np.linalg.norm(vector) or 1.0), missing

    def weights(self, text_: str) -> tuple[np.ndarray, list[str]]:
        """The weights (T,) of the terms in a text, before they are brought to unit length, and the terms not known."""
        vector = np.zeros(len(self.terms))
        said = Counter(terms(text_))
        rows = [self._rows[term] for term in said if term in self._rows]
        times = np.array([said[self.terms[row]] for row in rows])
        vector[rows] = (1 + np.log(times)) * self.idf[rows]
        return vector, [term for term in said if term not in self._rows]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {term: row for row, term in enumerate(self.terms)}


def terms(text_: str) -> list[str]:
    """The terms of a text: content words in lower case, plurals folded; characters where words have no spaces."""
    said = text.without_stop_words(text.words(text_))
    return [text.stem(term) for word in said for term in text.grams(word)]
