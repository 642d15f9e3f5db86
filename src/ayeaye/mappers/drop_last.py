"""A network trained as a classifier with the class vectors as frozen last layer, which is then dropped."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.backbones.backbones import device_of
from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import Mapper, Settings, check_classes, check_images, check_training, unit
from ayeaye.mappers.training import Standard, batches, span, training


class DropLast(Mapper):
    """f: R^d → R^k with logits τ·cos(f(x), a_c) over the seen classes, cross-entropy weighted so that every
    class counts alike. Without its last layer f maps images among the class vectors, also of unseen classes.

    f is linear, or has one hidden layer (`hidden` > 0). Only its part in the span of the seen class vectors
    can move a logit, so only that part is trained and both towers land in that span (m ≤ min(k, seen)).
    Inputs are unit embeddings, each dimension standardised. Trained for `steps` batches, or for `epochs`
    passes where those are more.
    """

    name: ClassVar[str] = "drop_last"

    @classmethod
    def defaults(cls) -> Settings:
        return {
            "hidden": 512,
            "weight_decay": 0.1,
            "temperature": 5.0,
            "dropout": 0.3,
            "rate": 3e-3,
            "batch": 128,
            "steps": 150,
            "epochs": 4,
        }

    @classmethod
    def grid(cls) -> list[Settings]:
        return [
            {"hidden": hidden, "weight_decay": decay, "temperature": temperature}
            for hidden, decay, temperature in (
                (0, 0.1, 5.0),
                (512, 1.0, 5.0),
                (512, 0.1, 5.0),
                (1024, 0.1, 5.0),
                (0, 0.1, 15.0),
                (512, 0.1, 15.0),
            )
        ]

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        inputs = unit(np.asarray(X, np.float32))
        self.standard_ = Standard.of(inputs)
        S = unit(A[present].astype(np.float64))
        self.span_ = span(S).astype(np.float32)  # (k, m)
        last = (S @ self.span_).astype(np.float32)  # (C', m), frozen
        self.layers_ = self._train(self.standard_(inputs), np.searchsorted(present, y), last, seed, device)
        return self

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X, len(self.standard_.centre))
        hidden = self.standard_(unit(np.asarray(X, np.float32)))
        *first, last = self.layers_
        for weight, bias in first:
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        return hidden @ last[0].T + last[1]

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A, len(self.span_))
        return unit(A.astype(np.float32)) @ self.span_

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        return unit_gradients(A, G @ self.span_.T)

    def state(self) -> dict[str, np.ndarray]:
        state = {"centre": self.standard_.centre, "scale": self.standard_.scale, "span": self.span_}
        for number, (weight, bias) in enumerate(self.layers_):
            state |= {f"{number}.weight": weight, f"{number}.bias": bias}
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        mapper = cls(**settings)
        mapper.standard_, mapper.span_ = Standard(state["centre"], state["scale"]), state["span"]
        count = sum(key.endswith(".weight") for key in state)
        mapper.layers_ = [(state[f"{number}.weight"], state[f"{number}.bias"]) for number in range(count)]
        return mapper

    def _train(
        self, inputs: np.ndarray, y: np.ndarray, last: np.ndarray, seed: int, device: str
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        import torch
        from torch.nn import functional

        device = device_of(device)
        X, labels, frozen = (torch.from_numpy(array).to(device) for array in (inputs, y, last))
        frozen = functional.normalize(frozen)
        weights = (len(labels) / (len(frozen) * torch.bincount(labels, minlength=len(frozen)))).to(X.dtype)
        size, rate = int(self.settings["batch"]), float(self.settings["rate"])
        steps = max(int(self.settings["steps"]), int(self.settings["epochs"]) * -(-len(X) // size))
        with training(X, seed):
            network = self._network(X.shape[1], frozen.shape[1]).to(device)
            optimiser = torch.optim.AdamW(
                network.parameters(), lr=rate, weight_decay=float(self.settings["weight_decay"])
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
            for rows in batches(len(X), size, seed, steps):
                batch = torch.from_numpy(rows).to(device)
                outputs = functional.normalize(network(X[batch]))  # (b, m)
                logits = float(self.settings["temperature"]) * outputs @ frozen.T  # (b, C')
                loss = functional.cross_entropy(logits, labels[batch], weights)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        return [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in linear]

    def _network(self, width: int, outputs: int) -> Any:
        from torch import nn

        hidden, dropout = int(self.settings["hidden"]), float(self.settings["dropout"])
        if not hidden:
            return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))
        return nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
        )
