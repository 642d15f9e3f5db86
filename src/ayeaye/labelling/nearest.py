"""Nearest class by cosine."""

from __future__ import annotations

import numpy as np

CHUNK = 8192


def scores(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n, C) float32 cosines of images (n, m) with classes (C, m); a zero row scores zero."""
    unit = _unit(classes)
    result = np.empty((len(images), len(classes)), np.float32)
    for start in range(0, len(images), CHUNK):
        result[start : start + CHUNK] = _unit(images[start : start + CHUNK]) @ unit.T
    return result


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
