"""Networks from class vectors to prototypes among the images, with class normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.backbones.backbones import device_of
from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import (
    Mapper,
    Settings,
    check_classes,
    check_images,
    check_training,
    class_means,
    unit,
)
from ayeaye.mappers.training import batches, training

Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Network:
    """Weights and biases of the three linear layers, and the figures (2, 2, h) of the two standardisations."""

    layers: list[Layer]
    figures: np.ndarray

    def __call__(self, classes: np.ndarray) -> np.ndarray:
        """(C, d) outputs for class vectors (C, k), before the last ReLU."""
        return self.trace(classes)[-1]

    def trace(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(C, h) of both hidden layers after their ReLUs, and the outputs."""
        first, second, last = self.layers
        below = np.maximum(_linear(classes, first), 0)
        above = np.maximum(_standardise(_linear(below, second), self.figures[0]), 0)
        return below, above, _linear(_standardise(above, self.figures[1]), last)

    def gradients(self, below: np.ndarray, above: np.ndarray, G: np.ndarray) -> np.ndarray:
        """(C, k) by the class vectors with these hidden layers, of gradients G (C, d) by the outputs."""
        (first, _), (second, _), (last, _) = self.layers
        G = (G @ last) * self.figures[1, 1] * (above > 0)
        G = ((G * self.figures[0, 1]) @ second) * (below > 0)
        return G @ first


class Prototype(Mapper):
    """p: R^k → R^d with logits τ·cos(x, p(a_c)) over the seen classes (Skorokhodov & Elhoseiny 2021; Zhang et
    al. 2017 before them).

    p is FC–ReLU–FC–standardise–ReLU–standardise–FC, then a ReLU where no embedding is negative; where some
    are, that ReLU would halve the accuracy, and embeddings are centred instead. Class vectors are scaled to
    length √k. Both standardisations are over classes: over all seen ones in every step, and afterwards with
    the figures of the seen ones, so that a class is mapped alike in whatever company. One cycle of the rate,
    over `steps` batches or over `epochs` passes where those are more, takes the place of the paper's 50 passes.
    A prototype is the sum of the unit ones of several `networks` from other first weights, since these err
    differently where no class was seen (Lakshminarayanan et al. 2017); it costs nothing when images are mapped.
    """

    name: ClassVar[str] = "prototype"

    @classmethod
    def defaults(cls) -> Settings:
        return {
            "networks": 5,
            "hidden": 512,
            "temperature": 25.0,
            "weight_decay": 1e-4,
            "rate": 3e-3,
            "batch": 256,
            "steps": 100,
            "epochs": 4,
        }

    @classmethod
    def grid(cls) -> list[Settings]:
        # Width does not make it less regular: a narrow network must earn its place.
        return [{"hidden": 512}, {"hidden": 256}]

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        self.clipped_ = np.array(bool(np.min(X) >= 0))
        centre = 0 if self.clipped_ else class_means(X, y).mean(axis=0)
        self.centre_ = np.broadcast_to(centre, X.shape[1]).astype(np.float32)
        images = unit(self.map_images(X))
        self.networks_ = self._train(images, np.searchsorted(present, y), _scaled(A[present]), seed, device)
        return self

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X, len(self.centre_))
        return unit(np.asarray(X, np.float32)) - self.centre_

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A, self.networks_[0].layers[0][0].shape[1])
        mapped = np.zeros((len(A), len(self.centre_)), np.float32)
        for network in self.networks_:
            outputs = network(_scaled(A))
            mapped += unit(np.maximum(outputs, 0) if self.clipped_ else outputs)
        return mapped

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        scaled, G, total = _scaled(A), G.astype(np.float32), np.zeros(A.shape, np.float32)
        for network in self.networks_:
            below, above, outputs = network.trace(scaled)
            if self.clipped_:
                own = unit_gradients(np.maximum(outputs, 0), G) * (outputs > 0)
            else:
                own = unit_gradients(outputs, G)
            total += network.gradients(below, above, own)
        return np.sqrt(A.shape[1]) * unit_gradients(A, total)

    def state(self) -> dict[str, np.ndarray]:
        state = {"centre": self.centre_, "clipped": self.clipped_}
        for place, network in enumerate(self.networks_):
            state[f"{place}.figures"] = network.figures
            for number, (weight, bias) in enumerate(network.layers):
                state |= {f"{place}.{number}.weight": weight, f"{place}.{number}.bias": bias}
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        mapper = cls(**settings)
        mapper.centre_, mapper.clipped_ = state["centre"], state["clipped"]
        mapper.networks_ = [
            Network(
                [(state[f"{place}.{number}.weight"], state[f"{place}.{number}.bias"]) for number in range(3)],
                state[f"{place}.figures"],
            )
            for place in range(sum(key.endswith(".figures") for key in state))
        ]
        return mapper

    def _train(
        self, images: np.ndarray, y: np.ndarray, classes: np.ndarray, seed: int, device: str
    ) -> list[Network]:
        import torch
        from torch.nn import functional

        device = device_of(device)
        X, labels, S = (torch.from_numpy(array).to(device) for array in (images, y, classes))
        weights = (len(labels) / (len(S) * torch.bincount(labels, minlength=len(S)))).to(X.dtype)
        size, rate = int(self.settings["batch"]), float(self.settings["rate"])
        steps = max(int(self.settings["steps"]), int(self.settings["epochs"]) * -(-len(X) // size))
        with training(X, seed):
            networks = torch.nn.ModuleList(
                self._network(S.shape[1], X.shape[1]) for _ in range(int(self.settings["networks"]))
            ).to(device)
            decay = float(self.settings["weight_decay"])
            optimiser = torch.optim.Adam(networks.parameters(), rate, weight_decay=decay)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
            for rows in batches(len(X), size, seed, steps):
                batch = torch.from_numpy(rows).to(device)
                x, right = float(self.settings["temperature"]) * X[batch], labels[batch]
                optimiser.zero_grad()
                for network in networks:
                    logits = x @ functional.normalize(network(S)).T  # (b, C')
                    functional.cross_entropy(logits, right, weights).backward()
                optimiser.step()
                schedule.step()
            return [_held(network, S) for network in networks]

    def _network(self, width: int, outputs: int) -> Any:
        from torch import nn

        hidden = int(self.settings["hidden"])
        last = nn.Linear(hidden, outputs)
        # The variance of the paper's equation 10: prototypes vary as much as embeddings from the first step.
        nn.init.uniform_(last.weight, -np.sqrt(3 / (hidden * outputs)), np.sqrt(3 / (hidden * outputs)))
        nn.init.zeros_(last.bias)
        return nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden, affine=False),
            nn.ReLU(),
            nn.BatchNorm1d(hidden, affine=False),
            last,
            nn.ReLU() if self.clipped_ else nn.Identity(),
        )


def _held(network: Any, S: Any) -> Network:
    """The network as arrays, with the figures of all seen classes S (C', k) under its last weights.

    That is where the running figures were heading, without their lag.
    """
    import torch

    with torch.no_grad():
        norms: list[Any] = [layer for layer in network if isinstance(layer, torch.nn.BatchNorm1d)]
        for norm in norms:
            norm.momentum = 1.0
        network(S)
        figures = [(norm.running_mean, (norm.running_var + norm.eps).rsqrt()) for norm in norms]
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    return Network(
        [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in linear],
        torch.stack([torch.stack(pair) for pair in figures]).cpu().numpy(),
    )


def _scaled(A: np.ndarray) -> np.ndarray:
    """Class vectors (C, k) at length √k."""
    return unit(A.astype(np.float32)) * np.float32(np.sqrt(A.shape[1]))


def _linear(rows: np.ndarray, layer: Layer) -> np.ndarray:
    return rows @ layer[0].T + layer[1]


def _standardise(rows: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """Rows (C, h) less the mean, times the inverse deviation, both of figures (2, h)."""
    return (rows - figures[0]) * figures[1]
