"""Mappers between embeddings and class vectors, by name."""

from __future__ import annotations

from typing import Any

from ayeaye.core.errors import ParamsError
from ayeaye.mappers.base import Mapper
from ayeaye.mappers.blend import MEMBERS, Blend

MAPPERS: dict[str, type[Mapper]] = {**MEMBERS, Blend.name: Blend}
# Tried unless a mapper is named, with settings that are not tuned: in closed form, and each the best on some set.
AUTO: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ridge", {}),
    ("eszsl", {"space": "classes"}),
    ("eszsl", {"space": "images"}),
)

__all__ = ["AUTO", "MAPPERS", "Blend", "Mapper", "create"]


def create(name: str, **settings: Any) -> Mapper:
    """An unfitted mapper; raises ParamsError for a name or a setting that there is not."""
    if name not in MAPPERS:
        raise ParamsError(f"no mapper {name}: expected one of {', '.join(MAPPERS)}")
    try:
        return MAPPERS[name](**settings)
    except TypeError as error:
        raise ParamsError(str(error)) from None
