"""Training of a small backbone from scratch, on the pictures of seen classes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.core.errors import DataError

if TYPE_CHECKING:
    import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
RATE = 3e-3
DECAY = 0.05
SMOOTHING = 0.1
SHIFT = 1 / 12  # of the side, by which a crop may move
BRIGHTNESS = 0.2


def train_backbone(
    network: torch.nn.Module,
    images: torch.Tensor | np.ndarray,
    y: torch.Tensor | np.ndarray,
    epochs: int,
    batch: int = 32,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> torch.nn.Module:
    """Train a classification network in place and return it in evaluation mode.

    images: (n, 3, s, s) uint8, already of the network's input size; they are scaled to 0–1 and normalised
    with mean and std here. y: (n,) integers below the network's number of outputs. Cross-entropy with label
    smoothing (Szegedy et al., 2016), AdamW and the one-cycle schedule (Smith, 2018); moved crops, flips and
    brightness are the augmentation. The initial weights are the caller's; given these, a seed repeats the
    training exactly on one CPU with the same number of threads. `progress(done, total)` follows each epoch.

    Raises DataError for a single class, a shape that does not fit, or a loss that is not finite.
    """
    import torch

    images, y = torch.as_tensor(images), torch.as_tensor(y).long()
    _check(images, y)
    halved = _takes_bfloat16(device)
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, len(images) // batch)
    # Too few pictures for one batch still train, all at once.
    batch = min(batch, len(images))
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(_groups(network), lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=RATE,
        total_steps=max(5, epochs * steps),  # with four of them it divides by zero
        pct_start=0.25,
        div_factor=10,
        final_div_factor=100,
    )
    centre, spread = (torch.tensor(value, device=device).view(1, 3, 1, 1) * 255 for value in (mean, std))
    with reproducible(seed, device):  # dropout, where the network has any
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator)[: steps * batch].view(steps, batch)
            for rows in order:
                inputs, gain = _augmented(images[rows], generator)
                inputs = (inputs.to(device).float() * gain.to(device) - centre) / spread
                with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=halved):
                    logits = _logits(network(inputs.contiguous(memory_format=torch.channels_last)))
                loss = torch.nn.functional.cross_entropy(
                    logits.float(), y[rows].to(device), label_smoothing=SMOOTHING
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
            if not torch.isfinite(loss):
                raise DataError(
                    f"the loss is {loss.item()} after epoch {epoch + 1}: check the pictures and labels"
                )
            if progress:
                progress(epoch + 1, epochs)
    return network.eval()


@contextmanager
def reproducible(seed: int, device: str) -> Iterator[None]:
    """torch's random numbers from `seed`, and no denormals; afterwards both are as they were.

    Numbers too small for a full mantissa count as zero: vanishing activations make a CPU three times slower.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_flush_denormal(False)  # or NumPy would lose its denormals, too, from here on


def _check(images: torch.Tensor, y: torch.Tensor) -> None:
    import torch

    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise DataError(f"images are {tuple(images.shape)} {images.dtype}: expected (n, 3, s, s) uint8")
    if y.shape != (len(images),):
        raise DataError(f"{len(images)} images have labels of shape {tuple(y.shape)}: expected one each")
    found = len(torch.unique(y))
    if found < 2:
        raise DataError(
            f"the pictures show {found} class: training a backbone takes two or more seen classes"
        )


def _groups(network: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, not for biases and normalisation."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": DECAY},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def _augmented(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (b, 3, s, s) moved by up to a twelfth and flipped, and gains (b, 1, 1, 1) of brightness."""
    import torch

    count, _, side, _ = images.shape
    pad = max(1, round(side * SHIFT))
    padded = torch.nn.functional.pad(images.float(), (pad,) * 4, mode="reflect")
    offset = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator)
    rows = offset[:, :1] + torch.arange(side)  # (b, s)
    cols = offset[:, 1:] + torch.arange(side)
    flip = torch.rand(count, generator=generator) < 0.5
    cols = torch.where(flip[:, None], cols.flip(1), cols)
    each = torch.arange(count)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]]  # (b, s, s, 3)
    gain = 1 + BRIGHTNESS * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    return moved.permute(0, 3, 1, 2), gain


def _takes_bfloat16(device: str) -> bool:
    """Whether bfloat16 is native there; emulated it is slower than float32."""
    import torch

    if device != "cpu":
        return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


def _logits(output: Any) -> torch.Tensor:
    """The main output of networks that have auxiliary ones."""
    return output if hasattr(output, "shape") else output.logits
