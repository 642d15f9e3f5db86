"""Labelling a whole batch of unlabelled pictures at once: the pictures tell where their classes really lie.

A class of which no picture was seen lies in the common space only about where its class vector was mapped to.
The pictures of a batch lie in clusters, so each class may move to the cluster around it: a soft k-means on the
sphere (von Mises–Fisher mixture, Banerjee et al. 2005), seeded by the classes (Basu et al. 2002) and held by
them as by so many pictures of their own.

Clusters are not matched one to one and sizes are not evened out, so that nothing is assumed of how many
pictures a class has. A class without pictures stays where it was; pictures far from every class, which may be
of none, hardly move any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PRIOR = 5.0  # pictures that a class vector counts for
SHARPNESS = (
    0.4  # of the temperature: the pictures of one class lie closer together than class vector and picture
)
DOUBTED = 0.3  # share of the pictures, the farthest from every class, that count for less than half
ROUNDS = 20


def propagate(
    images: np.ndarray,
    classes: np.ndarray,
    scores: Callable[[np.ndarray], np.ndarray],
    temperature: float,
) -> np.ndarray:
    """Scores (n, C) float32 of a batch, in the units of the scores that its pictures have one by one.

    images (n, m) and classes (C, m) are mapped into the common space. `scores` makes scores of their cosines
    (n, C): hub correction and seen offset, which stay as they are while the classes move. `temperature` is
    the one fitted for the scores.
    """
    sharp = SHARPNESS * temperature
    pictures, vectors = _unit(images), _unit(classes)
    moved = vectors
    for _ in range(ROUNDS if len(images) else 0):
        found = scores(pictures @ moved.T)
        shares = _shares(found, sharp) * _trust(found, sharp)[:, None]
        before, moved = moved, _unit(PRIOR * vectors + shares.T @ pictures)
        if np.abs(moved - before).max() < 1e-5:
            break
    return scores(pictures @ moved.T)


def _shares(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(n, C): how much of each picture every class takes; rows sum to one."""
    exponentials = np.exp((scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _trust(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(n,) in 0…1: how much each picture counts, by how its best score stands among all pictures'."""
    best = scores.max(axis=1)
    exponent = (np.quantile(best, DOUBTED) - best) / temperature
    return (1 / (1 + np.exp(np.minimum(exponent, 50)))).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
