"""Backbones: torchvision classification networks with their heads removed, and what they see."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.backbones import checkpoints, engines
from ayeaye.backbones.engines import TORCH, Engine, Runner
from ayeaye.backbones.vision import torchvision
from ayeaye.core.errors import BackboneError, BundleError
from ayeaye.core.files import replacing, write_atomic
from ayeaye.core.unicode_checks import near
from ayeaye.data.decode import Limits, decode

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_OUTPUTS = (1000, 1001)  # with 1001 the first one is the background
_LONGEST = 16  # times its shorter side: what is beyond of a longer picture is cropped before it is resized
TRAINED_HERE, CHECKPOINT = "trained here", "checkpoint"  # how an origin begins

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transform:
    """From an upright RGB picture to the network's input: resize, centre crop, scale to 0–1, normalise."""

    resize: int
    crop: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def preset(self) -> Callable[[Image.Image], np.ndarray]:
        """To the input (3, crop, crop) float32: what torchvision's ImageClassification gives, but for rounding.

        The arithmetic is NumPy's, in the thread that calls: torch would spread each of these small steps over
        threads of its own, in every thread that decodes. And torch and torchvision, which take seconds and some
        hundred MB to import, are not needed where another engine runs the network.
        """
        from PIL import Image

        filter = Image.Resampling[self.interpolation.partition("-")[0].upper()]
        mean, std = (np.array(value)[:, None, None] for value in (self.mean, self.std))
        scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

        def prepare(image: Image.Image) -> np.ndarray:
            image = _middle(image)
            width, height = image.size
            short = min(width, height)
            size = (int(self.resize * width / short), int(self.resize * height / short))
            image = image.resize(size, filter)
            left, top = (round((side - self.crop) / 2) for side in size)
            # Beyond the edges it is black.
            image = image.crop((left, top, left + self.crop, top + self.crop))
            inputs = np.multiply(np.asarray(image).transpose(2, 0, 1), scale, dtype=np.float32, order="C")
            inputs += shift
            return inputs

        return prepare

    def reader(self, limits: Limits) -> Callable[[bytes], np.ndarray]:
        """From encoded pictures to inputs as `preset` gives them; raises PictureError."""
        prepare = self.preset()
        return lambda content: prepare(decode(content, limits, target=self.resize))


def _middle(image: Image.Image) -> Image.Image:
    """All of a picture of an ordinary shape; of a longer one what holds the crop, so that resizing costs no more."""
    width, height = image.size
    most = _LONGEST * min(width, height)
    left, top = (max(0, (side - most) // 2) for side in (width, height))
    return image.crop((left, top, width - left, height - top)) if left or top else image


@dataclass(frozen=True)
class Backbone:
    """A headless network with its transform, and the engine that runs it.

    `origin` says where the weights come from. It is part of a bundle's identity, so it names no file. `engine` is
    what the embeddings are made with, here and where they are compared with: it is part of the digest. `graph` is
    the network as the engines other than torch read it. `made` gives torch's network when that is asked for:
    where another engine runs, torch need not even be imported.
    """

    name: str
    origin: str
    transform: Transform
    made: Callable[[], torch.nn.Module]
    width: int
    digest: str
    classes: tuple[str, ...] = ()  # pretraining classes, where they are known or assumed
    engine: Engine = TORCH
    graph: bytes | None = None
    device: str = "cpu"
    weights: Path | None = None  # the file that it was loaded from
    taken: str = ""  # what of a checkpoint was read as the network

    @cached_property
    def network(self) -> torch.nn.Module:
        """Ready to run on `device`."""
        return _ready(self.made(), self.device)

    @property
    def trained_here(self) -> bool:
        """Whether the weights were trained on seen classes of the dataset, and on nothing else."""
        return self.origin.startswith(TRAINED_HERE)

    def to(self, device: str) -> Backbone:
        return replace(self, device=device)

    def with_engine(self, engine: Engine, graph: bytes) -> Backbone:
        """This network, so far run by torch, run by an engine; `graph` is its export."""
        if engine == TORCH:
            return self
        return replace(self, engine=engine, graph=graph, digest=_digest_with(self.digest, engine))

    @property
    def running(self) -> Engine:
        """What runs the network in this process: `engine`, or what stands in for it here."""
        return self._started[0]

    @property
    def fallback(self) -> str | None:
        """Why another engine is running than the backbone was made with; None where it is the same."""
        return self._started[2]

    @cached_property
    def _started(self) -> tuple[Engine, Runner, str | None]:
        if self.device != "cpu":
            reason = f"on {self.device} torch runs" if self.engine != TORCH else None
            return TORCH, engines.runner_of_torch(self.network), reason
        running, runner, reason = engines.start_or_less(self.engine, self.graph)
        if reason:
            _log.warning("%s runs instead of %s: %s", running, self.engine, reason)
        return running, runner or engines.runner_of_torch(self.network), reason

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embeddings (n, width) float32 of upright RGB pictures."""
        preset = self.transform.preset()
        return self.forward(np.stack([preset(image) for image in images]))

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Embeddings (n, width) float32 of transformed inputs (n, 3, h, w) float32."""
        return self._started[1](inputs)

    def save(self, folder: Path) -> None:
        """Write backbone.json, backbone.safetensors and, for engines other than torch, backbone.onnx."""
        if self.weights is not None:
            with replacing(folder / "backbone.safetensors") as part:
                shutil.copyfile(self.weights, part)
        else:
            self._save_weights(folder / "backbone.safetensors")
        (folder / "backbone.onnx").unlink(missing_ok=True)
        description: dict[str, Any] = {
            "name": self.name,
            "origin": self.origin,
            "transform": asdict(self.transform),
            "width": self.width,
            "digest": self.digest,
            "classes": self.classes,
        }
        if self.graph is not None:
            write_atomic(folder / "backbone.onnx", self.graph)
            description |= {"engine": self.engine.name, "precision": self.engine.precision}
            description |= {"graph": hashlib.sha256(self.graph).hexdigest()}
        write_atomic(folder / "backbone.json", json.dumps(description, indent=1).encode())

    def _save_weights(self, path: Path) -> None:
        import torch
        from safetensors.torch import save_file

        # Weights that were published in half precision are kept so, at half the size and without loss.
        state = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        floats = [value for value in state.values() if value.is_floating_point()]
        if all(torch.equal(value.half().float(), value) for value in floats):
            state = {
                key: value.half() if value.is_floating_point() else value for key, value in state.items()
            }
        with replacing(path) as part:
            save_file(state, part)


def load(folder: Path, device: str = "cpu") -> Backbone:
    """Read what `Backbone.save` wrote; raises BundleError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        described = json.loads((folder / "backbone.json").read_bytes())
        state = {
            key: value.astype(np.float32) if value.dtype.kind == "f" else value
            for key, value in load_file(folder / "backbone.safetensors").items()
        }
        transform = {key: _tupled(value) for key, value in described["transform"].items()}
        found = Backbone(
            described["name"],
            described["origin"],
            Transform(**transform),
            lambda: _filled(described["name"], state),
            described["width"],
            described["digest"],
            tuple(described["classes"]),
            *_engine(folder, described),
            device,
            folder / "backbone.safetensors",
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BundleError(
            f"the backbone in {folder} is damaged ({error}): make it again with `ayeaye embed`"
        ) from None
    if _digest_with(_digest(found.name, found.transform, state), found.engine) != found.digest:
        raise BundleError(
            f"the backbone in {folder} does not match its digest: make it again with `ayeaye embed`"
        )
    return found


def pretrained(
    name: str,
    weights: str,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | None = None,
    device: str = "cpu",
    resolve: Callable[[str], Path] = Path,
) -> Backbone:
    """A backbone with given weights: a checkpoint file (see `checkpoints.fill`, any number of classes) or a name of
    torchvision's own enum for this network. mean and std are one number or three.

    A checkpoint of as many classes as ImageNet-1k has is taken to be of these. Raises BackboneError for an
    unknown network, weights that do not fit or that cannot be had here.
    """
    check_name(name)
    default = default_transform(name)
    path = resolve(weights)
    categories: tuple[str, ...] = ()
    if path.is_file():
        state, origin = checkpoints.read(path), CHECKPOINT
    else:
        enum = _weights_enum(name, weights)
        state = _fetch(enum)
        default = _of_preset(enum.transforms())
        categories = tuple(enum.meta.get("categories", ()))
        origin = f"torchvision {enum}"
    network = build(name, classes=1000)
    head = _head(network)[0]
    headless(network)
    reading = checkpoints.fill(network, head, state, name, path.name if path.is_file() else weights)
    if not categories and checkpoints.outputs(reading, head) in IMAGENET_OUTPUTS:
        categories = imagenet_categories()
    _log.info("%s: %s is taken for %s", weights, reading, name)
    transform = adjust(default, mean, std, size)
    return replace(describe(name, origin, network, transform, device, categories), taken=str(reading))


def imagenet_categories() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k as torchvision names them: the first name of each alone."""
    return tuple(torchvision().models.get_model_weights("resnet18").DEFAULT.meta["categories"])


def assemble(
    name: str,
    origin: str,
    network: torch.nn.Module,
    transform: Transform,
    device: str = "cpu",
    classes: tuple[str, ...] = (),
) -> Backbone:
    """Take the head off a classification network and describe what is left."""
    headless(network)
    return describe(name, origin, network, transform, device, classes)


def describe(
    name: str,
    origin: str,
    network: torch.nn.Module,
    transform: Transform,
    device: str = "cpu",
    classes: tuple[str, ...] = (),
) -> Backbone:
    """A network without a head as a backbone."""
    import torch

    network = _ready(network, device)
    state = {key: value.detach().cpu().contiguous().numpy() for key, value in network.state_dict().items()}
    digest = _digest(name, transform, state)
    sample = torch.zeros(1, 3, transform.crop, transform.crop, device=device)
    try:
        with torch.inference_mode():
            width = int(network(sample).flatten(1).shape[1])
    except (RuntimeError, AssertionError) as error:  # of a network that wants one size alone
        reason = str(error).strip().partition("\n")[0]
        raise BackboneError(
            f"{name} cannot take pictures of {transform.crop} px ({reason}): set embed.size to what it expects"
        ) from None
    return Backbone(name, origin, transform, lambda: network, width, digest, classes, device=device)


def build(name: str, classes: int) -> torch.nn.Module:
    """An untrained torchvision classification network; raises BackboneError with the nearest known name."""
    check_name(name)
    options: dict[str, Any] = {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    return torchvision().models.get_model(name, weights=None, **options)


def check_name(name: str) -> None:
    """Raises BackboneError, with the nearest known name, for a network that torchvision does not have."""
    models = torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        alike = near(name, known, 1)
        hint = f"did you mean {alike[0]}?" if alike else "see torchvision's list of classification models"
        raise BackboneError(f"embed.backbone is {name}: torchvision has no such classification model; {hint}")


def headless(network: torch.nn.Module) -> torch.nn.Module:
    """Replace the classification layer, in place; returns the layer that was there."""
    import torch

    path, head = _head(network)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, torch.nn.Identity())
    return head


def device_of(wanted: str, knob: str = "device") -> str:
    """`auto` is CUDA where there is one; asking for CUDA where there is none is an error."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"{knob} is cuda, but torch sees no CUDA device here: use auto or cpu")
    return wanted


def adjust(
    transform: Transform,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    size: int | None,
) -> Transform:
    """A transform with some of its values replaced; a new size keeps the ratio of resize to crop."""
    changes: dict[str, Any] = {}
    for key, value in (("mean", mean), ("std", std)):
        if value is not None:
            three = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
            if len(three) != 3 or (key == "std" and min(three) <= 0):
                raise BackboneError(f"embed.{key} is {value}: expected one number or three, std above 0")
            changes[key] = three
    if size is not None:
        changes |= {"crop": size, "resize": round(size * transform.resize / transform.crop)}
    return replace(transform, **changes)


def _head(network: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    """The classification layer and its path: the last linear one, or in SqueezeNet the last convolution."""
    import torch

    kinds: tuple[type[torch.nn.Module], ...] = (torch.nn.Linear,)
    if not any(isinstance(layer, kinds) for layer in network.modules()):
        kinds = (torch.nn.Conv2d,)
    return [(path, layer) for path, layer in network.named_modules() if isinstance(layer, kinds)][-1]


def _filled(name: str, state: Mapping[str, np.ndarray]) -> torch.nn.Module:
    """A headless network with these weights."""
    import torch

    network = build(name, classes=1000)
    headless(network)
    checkpoints.strictly(network, {key: torch.from_numpy(value) for key, value in state.items()})
    return network


def _ready(network: torch.nn.Module, device: str) -> torch.nn.Module:
    import torch

    network = network.eval().requires_grad_(False).float()
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _digest(name: str, transform: Transform, state: Mapping[str, np.ndarray]) -> str:
    whole = hashlib.sha256(json.dumps([name, asdict(transform)]).encode())
    for key, array in sorted(state.items()):
        whole.update(f"{key} {array.dtype} {array.shape}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def _digest_with(digest: str, engine: Engine) -> str:
    """torch in full precision, which was all there was, adds nothing."""
    return digest if engine == TORCH else hashlib.sha256(f"{digest} {engine}".encode()).hexdigest()


def _engine(folder: Path, described: Mapping[str, Any]) -> tuple[Engine, bytes | None]:
    """The engine a saved backbone names, and its graph; raises ValueError where that is another one."""
    if "engine" not in described:
        return TORCH, None
    graph = (folder / "backbone.onnx").read_bytes()
    if hashlib.sha256(graph).hexdigest() != described["graph"]:
        raise ValueError("backbone.onnx is not the graph that was saved")
    return Engine(described["engine"], described["precision"]), graph


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _of_preset(preset: Any) -> Transform:
    return Transform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def default_transform(name: str) -> Transform:
    try:
        return _of_preset(torchvision().models.get_model_weights(name).DEFAULT.transforms())
    except (ValueError, AttributeError):
        return Transform(resize=256, crop=224)


def _weights_enum(name: str, weights: str) -> Any:
    enum = torchvision().models.get_model_weights(name)
    known = sorted({*enum.__members__, "DEFAULT"})
    key = weights.rpartition(".")[2]
    if key not in known:
        raise BackboneError(
            f"embed.weights is {weights}: neither a checkpoint file nor weights of {name} ({', '.join(known)}); "
            "or `train`"
        )
    return enum[key] if key in enum.__members__ else enum.DEFAULT


def _fetch(enum: Any) -> dict[str, torch.Tensor]:
    """Weights from torch's own cache, else downloaded, since naming them is asking for them."""
    from urllib.error import URLError

    try:
        return enum.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise BackboneError(
            f"the weights {enum} cannot be downloaded ({reason}): fetch {enum.url} elsewhere "
            "and set embed.weights to that file"
        ) from None
