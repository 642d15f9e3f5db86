"""Several mappers as one, whose cosine is the weighted mean of theirs."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.mapping.base import Mapper, Settings, check_classes, check_images, check_training, unit
from ayeaye.mapping.drop_last import DropLast
from ayeaye.mapping.eszsl import Eszsl
from ayeaye.mapping.prototype import Prototype
from ayeaye.mapping.rank import Rank
from ayeaye.mapping.ridge import Ridge
from ayeaye.mapping.sae import Sae

MEMBERS: dict[str, type[Mapper]] = {
    mapper.name: mapper for mapper in (DropLast, Eszsl, Prototype, Rank, Ridge, Sae)
}
SAMPLE = 2000  # training images on which the spread of a member's scores is measured

ESZSL = {"mapper": "eszsl", "settings": {"alpha": 5.0, "gamma": -0.5, "space": "images"}}
GAUSSIAN = {"mapper": "ridge", "settings": {"kernel": "gaussian", "penalty": 0.3, "shrinkage": 1.0}}
QUADRATIC = {"mapper": "ridge", "settings": {"kernel": "quadratic", "penalty": 0.3, "shrinkage": 1.0}}
PROTOTYPE = {"mapper": "prototype"}
ALE = {"mapper": "rank", "settings": {"loss": "ale"}}


class Blend(Mapper):
    """A weighted mean of members' cosines, each in units of the spread of its own training scores.

    `members` is a list of {mapper, settings, weight}. Rows of both towers are the members' unit rows times
    √(weight / spread), side by side: all rows are equally long, so their cosine is the mean. The spread is the
    mean over training images of the standard deviation over seen classes. Mappers that err differently do
    better together than each of them (Kuncheva 2004).
    """

    name: ClassVar[str] = "blend"

    @classmethod
    def defaults(cls) -> Settings:
        return {"members": [ESZSL, QUADRATIC]}

    @classmethod
    def grid(cls) -> list[Settings]:
        blends = (
            [ESZSL, GAUSSIAN],
            [ESZSL, QUADRATIC],
            [QUADRATIC, PROTOTYPE],
            [QUADRATIC, PROTOTYPE, ALE],
        )
        return [{"members": members} for members in blends]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        members = self.settings["members"]
        if not members:
            raise TypeError("blend has no members: give at least one member {mapper, settings, weight}")
        self.members_ = [_create(member) for member in members]
        self.weights_ = np.array([float(member.get("weight", 1)) for member in members])

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        sample = X[:: -(-len(X) // SAMPLE)]
        spreads = []
        for member in self.members_:
            member.fit(X, y, A, seed=seed, device=device)
            scores = unit(member.map_images(sample)) @ unit(member.map_classes(A[present])).T
            spreads.append(max(float(scores.std(axis=1).mean()), 1e-6))
        self.factors_ = np.sqrt(self.weights_ / spreads).astype(np.float32)
        return self

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X)
        return self._side_by_side([member.map_images(X) for member in self.members_])

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A)
        return self._side_by_side([member.map_classes(A) for member in self.members_])

    def state(self) -> dict[str, np.ndarray]:
        nested = {
            f"{number}/{key}": array
            for number, member in enumerate(self.members_)
            for key, array in member.state().items()
        }
        return {"factors": self.factors_, **nested}

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        mapper = cls(**settings)
        mapper.factors_ = state["factors"]
        for number, member in enumerate(mapper.members_):
            prefix = f"{number}/"
            own = {key.removeprefix(prefix): a for key, a in state.items() if key.startswith(prefix)}
            mapper.members_[number] = type(member).from_state(member.settings, own)
        return mapper

    def _side_by_side(self, towers: list[np.ndarray]) -> np.ndarray:
        return np.hstack([unit(rows) * factor for rows, factor in zip(towers, self.factors_, strict=True)])


def _create(member: Settings) -> Mapper:
    unknown = sorted(set(member) - {"mapper", "settings", "weight"})
    if unknown or member.get("mapper") not in MEMBERS:
        raise TypeError(
            f"a member of a blend is {{mapper, settings, weight}} with one of {', '.join(MEMBERS)}, not {member}"
        )
    if not float(member.get("weight", 1)) > 0:
        raise TypeError(f"{member['mapper']} has weight {member['weight']} in a blend: expected above 0")
    return MEMBERS[member["mapper"]](**member.get("settings", {}))
