"""The semantic autoencoder: one linear map that must lead from images to class vectors and back."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from ayeaye.mappers.base import Settings, centre_of, check_training, unit
from ayeaye.mappers.bilinear import Bilinear
from ayeaye.mappers.moments import moment


class Sae(Bilinear):
    """S Sᵀ W + λ W XXᵀ = (1 + λ) S Xᵀ, used class → visual by Wᵀa (Kodirov, Xiang & Gong 2017).

    X (d, n) are centred unit images scaled to a mean square length of 1, S (k, n) the unit vectors of their
    classes; images weigh so that every class counts alike. With S Sᵀ = U diag(a) Uᵀ the rows w_i of UᵀW part:
    (a_i I + λ XXᵀ) w_i = (1 + λ) X Sᵀu_i. Where a_i = 0 the right side is 0, too, and the solution of least norm
    is w_i = 0; every other row is regular, whatever the rank of XXᵀ.
    """

    name: ClassVar[str] = "sae"
    closed_form: ClassVar[bool] = True

    @classmethod
    def defaults(cls) -> Settings:
        return {"penalty": 0.3}

    @classmethod
    def grid(cls) -> list[Settings]:
        return [{"penalty": penalty} for penalty in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)]

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        S = unit(A[present].astype(np.float64))  # (C', k)
        a, U = np.linalg.eigh(S.T @ S * (len(y) / len(S)))
        held = a > 1e-10 * a[-1]
        a, U = a[held], U[:, held]
        penalty = float(self.settings["penalty"])
        rows = moment(X, y).solve(a / penalty, S @ U) * ((1 + penalty) / penalty)  # (d, r)
        return self._hold(centre_of(X, y), U @ rows.T)
