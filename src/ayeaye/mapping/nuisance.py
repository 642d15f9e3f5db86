"""Directions in which pictures of one class differ (pose, light, background), found so as to be shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

MOST = 20_000  # pictures looked at
ITERATIONS = 3  # of the randomised decomposition (Halko 2011)


@dataclass(frozen=True)
class Nuisance:
    """Leading directions (r, d) of the variance within classes, and what to take off along each (r,).

    Whitening within classes, as linear discriminant analysis does (Fisher 1936), shrunk halfway to the mean
    variance and kept to the leading directions, so that wide embeddings cost no d × d matrix.
    """

    directions: np.ndarray
    shrinkage: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, y: np.ndarray, rank: int) -> Self:
        """From unit embeddings X (n, d) and classes y (n,) counted from zero; rank 0 finds none."""
        every = -(-len(X) // MOST)
        residuals = _residuals(X[::every], y[::every])
        total = float(np.sum(residuals.astype(np.float64) ** 2)) / len(residuals)
        width = X.shape[1]
        rank = min(rank, width // 2, len(residuals) // 2)
        if rank < 1 or total < 1e-12:
            return cls(np.zeros((0, width), np.float32), np.zeros(0, np.float32))
        sketch = np.random.default_rng(0).standard_normal((width, min(rank + 16, width))).astype(np.float32)
        for _ in range(ITERATIONS):
            sketch = np.linalg.qr(residuals.T @ (residuals @ sketch))[0]
        _, sizes, inner = np.linalg.svd(residuals @ sketch, full_matrices=False)
        variance = sizes[:rank].astype(np.float64) ** 2 / len(residuals)
        rest = max(total - variance.sum(), 0.0) / (width - rank)
        mean = total / width
        shrinkage = 1 - np.sqrt((rest + mean) / (variance + mean))
        return cls((sketch @ inner[:rank].T).T.astype(np.float32), shrinkage.astype(np.float32))

    def shrink(self, X: np.ndarray) -> np.ndarray:
        """(n, d) with the nuisance directions scaled down to the variance of the others."""
        return X - ((X @ self.directions.T) * self.shrinkage) @ self.directions


def _residuals(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    residuals = np.array(X, np.float32)
    for row in np.unique(y):
        residuals[y == row] -= residuals[y == row].mean(axis=0)
    return residuals
