"""Labelling a batch together: better where there are clusters, and hardly worse where a batch is odd."""

from __future__ import annotations

import numpy as np
import pytest

from ayeaye.classifier import nearest
from ayeaye.classifier.propagation import propagate

CLASSES, WIDTH = 20, 40
TEMPERATURE = 0.1
MARGIN = 0.03  # how much worse than nearest a batch may be that propagation is not made for


def batch(counts: np.ndarray, seed: int = 0, strangers: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mapped images in clusters, the class vectors a good way beside them, and the true classes.

    Pictures of no class lie around centres of their own, and have the class -1.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, WIDTH))
    classes = centres + 1.7 * rng.normal(size=centres.shape)
    y = np.repeat(np.arange(CLASSES), counts)
    images = centres[y] + 0.9 * rng.normal(size=(len(y), WIDTH))
    elsewhere = rng.normal(size=(max(1, strangers // 20), WIDTH))
    others = elsewhere[np.arange(strangers) % len(elsewhere)] + 0.9 * rng.normal(size=(strangers, WIDTH))
    return (
        np.concatenate([images, others]).astype(np.float32),
        classes.astype(np.float32),
        np.concatenate([y, np.full(strangers, -1)]),
    )


def accuracies(counts: np.ndarray, strangers: int = 0) -> tuple[float, float]:
    """Mean over classes of the accuracy of nearest and of propagation, over several batches."""
    found = []
    for seed in range(6):
        images, classes, y = batch(counts, seed, strangers)
        scores = nearest.scores(images, classes)
        together = propagate(images, classes, as_they_are, TEMPERATURE)
        present = np.unique(y[y >= 0])
        found.append(
            [
                np.mean([(each.argmax(axis=1) == y)[y == c].mean() for c in present])
                for each in (scores, together)
            ]
        )
    alone, propagated = np.mean(found, axis=0)
    return float(alone), float(propagated)


def as_they_are(cosines: np.ndarray) -> np.ndarray:
    return cosines


def balanced(each: int = 30) -> np.ndarray:
    return np.full(CLASSES, each)


def test_clusters_help() -> None:
    alone, together = accuracies(balanced())
    assert 0.3 < alone < 0.9
    assert together > alone + 0.1


@pytest.mark.parametrize(
    ("counts", "strangers"),
    [
        pytest.param((120 / np.arange(1, CLASSES + 1)).astype(int), 0, id="sizes by Zipf's law"),
        pytest.param(np.where(np.arange(CLASSES) < 7, 30, 0), 0, id="two thirds of the classes absent"),
        pytest.param(balanced(), 300, id="a third of the pictures of no class"),
        pytest.param(np.where(np.arange(CLASSES) == 0, 60, 0), 0, id="one class only"),
        pytest.param(np.where(np.arange(CLASSES) < 8, 1, 0), 0, id="fewer pictures than classes"),
        pytest.param(np.where(np.arange(CLASSES) == 3, 1, 0), 0, id="one picture"),
    ],
)
def test_an_odd_batch_is_hardly_labelled_worse_than_picture_by_picture(
    counts: np.ndarray, strangers: int
) -> None:
    alone, together = accuracies(counts, strangers)
    assert together >= alone - MARGIN


def test_an_offset_stays_while_the_classes_move() -> None:
    images, classes, _ = batch(balanced(10))
    offset = np.where(np.arange(CLASSES) < 10, 10.0, 0.0).astype(np.float32)
    found = propagate(images, classes, lambda cosines: cosines - offset, TEMPERATURE)
    assert (found.argmax(axis=1) >= 10).all()


def test_the_order_of_the_pictures_does_not_matter() -> None:
    images, classes, _ = batch(balanced(10))
    order = np.random.default_rng(0).permutation(len(images))
    whole = propagate(images, classes, as_they_are, TEMPERATURE)
    shuffled = propagate(images[order], classes, as_they_are, TEMPERATURE)
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-3)


def test_an_empty_batch_has_no_scores() -> None:
    images, classes, _ = batch(balanced(1))
    assert propagate(images[:0], classes, as_they_are, TEMPERATURE).shape == (0, CLASSES)


def test_a_blank_picture_and_equal_ones_give_finite_scores() -> None:
    _, classes, _ = batch(balanced(1))
    images = np.zeros((5, WIDTH), np.float32)
    images[2:] = 1
    assert np.isfinite(propagate(images, classes, as_they_are, TEMPERATURE)).all()
