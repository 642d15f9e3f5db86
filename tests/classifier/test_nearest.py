"""Nearest class by cosine."""

from __future__ import annotations

import numpy as np
import pytest

from ayeaye.classifier import nearest


def test_scores_are_cosines() -> None:
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    images, classes = rng.standard_normal((50, 6)), rng.standard_normal((7, 6))
    found = nearest.scores(images, classes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 - cdist(images, classes, "cosine"), atol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images, classes = rng.standard_normal((50, 6)), rng.standard_normal((7, 6))
    whole = nearest.scores(images, classes)
    monkeypatch.setattr(nearest, "CHUNK", 8)
    np.testing.assert_allclose(nearest.scores(images, classes), whole, atol=1e-6)


def test_a_zero_row_scores_zero_and_no_image_is_no_row() -> None:
    classes = np.eye(3)
    assert not nearest.scores(np.zeros((1, 3)), classes).any()
    assert nearest.scores(np.zeros((0, 3)), classes).shape == (0, 3)
