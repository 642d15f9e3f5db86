"""Drift: popularity is none, and what is in the pictures is found by size and chance together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ayeaye.core.errors import DataError
from ayeaye.core.params import Watch
from ayeaye.evaluation import drift
from ayeaye.evaluation.drift import Answers, Comparison, Reference

CLASSES, WIDTH = 20, 16
CENTRES = np.random.default_rng(0).normal(
    size=(CLASSES + 1, WIDTH)
)  # the last one is of a class nobody knows
NONE = np.zeros(0, str)


def pictures(y: np.ndarray, chance: np.random.Generator, noise: float = 0.5) -> Answers:
    """What a nearest-centre classifier answers on pictures of classes y (n,), the first 15 of them seen."""
    vectors = CENTRES[y] + noise * chance.normal(size=(len(y), WIDTH))
    cosines = vectors @ CENTRES[:CLASSES].T / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = np.exp(cosines / 0.5)
    shares /= shares.sum(axis=1, keepdims=True)
    best = cosines.argmax(axis=1)
    two = np.sort(cosines, axis=1)[:, -2:]
    return Answers(
        label=np.array([f"kind {c}" for c in best]),
        seen=best < 15,
        known=shares.max(axis=1) > 0.4,
        confidence=shares.max(axis=1),
        margin=two[:, 1] - two[:, 0],
        vectors=vectors.astype(np.float32),
    )


def held_out(seed: int = 0, each: int = 20) -> Reference:
    y = np.repeat(np.arange(CLASSES), each)
    return Reference(pictures(y, np.random.default_rng([seed, 1])), np.array([f"kind {c}" for c in y]))


def popular(chance: np.random.Generator) -> np.ndarray:
    share = 8 ** chance.random(CLASSES)
    return share / share.sum()


def traffic(n: int, seed: int, noise: float = 0.5, new: float = 0.0) -> Answers:
    chance = np.random.default_rng([seed, 2])
    y = chance.choice(CLASSES, n, p=popular(chance))
    y[: int(new * n)] = CLASSES
    return pictures(y, chance, noise)


def compared(reference: Reference, answers: Answers, earlier: np.ndarray = NONE) -> Comparison:
    return drift.compare(reference, answers, earlier, Watch().maximum, Watch().significance)


def of(found: Comparison, name: str) -> drift.Figure:
    return next(figure for figure in found.figures if figure.figure == name)


@pytest.mark.parametrize("n", [200, 1000])
def test_other_popularity_alone_is_seldom_called_drift(n: int) -> None:
    """100 draws of traffic, each with a reference of its own."""
    alarms = sum(bool(compared(held_out(seed), traffic(n, seed)).drifted) for seed in range(100))
    assert alarms <= 2


@pytest.mark.parametrize("n", [200, 1000])
def test_pictures_that_are_worse_are_drift(n: int) -> None:
    found = [compared(held_out(seed), traffic(n, seed, noise=1.0)) for seed in range(20)]
    assert all(comparison.drifted for comparison in found)
    assert {"confidence", "margin", "vectors"} <= set(found[0].drifted)


def test_a_class_that_nobody_knows_is_found_by_where_its_pictures_lie() -> None:
    found = [compared(held_out(seed), traffic(1000, seed, new=0.2)) for seed in range(20)]
    assert np.mean(["vectors" in comparison.drifted for comparison in found]) >= 0.9


def test_weights_are_the_frequencies_of_classes_in_the_traffic() -> None:
    """Also where a tenth of the answers is wrong: answers would say that popular classes are rarer than they are."""
    chance = np.random.default_rng(3)
    names = np.array([f"kind {c}" for c in range(CLASSES)])

    def answered(y: np.ndarray) -> np.ndarray:
        wrong = chance.random(len(y)) < 0.1
        return names[np.where(wrong, (y + 1) % CLASSES, y)]

    y, share = np.repeat(np.arange(CLASSES), 100), popular(chance)
    weights = drift.prevalence(names[y], answered(y), answered(chance.choice(CLASSES, 20_000, p=share)))
    assert weights.sum() == pytest.approx(1)
    found = np.array([weights[y == c].sum() for c in range(CLASSES)])
    assert np.abs(found - share).max() < 0.01


def test_of_very_many_answers_a_small_difference_is_significant_and_no_drift() -> None:
    reference = held_out(each=250)
    found = compared(reference, traffic(100_000, 0, noise=0.55))
    assert len(found.answers) <= drift.MOST
    assert of(found, "confidence").p < 0.001
    assert not found.drifted


def test_of_few_answers_a_large_difference_may_be_chance() -> None:
    reference = held_out()
    answers = traffic(12, 2)
    answers = replace(answers, confidence=answers.confidence - 0.04)
    figure = of(compared(reference, answers), "confidence")
    assert figure.difference >= figure.threshold and not figure.drifted


def test_labels_are_held_against_earlier_ones() -> None:
    chance = np.random.default_rng(4)
    names = np.array([f"kind {c}" for c in range(300)])
    share = np.arange(1, 301) / np.arange(1, 301).sum()
    before, same, other = (chance.choice(names, 1500, p=p) for p in (share, share, share[::-1]))
    reference, answers = held_out(), traffic(1500, 0)
    assert "label" not in {figure.figure for figure in compared(reference, answers).figures}
    alike = of(compared(reference, replace(answers, label=same), before), "label")
    assert alike.difference < 0.1 and alike.p > 0.001  # 300 labels would come to .3 without the correction
    moved = of(compared(reference, replace(answers, label=other), before), "label")
    assert moved.difference > 0.4 and moved.drifted
    # All of one label, as when a camera is dark.
    assert of(compared(reference, replace(answers, label=np.full(1500, "kind 3")), before), "label").drifted


def test_answers_that_were_never_given_on_held_out_pictures_are_left_out_and_told() -> None:
    answers = traffic(500, 0)
    answers.label[:100] = "a class of run time"
    found = compared(held_out(), answers)
    assert found.strange == pytest.approx(0.2)
    assert len(found.answers) == 400
    assert not found.drifted
    everything = replace(answers, label=np.full(500, "a class of run time"))
    assert compared(held_out(), everything).figures == []


def test_stand_ins_are_compared_without_their_names_and_places() -> None:
    reference = held_out()
    unseen = np.char.partition(reference.truth, " ")[:, 2].astype(int) >= 15
    truth = np.where(unseen, "", reference.truth)
    stand_ins = Reference(reference.answers.without_unseen_names(), truth)
    answers = traffic(1000, 0)
    renamed = replace(answers, label=np.where(answers.seen, answers.label, "another name"))
    found = compared(stand_ins, renamed)
    assert found.strange == 0 and not found.drifted
    assert np.isnan(found.distances[1][~found.answers.seen]).all()
    assert np.isfinite(found.distances[1][found.answers.seen]).all()


def test_a_held_out_picture_is_not_its_own_neighbour() -> None:
    reference = held_out()
    before, now = drift.distances(reference.answers, reference.answers)
    assert (before > 1e-3).all()
    assert (now < before).all()  # the traffic holds the very same pictures
    assert before == pytest.approx(_slow_distances(reference.answers.vectors), abs=1e-5)


def _slow_distances(vectors: np.ndarray) -> np.ndarray:
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    away = 1 - rows @ rows.T
    np.fill_diagonal(away, np.inf)
    return np.sort(away, axis=1)[:, : drift.NEIGHBOURS].mean(axis=1)


def test_a_figure_without_a_threshold_is_left_out_and_the_rest_share_the_significance() -> None:
    found = drift.compare(held_out(), traffic(300, 0), NONE, {"margin": 0.3, "none_of_these": 0.1}, 0.01)
    assert [figure.figure for figure in found.figures] == ["margin", "none_of_these"]
    assert {figure.significance for figure in found.figures} == {0.005}


def test_one_empty_side_is_an_error() -> None:
    nothing = traffic(300, 0).take(np.zeros(0, int))
    with pytest.raises(DataError, match="0 answers and a reference of 400"):
        compared(held_out(), nothing)
