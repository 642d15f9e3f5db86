"""Arrays by name, one state inside another: `0/weights` is the array `weights` of the part `0`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state of one part."""
    prefix += "/"
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A part's state, as it stands among those of others."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
