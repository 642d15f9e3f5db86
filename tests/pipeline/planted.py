"""Examples whose embeddings follow from their class vectors."""

from __future__ import annotations

import numpy as np

from ayeaye.pipeline.examples import Examples

SPLITS = np.array(["train", "train", "train", "validation", "test_seen"])


def planted(classes: int = 16, unseen: int = 4, each: int = 10, seed: int = 0) -> Examples:
    """Embeddings that are a linear map of the class vectors, and noise."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(classes, 6)).astype(np.float32)
    A = A - A.mean(axis=0)
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    y = np.repeat(np.arange(classes), each)
    X = A[y] @ rng.normal(size=(6, 20)).astype(np.float32)
    X = (X + 0.1 * rng.normal(size=X.shape)).astype(np.float32)
    seen = np.arange(classes) < classes - unseen
    split = np.where(seen[y], np.tile(SPLITS, classes * each // len(SPLITS)), "test_unseen")
    ids = np.array([f"{row:03d}" for row in range(len(y))])
    return Examples(X, y, split, ids, A, seen, seen, [f"class {c}" for c in range(classes)])
