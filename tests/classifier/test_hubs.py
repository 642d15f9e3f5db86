"""Hub corrections: by hand, one at a time as in a batch, and on a planted hub."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.classifier import hubs, nearest
from ayeaye.core.errors import DataError
from ayeaye.evaluation.hubness import occurrences, query_weights, robin_hood
from ayeaye.mappers import create

CORRECTIONS = [(kind, grid[0]) for kind, grid in hubs.GRIDS.items()]
REAL = [(kind, chosen) for kind, chosen in CORRECTIONS if kind != "none"]


def cosines(seed: int, rows: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return nearest.scores(rng.normal(size=(rows, 6)), rng.normal(size=(classes, 6)))


def planted_hub(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines of a bank and of queries with 12 classes, of which class 0 lies in the middle of all pictures."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=24)
    classes = rng.normal(size=(12, 24)) + 0.3 * middle
    y = rng.integers(1, 12, 600)
    pictures = classes[y] + 1.2 * rng.normal(size=(600, 24)) + middle
    classes[0] = middle
    scores = nearest.scores(pictures, classes)
    return scores[:300], scores[300:], y[300:]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    classes=st.integers(1, 7),
    correction=st.sampled_from(CORRECTIONS),
)
def test_one_picture_alone_gets_the_scores_it_gets_in_a_batch(
    seed: int, rows: int, classes: int, correction: tuple[str, dict[str, Any]]
) -> None:
    fitted = hubs.fit(*correction, cosines(seed, 15, classes))
    scores = cosines(seed + 1, rows, classes)[:, :classes]
    alone = np.concatenate([fitted.apply(row[None]) for row in scores])
    np.testing.assert_array_equal(fitted.apply(scores), alone)


def test_no_correction_is_the_identity() -> None:
    scores = cosines(0, 5, 4)
    assert hubs.fit("none", {}, scores).apply(scores) is scores
    assert hubs.Correction().apply(scores) is scores


BANK = np.array([[0.9, 0.0], [0.7, 0.2], [0.1, 0.1]], np.float32)
QUERY = np.array([[0.6, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("kind", "chosen", "expected"),
    [
        ("csls", {"k": 1}, [1.2 - 0.6 - 0.9, 1.0 - 0.6 - 0.2]),
        ("csls", {"k": 2}, [1.2 - 0.55 - 0.8, 1.0 - 0.55 - 0.15]),
        ("nnn", {"k": 2, "alpha": 0.5}, [0.6 - 0.4, 0.5 - 0.075]),
        (
            "inverted_softmax",
            {"temperature": 0.5},
            [
                0.6 - 0.5 * np.log(np.mean(np.exp([1.8, 1.4, 0.2]))),
                0.5 - 0.5 * np.log(np.mean(np.exp([0.0, 0.4, 0.2]))),
            ],
        ),
        (
            "local_scaling",
            {"k": 1},
            [np.exp(-0.8 / np.sqrt(0.8 * 0.2)), np.exp(-1.0 / np.sqrt(0.8 * 1.6))],
        ),
    ],
)
def test_by_hand(kind: str, chosen: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(hubs.fit(kind, chosen, BANK).apply(QUERY)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("csls", {"k": 20}),
        ("inverted_softmax", {"temperature": 0.1}),
        ("nnn", {"k": 20, "alpha": 0.5}),
        ("local_scaling", {"k": 20}),
    ],
)
def test_a_planted_hub_loses_its_hold(kind: str, chosen: dict[str, Any]) -> None:
    bank, scores, y = planted_hub()
    corrected = hubs.fit(kind, chosen, bank).apply(scores)
    weights = query_weights(y)
    before, after = (robin_hood(occurrences(each, 1, weights)) for each in (scores, corrected))
    assert after < before - 0.05
    assert (corrected.argmax(axis=1) == 0).mean() < (scores.argmax(axis=1) == 0).mean() - 0.05
    assert (corrected.argmax(axis=1) == y).mean() > (scores.argmax(axis=1) == y).mean() + 0.05


@pytest.mark.parametrize(("kind", "chosen"), CORRECTIONS)
def test_a_correction_comes_back_from_its_state(kind: str, chosen: dict[str, Any]) -> None:
    fitted = hubs.fit(kind, chosen, cosines(0, 30, 5))
    again = hubs.Correction.from_state(*fitted.state())
    scores = cosines(1, 4, 5)
    np.testing.assert_array_equal(again.apply(scores), fitted.apply(scores))


@pytest.mark.parametrize(("kind", "chosen"), REAL)
def test_equal_pictures_give_finite_scores(kind: str, chosen: dict[str, Any]) -> None:
    same = np.ones((20, 3), np.float32)
    assert np.isfinite(hubs.fit(kind, chosen, same).apply(same)).all()


@pytest.mark.parametrize(
    ("kind", "chosen", "what"),
    [
        ("cslz", {"k": 3}, "no hub correction cslz"),
        ("csls", {}, "csls takes k"),
        ("nnn", {"k": 3}, "nnn takes alpha, k"),
        ("none", {"k": 3}, "none takes no settings"),
        ("csls", {"k": 0}, "above 0"),
    ],
)
def test_a_correction_that_there_is_not_is_named(kind: str, chosen: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        hubs.fit(kind, chosen, BANK)


def test_an_empty_bank_and_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="needs held-out pictures"):
        hubs.fit("csls", {"k": 5}, np.zeros((0, 4), np.float32))
    with pytest.raises(DataError, match=r"expected \(n, 2\)"):
        hubs.fit("csls", {"k": 5}, BANK).apply(np.zeros((1, 3), np.float32))


def test_a_bank_has_one_picture_of_every_class_before_a_second_of_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.repeat(np.arange(5), [1, 2, 40, 3, 50])
    np.testing.assert_array_equal(hubs.sample(y), np.arange(len(y)))
    monkeypatch.setattr(hubs, "MOST", 12)
    rows = hubs.sample(y)
    assert np.bincount(y[rows]).tolist() == [1, 2, 3, 3, 3]
    np.testing.assert_array_equal(rows, np.unique(rows))
    np.testing.assert_array_equal(rows, hubs.sample(y))


@pytest.mark.parametrize(("kind", "chosen"), REAL)
def test_a_bank_in_half_precision_says_the_same(kind: str, chosen: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(12, 6)), np.repeat(np.arange(12), 8)
    X = (A[y] @ rng.normal(size=(6, 30)) + rng.normal(size=(len(y), 30))).astype(np.float32)
    mapper = create("ridge").fit(X, y, A)
    exact = hubs.fit(kind, chosen, nearest.scores(mapper.map_images(X), mapper.map_classes(A)))
    found = hubs.fit_on(kind, chosen, hubs.Bank.of(mapper, X), A)
    np.testing.assert_allclose(found.statistic, exact.statistic, atol=1e-3)
    scores = cosines(1, 20, 12)
    again = hubs.Correction.from_state(*found.state())
    np.testing.assert_array_equal(again.apply(scores), found.apply(scores))
    np.testing.assert_array_equal(again.bank.cosines(A), found.bank.cosines(A))
