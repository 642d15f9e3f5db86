"""Several mappers as one, whose cosine is the weighted mean of theirs."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ayeaye.core.array_namespaces import below, under
from ayeaye.core.unit_vectors import unit_gradients
from ayeaye.mappers.base import Mapper, Settings, check_classes, check_images, check_training, unit
from ayeaye.mappers.drop_last import DropLast
from ayeaye.mappers.eszsl import Eszsl
from ayeaye.mappers.prototype import Prototype
from ayeaye.mappers.rank import Rank
from ayeaye.mappers.ridge import Ridge
from ayeaye.mappers.sae import Sae

MEMBERS: dict[str, type[Mapper]] = {
    mapper.name: mapper for mapper in (DropLast, Eszsl, Prototype, Rank, Ridge, Sae)
}
SAMPLE = 2000  # training images on which the spread of a member's scores is measured


class Blend(Mapper):
    """A weighted mean of members' cosines, each in units of the spread of its own training scores.

    `members` is a list of {mapper, settings, weight, columns}; a member with `columns` [first, last) sees only
    those of the class vectors, such as one source of several. Rows of both towers are the members' unit rows times
    √(weight / spread), side by side: all rows are equally long, so their cosine is the mean. The spread is the
    mean over training images of the standard deviation over seen classes. Mappers that err differently do
    better together than each of them (Kuncheva 2004).
    """

    name: ClassVar[str] = "blend"

    @classmethod
    def defaults(cls) -> Settings:
        return {"members": [{"mapper": "ridge"}, {"mapper": "eszsl"}]}

    @classmethod
    def grid(cls) -> list[Settings]:
        return [cls.defaults()]  # what to blend is chosen member by member

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        members = self.settings["members"]
        if not members:
            raise TypeError(
                "blend has no members: give at least one member {mapper, settings, weight, columns}"
            )
        self.members_ = [_create(member) for member in members]
        self.weights_ = np.array([float(member.get("weight", 1)) for member in members])
        self.columns_ = [slice(*member.get("columns") or (None,)) for member in members]

    def fit(self, X: np.ndarray, y: np.ndarray, A: np.ndarray, *, seed: int = 0, device: str = "cpu") -> Self:
        present = check_training(X, y, A)
        sample = X[:: -(-len(X) // SAMPLE)]
        spreads = []
        for member, columns in zip(self.members_, self.columns_, strict=True):
            member.fit(X, y, A[:, columns], seed=seed, device=device)
            scores = unit(member.map_images(sample)) @ unit(member.map_classes(A[present][:, columns])).T
            spreads.append(max(float(scores.std(axis=1).mean()), 1e-6))
        self.factors_ = np.sqrt(self.weights_ / spreads).astype(np.float32)
        return self

    def map_images(self, X: np.ndarray) -> np.ndarray:
        check_images(X)
        return self._side_by_side([member.map_images(X) for member in self.members_])

    def map_classes(self, A: np.ndarray) -> np.ndarray:
        check_classes(A)
        towers = zip(self.members_, self.columns_, strict=True)
        return self._side_by_side([member.map_classes(A[:, columns]) for member, columns in towers])

    def class_gradients(self, A: np.ndarray, G: np.ndarray) -> np.ndarray:
        gradients, first = np.zeros(A.shape), 0
        for member, columns, factor in zip(self.members_, self.columns_, self.factors_, strict=True):
            mapped = member.map_classes(A[:, columns])
            last = first + mapped.shape[1]
            own = unit_gradients(mapped, factor * G[:, first:last])
            gradients[:, columns] += member.class_gradients(A[:, columns], own)
            first = last
        return gradients

    def state(self) -> dict[str, np.ndarray]:
        state = {"factors": self.factors_}
        for number, member in enumerate(self.members_):
            state |= under(str(number), member.state())
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> Self:
        mapper = cls(**settings)
        mapper.factors_ = state["factors"]
        for number, member in enumerate(mapper.members_):
            own = below(str(number), state)
            mapper.members_[number] = type(member).from_state(member.settings, own)
        return mapper

    def _side_by_side(self, towers: list[np.ndarray]) -> np.ndarray:
        return np.hstack([unit(rows) * factor for rows, factor in zip(towers, self.factors_, strict=True)])


def _create(member: Settings) -> Mapper:
    unknown = sorted(set(member) - {"mapper", "settings", "weight", "columns"})
    if unknown or member.get("mapper") not in MEMBERS:
        raise TypeError(
            "a member of a blend is {mapper, settings, weight, columns} with one of "
            f"{', '.join(MEMBERS)}, not {member}"
        )
    if not float(member.get("weight", 1)) > 0:
        raise TypeError(f"{member['mapper']} has weight {member['weight']} in a blend: expected above 0")
    return MEMBERS[member["mapper"]](**member.get("settings", {}))
