"""Bilinear maps trained by ranking the right class above the others."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.backbones.backbones import device_of
from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import Mapper, Settings, check_classes, check_images, check_training, unit
from ayeaye.mappers.training import Standard, batches, span, training

LOSSES = ("devise", "ale")


class Rank(Mapper):
    """Scores x̂ᵀW a_c in which the right class y must lead every other by a margin Δ.

    A violation is h_c = max(0, Δ + x̂ᵀW a_c − x̂ᵀW a_y). `loss: devise` sums them (Frome et al. 2013); `ale`
    weighs them by β_r / r with β_r = Σ_{i≤r} 1/i, r the number of violations, so that one wrong class above
    the right one counts for more where it is the only one (Akata et al. 2016; all classes are scored, so the
    rank is exact rather than sampled). x̂ is standardised as in `drop_last`; W starts at zero and stays in the
    span of the seen class vectors. Trained for `steps` batches, or for `epochs` passes where those are more.
    """

    name: ClassVar[str] = "rank"

    @classmethod
    def defaults(cls) -> Settings:
        return {
            "loss": "ale",
            "margin": 1.0,
            "weight_decay": 30.0,
            "dropout": 0.5,
            "rate": 3e-4,
            "batch": 128,
            "steps": 150,
            "epochs": 8,
        }

    @classmethod
    def grid(cls) -> list[Settings]:
        return [
            {"loss": loss, "weight_decay": decay}
            for loss in LOSSES
            for decay in (60.0, 30.0, 10.0)  # a step takes rate × decay off W
        ]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.settings["loss"] not in LOSSES:
            raise TypeError(f"rank has no loss {self.settings['loss']}; known: {', '.join(LOSSES)}")

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        inputs = unit(np.asarray(X, np.float32))
        self.standard_ = Standard.of(inputs)
        S = unit(A[present].astype(np.float64))
        basis = span(S)  # (k, m)
        weights = self._train(
            self.standard_(inputs), np.searchsorted(present, y), (S @ basis).astype(np.float32), seed, device
        )
        self.map_ = (weights @ basis.T).astype(np.float32)  # (d, k)
        return self

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X, len(self.map_))
        return self.standard_(unit(np.asarray(X, np.float32))) @ self.map_

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A, self.map_.shape[1])
        return unit(A.astype(np.float32))

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        return unit_gradients(A, G)

    def state(self) -> dict[str, np.ndarray]:
        return {"centre": self.standard_.centre, "scale": self.standard_.scale, "map": self.map_}

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        mapper = cls(**settings)
        mapper.standard_, mapper.map_ = Standard(state["centre"], state["scale"]), state["map"]
        return mapper

    def _train(
        self, inputs: np.ndarray, y: np.ndarray, classes: np.ndarray, seed: int, device: str
    ) -> np.ndarray:
        """(d, m) W, for inputs (n, d), labels (n,) and class vectors (C', m)."""
        import torch
        from torch.nn import functional

        device = device_of(device)
        X, labels, S = (torch.from_numpy(array).to(device) for array in (inputs, y, classes))
        balance = (len(labels) / (len(S) * torch.bincount(labels, minlength=len(S)))).to(X.dtype)
        size, rate = int(self.settings["batch"]), float(self.settings["rate"])
        steps = max(int(self.settings["steps"]), int(self.settings["epochs"]) * -(-len(X) // size))
        with training(X, seed):
            W = torch.zeros(X.shape[1], S.shape[1], device=device, requires_grad=True)
            decay = float(self.settings["weight_decay"])
            optimiser = torch.optim.AdamW([W], lr=rate, weight_decay=decay)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
            for rows in batches(len(X), size, seed, steps):
                batch = torch.from_numpy(rows).to(device)
                x = functional.dropout(X[batch], float(self.settings["dropout"]))
                scores = x @ W @ S.T  # (b, C')
                loss = (self._losses(scores, labels[batch]) * balance[labels[batch]]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        return W.detach().cpu().numpy()

    def _losses(self, scores: Any, y: Any) -> Any:
        """(b,) loss of each row of scores (b, C') with right classes y (b,)."""
        import torch

        margin = float(self.settings["margin"])
        right = scores.gather(1, y[:, None])
        violations = (margin + scores - right).clamp_min(0).scatter(1, y[:, None], 0.0)
        if self.settings["loss"] == "devise":
            return violations.sum(dim=1)
        harmonic = torch.arange(1, scores.shape[1] + 1, device=scores.device).reciprocal().cumsum(0)  # β_r
        r = (violations > 0).sum(dim=1).clamp_min(1)
        return violations.sum(dim=1) * harmonic[r - 1] / r
