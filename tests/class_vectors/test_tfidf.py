"""TF-IDF of descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from ayeaye.class_vectors.tfidf import TermTable
from ayeaye.core.errors import ClassSpaceError

TEXTS = ["A red apple with firm pulp.", "Green apples, sour.", "A thick brown root."]


def test_agrees_with_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = ["red apple firm red pulp red", "green apple sour", "thick brown root"]
    reference = TfidfVectorizer(sublinear_tf=True).fit(plain)
    table = TermTable.fit(plain)
    assert table.terms == reference.get_feature_names_out().tolist()
    ours = np.stack([table.vector(text)[0] for text in plain])
    np.testing.assert_allclose(ours, reference.transform(plain).toarray(), atol=1e-6)


def test_plurals_are_one_term_and_stop_words_none() -> None:
    table = TermTable.fit(TEXTS)
    assert "apple" in table.terms
    assert not {"apples", "a", "with"} & set(table.terms)
    assert "thick" in table.terms


def test_shared_terms_weigh_less_than_rare_ones() -> None:
    table = TermTable.fit(TEXTS)
    weights = dict(zip(table.terms, table.idf, strict=True))
    assert weights["apple"] < weights["root"]


def test_a_later_text_is_encoded_and_its_unknown_terms_named() -> None:
    vector, unknown = TermTable.fit(TEXTS).vector("Sour apples from Kent")
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert unknown == ["kent"]


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(ClassSpaceError, match="hold no words"):
        TermTable.fit(["the", "of a"])
