"""Rows at unit length, and the gradients through it."""

from __future__ import annotations

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at unit length; a zero row stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def unit_gradients(rows: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Gradients (q, m) by rows (q, m), of those by `unit(rows)`; zero for a zero row, which has no direction."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = rows / np.maximum(lengths, 1e-12)
    across = gradients - directions * np.sum(directions * gradients, axis=1, keepdims=True)
    return np.where(lengths > 1e-12, across / np.maximum(lengths, 1e-12), 0)
