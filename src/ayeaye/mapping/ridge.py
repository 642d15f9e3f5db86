"""Ridge regression from class vectors to the mean embeddings of seen classes."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.mapping.base import Mapper, Settings, check_classes, check_images, check_training, unit

KERNELS = ("linear", "quadratic", "gaussian")
SHARPNESS = 5.0  # of the Gaussian kernel exp(s (a·a' − 1)) on unit class vectors


class Ridge(Mapper):
    """M̂ = M Sᵀ(S Sᵀ + λI)⁻¹ in closed form, class → visual, where hubs are rarer (Shigeto 2015).

    Embeddings are brought to unit length and centred on the mean of the seen class means M: without the
    centring the unseen accuracy on photographs fell by two thirds. Solved in the dual, (K + λI)⁻¹ over seen
    classes, unless the class space is narrower than that; a kernel other than linear is always dual.
    """

    name: ClassVar[str] = "ridge"

    @classmethod
    def defaults(cls) -> Settings:
        return {"penalty": 0.3, "kernel": "linear"}

    @classmethod
    def grid(cls) -> list[Settings]:
        penalties = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
        return [{"penalty": penalty, "kernel": kernel} for kernel in KERNELS for penalty in penalties]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.settings["kernel"] not in KERNELS:
            raise TypeError(f"ridge has no kernel {self.settings['kernel']}; known: {', '.join(KERNELS)}")

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        S = unit(A[present].astype(np.float64))  # (C', k)
        M = _class_means(X, np.searchsorted(present, y), len(present))  # (C', d)
        centre = M.mean(axis=0)
        penalty = float(self.settings["penalty"])
        if self.settings["kernel"] == "linear" and S.shape[1] < len(S):
            weights = np.linalg.solve(S.T @ S + penalty * np.eye(S.shape[1]), S.T @ (M - centre))  # (k, d)
            support = np.eye(S.shape[1])
        else:
            K = self._kernel(S, S)
            weights = np.linalg.solve(K + penalty * np.eye(len(S)), M - centre)  # (C', d)
            support = S
        return self._hold(centre, support, weights)

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X, len(self.centre_))
        return unit(np.asarray(X, np.float32)) - self.centre_

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A, self.support_.shape[1])
        K = self._kernel(unit(A.astype(np.float64)), self.support_.astype(np.float64))
        return (K @ self.weights_.astype(np.float64)).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"centre": self.centre_, "support": self.support_, "weights": self.weights_}

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        return cls(**settings)._hold(state["centre"], state["support"], state["weights"])

    def _hold(self, centre: np.ndarray, support: np.ndarray, weights: np.ndarray) -> Self:
        self.centre_, self.support_, self.weights_ = (
            a.astype(np.float32) for a in (centre, support, weights)
        )
        return self

    def _kernel(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        cosines = A @ B.T
        if self.settings["kernel"] == "quadratic":
            return (1 + cosines) ** 2
        if self.settings["kernel"] == "gaussian":
            return np.exp(SHARPNESS * (cosines - 1))
        return cosines


def _class_means(X: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """(C, d) float64 means of unit embeddings, summed class by class so that X is never held twice."""
    return np.stack([unit(X[y == row].astype(np.float64)).mean(axis=0) for row in range(classes)])
