"""Checkpoints as people have them: the reading of a file under which its tensors are those of a network."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ayeaye.core import contents
from ayeaye.core.errors import BackboneError, listed

if TYPE_CHECKING:
    import torch

_DEEP = 4  # mappings within mappings
_NAMED = 3  # keys of a kind in a message
# torchvision's own DenseNets are published under names that modules cannot have any more.
_OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_ONNX = re.compile(rb"\x08[\x01-\x1f]\x12")  # its version, and what wrote it
_AVERAGE = re.compile(r"(?:^|[._])ema(?:[._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """A state dict in a checkpoint: where it lies, and its tensors by name without the prefix they have there."""

    place: str
    prefix: str
    state: dict[str, torch.Tensor]

    def __str__(self) -> str:
        return (f"`{self.place}`" if self.place else "the file as a state dict") + (
            f" without the prefix `{self.prefix}`" if self.prefix else ""
        )

    @property
    def averaged(self) -> bool:
        """Whether it is the moving average that some trainings keep beside the weights."""
        return bool(_AVERAGE.search(f"{self.place}.{self.prefix}"))


@dataclass(frozen=True)
class Misfit:
    """What keeps a reading from being a network's: names without tensors, of another shape, and of no module."""

    missing: list[str]
    shapes: list[str]
    strange: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.shapes or self.strange)

    def __str__(self) -> str:
        kinds = (
            ("missing", self.missing),
            ("of another shape", self.shapes),
            ("that the network does not have", self.strange),
        )
        return "; ".join(f"{len(keys)} {what}: {listed(keys, _NAMED)}" for what, keys in kinds if keys)


def read(path: Path) -> Mapping[str, Any]:
    """What a file of torch or safetensors holds, tensors and plain values alone; raises BackboneError."""
    import torch
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            # The header of safetensors is JSON behind its length.
            if file.read(9)[8:] == b"{":
                return load_file(path)
        with torch.serialization.safe_globals(_plain()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    # torch's readers raise a dozen unrelated types on damaged files.
    except Exception as error:
        pickled = _GLOBAL.search(str(error))
        if not pickled and not isinstance(error, OSError) and (known := _told(path, error)):
            raise BackboneError(f"embed.weights {path} is not a readable checkpoint (it {known})") from None
        reason = (
            f"it holds a pickled {pickled[1]}"
            if pickled
            else getattr(error, "strerror", None) or type(error).__name__
        )
        raise BackboneError(
            f"embed.weights {path} is not a readable checkpoint ({reason}): expected tensors and plain values, "
            "or safetensors; where you trust the file, save `model.state_dict()` alone with torch.save"
        ) from None
    if not isinstance(found, Mapping):
        raise BackboneError(f"embed.weights {path} holds no state dict: save `model.state_dict()`")
    return found


def _told(path: Path, error: Exception) -> str | None:
    """What a file is that neither torch nor safetensors could read, and what to do; None where nothing tells."""
    with path.open("rb") as file:
        head = file.read(contents.HEAD)
    if known := contents.foreign(head, "zip", "pickle"):
        return known
    if head.startswith(b"{"):
        return "is JSON, such as an index of several files: save the whole network as one .safetensors"
    if "torchscript" in str(error).lower():
        return "is TorchScript: open it with torch.jit.load, and save its state_dict() with torch.save"
    if _ONNX.match(head):
        return "is ONNX: name the checkpoint that it was exported from"
    zipped = head.startswith(b"PK\x03\x04")
    ended = isinstance(error, EOFError) or "unexpected EOF" in str(error) or "truncated" in str(error)
    if head[8:9] == b"{" or ended or (zipped and not zipfile.is_zipfile(path)):
        return "is cut off or damaged: fetch it again"
    return None


def fill(
    network: torch.nn.Module, head: str, checkpoint: Mapping[str, Any], name: str, weights: str
) -> Reading:
    """Load the one reading of a checkpoint that fits a network without its head, which was at `head`.

    It fits where every tensor of the network is there in its shape. What is left over may be heads and counters
    alone: a deeper network of the same kind has all the tensors of a shallower one. Of weights and their moving
    average the weights are taken. Raises BackboneError where none fits, with what is wrong with the nearest one,
    where several do, and where numbers of it are not finite.
    """
    found = readings(checkpoint, set(network.state_dict()))
    misfits = [(reading, _load(network, head, reading.state)) for reading in found]
    fitting = _different([reading for reading, misfit in misfits if not misfit])
    if not fitting:
        reason = f"nearest is {misfits[0][0]}: {misfits[0][1]}" if misfits else "no name of it is in the file"
        raise BackboneError(
            f"embed.weights {weights} does not fit {name}: {reason}; "
            "check that embed.backbone is the network that the checkpoint was made for"
        )
    plain = [reading for reading in fitting if not reading.averaged] if len(fitting) > 1 else fitting
    if len(plain) != 1:
        raise BackboneError(
            f"embed.weights {weights} holds several networks that fit {name}: "
            f"{listed([str(reading) for reading in fitting])}; save the one that is meant by itself"
        )
    _load(network, head, plain[0].state)
    broken = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise BackboneError(
            f"embed.weights {weights} holds NaN or infinite numbers in {len(broken)} tensors "
            f"({listed(broken, _NAMED)}), as a training does that diverged: use an earlier checkpoint"
        )
    return plain[0]


def readings(checkpoint: Mapping[str, Any], wanted: set[str]) -> list[Reading]:
    """Every way to read a checkpoint that gives at least half of the wanted names of the best; the best first."""
    counted = []
    for place, state in _states(checkpoint):
        prefixes = Counter(prefix for key in state for prefix in _prefixes(key, wanted))
        counted += [(count, place, prefix, state) for prefix, count in prefixes.items()]
    counted.sort(key=lambda each: -each[0])
    return [
        Reading(place, prefix, {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)})
        for count, place, prefix, state in counted
        if 2 * count >= counted[0][0]
    ]


def outputs(reading: Reading, head: str) -> int | None:
    """How many classes the network had before its head, at `head`, was taken off; None where that is not there."""
    ends = [
        value
        for key, value in reading.state.items()
        if key.startswith(f"{head}.") or key.partition(".")[0] == head.partition(".")[0]
        if key.endswith("weight") and value.ndim > 1
    ]
    return len(reading.state.get(f"{head}.weight", ends[-1])) if ends else None


def strictly(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict that is the network's own; raises RuntimeError where it does not fit."""
    network.load_state_dict(_versioned(network, state))


def _states(
    found: Mapping[Any, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tensors by name of every mapping in a checkpoint, with where it lies."""
    import torch

    state = {
        _OLD.sub(r"\1\2", key): value
        for key, value in found.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    if state:
        yield place, state
    for key, value in found.items():
        if isinstance(value, Mapping) and depth < _DEEP:
            yield from _states(value, f"{place}.{key}".strip("."), depth + 1)


def _prefixes(key: str, wanted: set[str]) -> Iterator[str]:
    """What may stand before a wanted name in a key: whole parts of it."""
    ends = [0, *(found.end() for found in re.finditer(r"\.", key))]
    return (key[:end] for end in ends if key[end:] in wanted)


def _load(network: torch.nn.Module, head: str, state: Mapping[str, torch.Tensor]) -> Misfit:
    """Load what fits; torch renames what it published under other names once."""
    own = network.state_dict()
    shapes = [
        f"{key} ({_shape(value)}, not {_shape(own[key])})"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    kept = {
        key: value.float() for key, value in state.items() if key not in own or value.shape == own[key].shape
    }
    try:
        left = network.load_state_dict(_versioned(network, kept), strict=False)
    except (RuntimeError, ValueError) as error:
        return Misfit([], [*shapes, str(error).splitlines()[-1].strip()], [])
    modules = {key.partition(".")[0] for key in own} - {head.partition(".")[0]}
    return Misfit(
        [key for key in left.missing_keys if key not in state and not key.endswith("num_batches_tracked")],
        shapes,
        [key for key in left.unexpected_keys if key.partition(".")[0] in modules and state[key].numel() > 1],
    )


def _versioned(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    versioned = OrderedDict(state)
    # MNASNet takes no state that does not say its version, which neither safetensors nor a plain dict does.
    versioned._metadata = {"": network.state_dict()._metadata[""]}  # type: ignore[attr-defined]
    return versioned


def _different(found: list[Reading]) -> list[Reading]:
    """Readings without those that hold the same tensors as one before."""
    import torch

    kept: list[Reading] = []
    for reading in found:
        if not any(
            reading.state.keys() == other.state.keys()
            and all(torch.equal(value, other.state[key]) for key, value in reading.state.items())
            for other in kept
        ):
            kept.append(reading)
    return kept


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _plain() -> list[Any]:
    """What trainings keep beside the tensors that is no more than values: arguments, NumPy's numbers."""
    import numpy as np

    scalar: Any = np.float64().__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    return [argparse.Namespace, np.dtype, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
