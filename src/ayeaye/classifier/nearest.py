"""Nearest class by cosine."""

from __future__ import annotations

import numpy as np

from ayeaye.mappers.base import unit

CHUNK = 8192


def scores(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n, C) float32 cosines of images (n, m) with classes (C, m); a zero row scores zero."""
    targets = unit(np.asarray(classes, np.float32)).T
    result = np.empty((len(images), len(classes)), np.float32)
    for start in range(0, len(images), CHUNK):
        result[start : start + CHUNK] = unit(np.asarray(images[start : start + CHUNK], np.float32)) @ targets
    return result
