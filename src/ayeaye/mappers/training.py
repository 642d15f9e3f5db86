"""What the mappers that are trained batch by batch share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ayeaye.backbones.training import reproducible

SMALL = 8_000_000  # numbers in X up to which one thread trains


@dataclass(frozen=True)
class Standard:
    """Each of d dimensions less its mean, in units of its deviation over the training images."""

    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray) -> Standard:
        return cls(inputs.mean(axis=0), 1 / np.maximum(inputs.std(axis=0), 1e-6))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        # Clipped: a dimension that was all but constant in training must not drown the others later.
        return np.clip((inputs - self.centre) * self.scale, -10, 10)


@contextmanager
def training(X: Any, seed: int) -> Iterator[None]:
    """Reproducible by `seed`, in one thread where the tensor X is small; then all is as it was."""
    import torch

    threads = torch.get_num_threads()
    # Threads that wait for one another cost a small network more than they bring, tenfold on a busy machine.
    torch.set_num_threads(1 if X.numel() < SMALL else threads)
    try:
        with reproducible(seed, str(X.device)):
            yield
    finally:
        torch.set_num_threads(threads)


def batches(count: int, size: int, seed: int, steps: int) -> Iterator[np.ndarray]:
    """Row numbers of `steps` batches; each pass holds every row once."""
    return islice(_endless(count, size, seed), steps)


def _endless(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    while True:
        yield from np.array_split(rng.permutation(count), max(1, round(count / size)))


def span(S: np.ndarray) -> np.ndarray:
    """(k, m) orthonormal basis of the span of the rows of S (C, k)."""
    _, sizes, basis = np.linalg.svd(S, full_matrices=False)
    return np.ascontiguousarray(basis[sizes > 1e-4 * sizes[0]].T)
