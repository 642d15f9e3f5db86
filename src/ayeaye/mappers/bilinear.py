"""What the bilinear mappers in closed form share: one map between centred unit images and class vectors."""

from __future__ import annotations

from typing import Self

import numpy as np

from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import Mapper, Settings, centred, check_classes, check_images, unit


class Bilinear(Mapper):
    """A map M (k, d) from unit class vectors a to centred unit images x, used class → visual by Mᵀa."""

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X, len(self.centre_))
        return centred(X, self.centre_)

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A, len(self.map_))
        return unit(A.astype(np.float32)) @ self.map_

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        return unit_gradients(A, G @ self.map_.T)

    def state(self) -> dict[str, np.ndarray]:
        return {"centre": self.centre_, "map": self.map_}

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        return cls(**settings)._hold(state["centre"], state["map"])

    def _hold(self, centre: np.ndarray, map: np.ndarray) -> Self:
        # safetensors write memory as it lies: a transposed array would come back as another matrix.
        self.centre_, self.map_ = (np.ascontiguousarray(each, np.float32) for each in (centre, map))
        return self
