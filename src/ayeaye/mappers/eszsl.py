"""Embarrassingly simple zero-shot learning: a bilinear map with two ridge penalties, in closed form."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import Settings, centre_of, check_classes, check_training, remembered, unit
from ayeaye.mappers.bilinear import Bilinear
from ayeaye.mappers.moments import moment

SPACES = ("classes", "images")


class Eszsl(Bilinear):
    """V = (XXᵀ + 10^α I)⁻¹ X Y Sᵀ (S Sᵀ + 10^γ I)⁻¹ and scores xᵀVa (Romera-Paredes & Torr 2015).

    X (d, n) are centred unit images scaled to a mean square of 1, so that α means the same at every width; Y
    (n, C') is one-hot, S (k, C') are unit class vectors. Images weigh so that every class counts alike, so that
    targets of ±1 would give the same map. With `space: classes` it is read as published, image → semantic. With
    `images` the cosine is taken of x and Va, and divides by |Va|: alone that is worse on unseen classes, but
    it blends better with other mappers into the images.
    """

    name: ClassVar[str] = "eszsl"
    closed_form: ClassVar[bool] = True

    @classmethod
    def defaults(cls) -> Settings:
        return {"alpha": 4.0, "gamma": 0.0, "space": "classes"}

    @classmethod
    def grid(cls) -> list[Settings]:
        return [
            {"alpha": alpha, "gamma": gamma}
            for alpha in (6.0, 5.0, 4.0, 3.0, 2.0)
            for gamma in (1.0, 0.5, 0.0, -0.5, -1.0)
        ]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.settings["space"] not in SPACES:
            raise TypeError(f"eszsl has no space {self.settings['space']}; known: {', '.join(SPACES)}")

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        S = unit(A[present].astype(np.float64))  # (C', k)
        left = _left(X, y, float(self.settings["alpha"]))  # (d, C')
        # (SSᵀ + 10^γ I)⁻¹ S = S (SᵀS + 10^γ I)⁻¹: solved among classes, which are often fewer than words.
        right = np.linalg.solve(S @ S.T + 10 ** float(self.settings["gamma"]) * np.eye(len(S)), S).T
        return self._hold(centre_of(X, y), right @ left.T)

    def map_images(self, X: np.ndarray) -> np.ndarray:
        images = super().map_images(X)
        return images if self.settings["space"] == "images" else images @ self.map_.T

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        if self.settings["space"] == "images":
            return super().map_classes(A)
        check_classes(A, len(self.map_))
        return unit(A.astype(np.float32))

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        return super().class_gradients(A, G) if self.settings["space"] == "images" else unit_gradients(A, G)


@remembered
def _left(X: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """(d, C') float64 (XXᵀ + 10^α I)⁻¹ X Y, for images of length √d."""
    classes, d = len(np.unique(y)), X.shape[1]
    shifts = np.full(classes, 10**alpha / d)
    return moment(X, y).solve(shifts, np.eye(classes)) / np.sqrt(d)
