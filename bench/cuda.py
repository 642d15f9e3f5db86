"""What a GPU brings, and whether it gives the same: embeddings, backbone training, mappers; prints JSON.

python bench/cuda.py [--pictures 2048] [--side 224] [--rows 7057] [--out FILE]

Pictures are drawn at random and the weights are random: times and errors, no accuracy. Each part runs on the CPU and
on CUDA, one after the other, on the same machine; without a GPU the CPU alone. `relative error` is of the worst
picture, against float32 on the CPU. Mappers are fitted to a planted map as large as CUB's: rows × 4,096 features,
150 seen classes of 312 attributes; `labels` is the share that both give 50 unseen classes alike.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.backbones import backbones, engines, training
from ayeaye.backbones.shards import embed_pictures
from ayeaye.data.decode import Limits
from ayeaye.mappers import MAPPERS

NETWORKS = ("mobilenet_v2", "resnet50")
FITS = {"rank": {"loss": "ale"}, "prototype": {}}
BATCH = 128


def drawn(count: int, side: int, seed: int) -> list[bytes]:
    """JPEG files of smooth noise, a third larger than what the networks see."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((side * 16 // 9, side * 4 // 3), Image.Resampling.BICUBIC).save(
            file, "JPEG", quality=90
        )
        made.append(file.getvalue())
    return made


def timed(work: Callable[[], Any], device: str, repeats: int = 3) -> tuple[float, Any]:
    """Median seconds on CUDA, after a first run that is not counted, of one run on the CPU; and what came of it."""
    import torch

    took, found = [], None
    for _ in range(repeats + 1 if device == "cuda" else 1):
        before = time.perf_counter()
        found = work()
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - before)
    return statistics.median(took[1:] or took), found


def embedding(devices: list[str], count: int, side: int) -> dict[str, Any]:
    import torch

    contents = drawn(count, side, 0)
    result: dict[str, Any] = {}
    for name in NETWORKS:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "random.pth"
            torch.save(backbones.build(name, 10).state_dict(), weights)
            found, reference = {}, None
            for device in devices:
                backbone = backbones.pretrained(name, str(weights), device=device)
                some = contents if device == "cuda" else contents[: count // 4]
                seconds, rows = timed(
                    lambda backbone=backbone, some=some: embed_pictures(
                        backbone, some, batch=BATCH, limits=Limits()
                    ),
                    device,
                )
                ready = np.zeros((BATCH, 3, backbone.transform.crop, backbone.transform.crop), np.float32)
                forward, _ = timed(lambda backbone=backbone, ready=ready: backbone.forward(ready), device)
                found[device] = {
                    "pictures a second": round(len(some) / seconds, 1),
                    "of ready inputs": round(BATCH / forward, 1),
                }
                if reference is None:
                    reference = rows
                else:
                    error = engines.relative_error(rows[: len(reference)], reference)
                    found[device]["relative error"] = float(f"{error:.2g}")
            result[name] = found
    return result


def backbone_training(devices: list[str], count: int, side: int) -> dict[str, Any]:
    """Epochs of ResNet-18 on pictures of ten classes that differ in their mean colour."""
    import torch

    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, count)
    colours = rng.integers(40, 216, (10, 3))
    images = np.clip(colours[y][:, :, None, None] + rng.normal(0, 60, (count, 3, side, side)), 0, 255).astype(
        np.uint8
    )
    result = {}
    for device in devices:
        epochs = 4 if device == "cuda" else 1
        rights, took, states = [], [], []
        for _ in range(2):
            torch.manual_seed(0)
            network = backbones.build("resnet18", 10)
            before = time.perf_counter()
            network = training.train_backbone(network, images, y, epochs, device=device)
            took.append((time.perf_counter() - before) / epochs)
            with torch.inference_mode():
                shown = torch.from_numpy(images[:256]).to(device).float() / 255
                mean, std = (
                    torch.tensor(each, device=device).view(1, 3, 1, 1)
                    for each in (training.MEAN, training.STD)
                )
                logits = network((shown - mean) / std)
            rights.append(float((logits.argmax(1).cpu().numpy() == y[:256]).mean()))
            states.append({key: value.cpu() for key, value in network.state_dict().items()})
        result[device] = {
            "seconds an epoch": round(min(took), 2),
            "epochs": epochs,
            "right on what it learned": round(rights[-1], 3),
            "repeats exactly": all(torch.equal(value, states[1][key]) for key, value in states[0].items()),
        }
    return result


def fits(devices: list[str], rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    A = rng.normal(size=(200, 312)).astype(np.float32)
    A -= A.mean(axis=0)
    map = rng.normal(size=(312, 4096)).astype(np.float32) / 20
    y = np.sort(rng.integers(0, 150, rows))
    X = np.maximum(A[y] @ map + rng.normal(size=(rows, 4096)).astype(np.float32), 0).astype(np.float32)
    truth = np.repeat(np.arange(150, 200), 20)
    test = np.maximum(A[truth] @ map + rng.normal(size=(1000, 4096)).astype(np.float32), 0).astype(np.float32)
    result: dict[str, Any] = {}
    for name, settings in FITS.items():
        found: dict[str, Any] = {}
        labels: dict[str, np.ndarray] = {}
        for device in devices:

            def work(name: str = name, settings: dict[str, Any] = settings, device: str = device) -> Any:
                return MAPPERS[name](**settings).fit(X, y, A, seed=0, device=device)

            seconds, mapper = timed(work, device, repeats=2)
            again = work()
            scores, repeated = (
                each.map_images(test) @ each.map_classes(A[150:]).T for each in (mapper, again)
            )
            labels[device] = scores.argmax(axis=1)
            found[device] = {
                "seconds": round(seconds, 2),
                "T1": round(float((labels[device] + 150 == truth).mean()), 3),
                "repeats exactly": bool(np.array_equal(scores, repeated)),
            }
            if device != devices[0]:
                found[device]["labels"] = round(float((labels[device] == labels[devices[0]]).mean()), 4)
        result[name] = found
    return result


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rows", type=int, default=7057)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    result: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
    }
    for name, part in (
        ("mappers", lambda: fits(devices, chosen.rows)),
        ("embedding", lambda: embedding(devices, chosen.pictures, chosen.side)),
        ("backbone training", lambda: backbone_training(devices, chosen.pictures, chosen.side)),
    ):
        result[name] = part()
        print(json.dumps({name: result[name]}, indent=1), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
