"""Hub correction: a class that is near to everything is moved away from everything.

A hub (Radovanović 2010) is the nearest class of far more pictures than are of it. How near a class is to
pictures at large is measured once, on a *bank* of pictures that the mapper did not learn from, and frozen.
What else a correction needs it takes from the row that it corrects, so that one picture alone gets the same
scores as in a batch.

    none                as they are
    csls                2s − r(q) − r(c), r the mean of the k highest (cross-domain similarity local scaling,
                        Conneau et al. 2018)
    inverted_softmax    s − T log mean exp(s_b / T) over the bank, the logarithm of the softmax over pictures
                        instead of classes (Smith et al. 2017), in the units of s
    nnn                 s − α r(c) (nearest neighbour normalisation, Chowdhury et al. 2024)
    local_scaling       exp(−d² / (σ(q) σ(c))), d² = 2 − 2s, σ the distance of the k-th nearest
                        (Zelnik-Manor & Perona 2004; against hubs, Schnitzer et al. 2012)

s are cosines; r(c) and σ(c) look from a class at the bank, r(q) and σ(q) from a picture at the classes. A bank
of seen classes alone raises r(c) of the seen ones: choose the seen offset after the correction.

Nothing that the bank says of a class depends on what other classes there are: one that comes later is measured
on the same bank, and stands as if it had been there from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ayeaye.core.array_namespaces import below, under
from ayeaye.core.errors import DataError
from ayeaye.mappers import MAPPERS, Mapper
from ayeaye.mappers.base import unit

GRIDS: dict[str, list[dict[str, Any]]] = {
    "none": [{}],
    "csls": [{"k": k} for k in (5, 10, 20)],
    "inverted_softmax": [{"temperature": temperature} for temperature in (0.2, 0.1, 0.05)],
    "nnn": [{"k": k, "alpha": alpha} for k in (5, 10, 20) for alpha in (0.25, 0.5, 0.75)],
    "local_scaling": [{"k": k} for k in (5, 10, 20)],
}
KINDS = tuple(GRIDS)
JUDGES = 500  # pictures
MOST = 2000  # pictures of a bank: with two mappers of 1,280 numbers each, 10 MB of a bundle


@dataclass(frozen=True)
class Bank:
    """Pictures of seen classes, mapped by a mapper that did not learn from them: images (b, m) float16 at unit
    length, and the numbers y (b,) of their classes, which banks did not keep before."""

    mapper: Mapper
    images: np.ndarray
    y: np.ndarray | None = None

    @classmethod
    def of(cls, mapper: Mapper, X: np.ndarray, y: np.ndarray | None = None) -> Bank:
        """The bank of embeddings X (b, d) of classes y (b,)."""
        images = unit(mapper.map_images(X)).astype(np.float16)
        return cls(mapper, images, None if y is None else np.asarray(y, np.int32))

    @cached_property
    def calibration_subset(self) -> Bank:
        """At most JUDGES of its pictures, evenly: enough to move a threshold by."""
        step = -(-len(self.images) // JUDGES)
        return replace(self, images=self.images[::step], y=None if self.y is None else self.y[::step])

    def cosines(self, A: np.ndarray) -> np.ndarray:
        """(b, C) float32 of the pictures with class vectors A (C, k)."""
        return self._rows @ unit(self.mapper.map_classes(A)).astype(np.float32).T

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.images.astype(np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What JSON holds and what safetensors hold, from which `from_state` makes the same bank."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.mapper.state().items()}
        about = {"name": self.mapper.name, "settings": self.mapper.settings}
        classes = {} if self.y is None else {"y": self.y}
        return about, {"images": self.images, **classes, **under("mapper", arrays)}

    @classmethod
    def from_state(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Bank:
        mapper = MAPPERS[about["name"]].from_state(about["settings"], below("mapper", arrays))
        return cls(mapper, arrays["images"], arrays.get("y"))


def sample(y: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows (b,), ascending, of the pictures of a bank among those of the classes y (n,): at most MOST of them, of
    every class one before a second of any."""
    if len(y) <= MOST:
        return np.arange(len(y))
    mixed = np.random.default_rng(seed).permutation(len(y))
    grouped = mixed[np.argsort(y[mixed], kind="stable")]
    _, starts, counts = np.unique(y[grouped], return_index=True, return_counts=True)
    turn = np.arange(len(y)) - np.repeat(starts, counts)
    return np.sort(grouped[np.argsort(turn, kind="stable")[:MOST]])


@dataclass(frozen=True)
class Correction:
    """A fitted correction of scores with C classes.

    `statistic` (C,) float32 is what the bank says of each class: r(c) of csls and nnn, T log mean exp of
    inverted_softmax, σ(c) of local_scaling; of none it is empty. `bank` is kept for classes that come later, also
    of none: it says how high the unknown then score.
    """

    kind: str = "none"
    settings: dict[str, Any] = field(default_factory=dict)
    statistic: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    bank: Bank | None = None

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Corrected scores (n, C) float32 of cosines (n, C); each row for itself."""
        if self.kind == "none":
            return scores
        scores = np.asarray(scores, np.float32)
        if scores.ndim != 2 or scores.shape[1] != len(self.statistic):
            raise DataError(f"scores of shape {scores.shape}: expected (n, {len(self.statistic)})")
        if self.kind == "csls":
            return 2 * scores - _near(scores, self.settings["k"])[:, None] - self.statistic
        if self.kind == "nnn":
            return scores - np.float32(self.settings["alpha"]) * self.statistic
        if self.kind == "local_scaling":
            scale = _scale(scores, self.settings["k"])[:, None] * self.statistic
            return np.exp(-_squared_distances(scores) / scale)
        return scores - self.statistic

    def slope(self, cosines: np.ndarray, row: int, other: int) -> float:
        """How much faster than their cosines (C,) the corrected scores of two classes would part, did the bank say
        the same of both: 2 of csls; of local_scaling the secant at the mean of the two σ(c); else 1."""
        if self.kind == "csls":
            return 2.0
        if self.kind != "local_scaling":
            return 1.0
        cosines = np.asarray(cosines, np.float32)[None]
        width = float(_scale(cosines, self.settings["k"])[0] * self.statistic[[row, other]].mean())
        apart = float(cosines[0, row] - cosines[0, other])
        base = float(np.exp(-_squared_distances(cosines[0, other]) / width))
        return base * (float(np.expm1(2 * apart / width)) / apart if apart else 2 / width)

    def extended(self, A: np.ndarray, unseen: np.ndarray) -> Correction:
        """The correction with classes of vectors A (m, k) after its own.

        What the bank says of them is what it would have said from the start. Without one, as bundles were before
        format 3, they have the median of what it said of the `unseen` classes (C,), of all where there are none.
        """
        if self.kind == "none":
            return self
        if self.bank is not None:
            more = _statistic(self.kind, self.settings, self.bank.cosines(A))
        else:
            like = self.statistic[unseen] if unseen.any() else self.statistic
            more = np.full(len(A), np.median(like), np.float32)
        return replace(self, statistic=np.concatenate([self.statistic, more]))

    def take(self, columns: Sequence[int]) -> Correction:
        """The correction of some of its classes."""
        return self if self.kind == "none" else replace(self, statistic=self.statistic[list(columns)])

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What JSON holds and what safetensors hold, from which `from_state` makes the same correction."""
        about = {"kind": self.kind, "settings": self.settings}
        arrays = {"statistic": self.statistic}
        if self.bank is None:
            return about, arrays
        mapper, own = self.bank.state()
        return {**about, "bank": mapper}, {**arrays, **under("bank", own)}

    @classmethod
    def from_state(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Correction:
        """Raises DataError for a kind or settings that there are not."""
        _check(about["kind"], about["settings"])
        bank = Bank.from_state(about["bank"], below("bank", arrays)) if "bank" in about else None
        return cls(about["kind"], about["settings"], arrays["statistic"], bank)


def fit(kind: str, settings: dict[str, Any], bank: np.ndarray) -> Correction:
    """The correction by a bank's cosines (b, C) with all classes that will compete.

    Neighbourhoods larger than the bank, or than the classes, take what there is. Raises DataError for an
    unknown kind or settings, and for an empty bank.
    """
    _check(kind, settings)
    if kind == "none":
        return Correction()
    bank = np.asarray(bank, np.float32)
    if bank.ndim != 2 or not len(bank):
        raise DataError(
            "a hub correction needs held-out pictures of seen classes: raise prepare.validation_share, or set "
            "train.hubs=none"
        )
    return Correction(kind, dict(settings), _statistic(kind, settings, bank))


def fit_on(kind: str, settings: dict[str, Any], bank: Bank, A: np.ndarray) -> Correction:
    """The correction by a bank of the classes of vectors A (C, k), which keeps the bank; raises as `fit` does."""
    return replace(fit(kind, settings, bank.cosines(A)), bank=bank)


def _statistic(kind: str, settings: dict[str, Any], bank: np.ndarray) -> np.ndarray:
    """(C,) float32: what a bank's cosines (b, C) say of each class for itself."""
    if kind == "inverted_softmax":
        statistic = _log_mean_exp(bank, settings["temperature"])
    elif kind == "local_scaling":
        statistic = _scale(bank.T, settings["k"])
    else:
        statistic = _near(bank.T, settings["k"])
    return statistic.astype(np.float32)


def _check(kind: str, settings: dict[str, Any]) -> None:
    if kind not in GRIDS:
        raise DataError(f"no hub correction {kind}: expected one of {', '.join(KINDS)}")
    expected = set(GRIDS[kind][0])
    if set(settings) != expected:
        raise DataError(f"{kind} takes {', '.join(sorted(expected)) or 'no settings'}, not {settings}")
    if not all(isinstance(value, int | float) and value > 0 for value in settings.values()):
        raise DataError(f"the settings of {kind} must be above 0: {settings}")


def _near(rows: np.ndarray, k: int) -> np.ndarray:
    """(n,) mean of the k highest of each row."""
    k = min(int(k), rows.shape[1])
    return np.partition(rows, -k, axis=1)[:, -k:].mean(axis=1)


def _scale(rows: np.ndarray, k: int) -> np.ndarray:
    """(n,) distance of the k-th nearest of each row of cosines, never 0."""
    k = min(int(k), rows.shape[1])
    nearest = np.partition(rows, -k, axis=1)[:, -k]
    return np.sqrt(np.maximum(_squared_distances(nearest), np.float32(1e-6)))


def _squared_distances(cosines: np.ndarray) -> np.ndarray:
    return np.maximum(2 - 2 * cosines, 0)


def _log_mean_exp(bank: np.ndarray, temperature: float) -> np.ndarray:
    logits = bank.astype(np.float64) / temperature
    top = logits.max(axis=0)
    return temperature * (top + np.log(np.exp(logits - top).mean(axis=0)))
