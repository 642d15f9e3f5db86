"""Pictures a second from encoded bytes to stored embeddings, against a plain loop; prints JSON.

python bench/embedding.py [--data DIR] [--pictures 3240] [--runs 3] [--out FILE]

DIR of --data holds grocery/ and weights/mobilenet_v2_1001.pth; without it the weights are random and the pictures
drawn. Each run embeds the same dataset three times, one after the other, so that whatever else the machine does
meets all alike: a plain loop (Pillow, torchvision's transform, torch in fp32, 32 pictures at a time), the embed
stage's way with the fastest exact engine, and with the engine that `auto` takes. Engines are chosen beforehand and
their cost is given by itself; what they cost to start is in the times. The error is that of the worst picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.backbones import backbones, engines
from ayeaye.backbones.backbones import Backbone
from ayeaye.backbones.engines import relative_error
from ayeaye.backbones.shards import embed_dataset, gather
from ayeaye.backbones.vision import torchvision
from ayeaye.core import params
from ayeaye.core.workspace import Workspace, template
from ayeaye.data.decode import Limits
from ayeaye.data.table import Dataset
from ayeaye.pipeline.engine import with_engine
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32


def dataset_of(data: Path, pictures: int, folder: Path) -> tuple[Workspace, str]:
    """A workspace with a dataset of about so many pictures, and the checkpoint to embed it with."""
    import shutil

    import torch

    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(template(name), folder / name)
    if (data / "grocery").is_dir():
        weights = data / "weights" / "mobilenet_v2_1001.pth"
        settings = [
            "prepare.source=folder",
            f"prepare.path={taken(data / 'grocery', pictures, folder / 'source')}",
        ]
    else:
        torch.manual_seed(0)
        weights = folder / "random.pth"
        torch.save(backbones.build("mobilenet_v2", 10).state_dict(), weights)
        settings = [f"prepare.pictures={max(4, pictures // 120)}"]
    settings += ["embed.backbone=mobilenet_v2", f"embed.weights={weights}", "embed.mean=0.5", "embed.std=0.5"]
    params.assign(folder / "params.yaml", settings)
    workspace = Workspace(folder)
    prepare(workspace, Progress(quiet=True))
    return workspace, str(weights)


def taken(source: Path, pictures: int, folder: Path) -> Path:
    """A source with as many pictures of each class."""
    import shutil

    classes = sorted(path for path in (source / "images").iterdir() if path.is_dir())
    for place in classes:
        (folder / "images" / place.name).mkdir(parents=True)
        for path in sorted(place.iterdir())[: -(-pictures // len(classes))]:
            shutil.copyfile(path, folder / "images" / place.name / path.name)
    shutil.copyfile(source / "classes.csv", folder / "classes.csv")
    return folder


def plain(dataset: Dataset, backbone: Backbone, folder: Path) -> None:
    """What one would write first: decode, transform, stack, run; one after the other."""
    import io

    import torch
    from PIL import Image

    torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    chosen = backbone.transform
    transform = ImageClassification(
        crop_size=chosen.crop,
        resize_size=chosen.resize,
        mean=chosen.mean,
        std=chosen.std,
        interpolation=InterpolationMode(chosen.interpolation),
    )
    for shard in dataset.shards():
        rows: list[np.ndarray] = []
        images: list[torch.Tensor] = []

        def run(images: list[torch.Tensor] = images, rows: list[np.ndarray] = rows) -> None:
            with torch.inference_mode():
                rows.append(backbone.network(torch.stack(images)).flatten(1).numpy())
            images.clear()

        for _, content in dataset.pictures(shard):
            images.append(transform(Image.open(io.BytesIO(content)).convert("RGB")))
            if len(images) == BATCH:
                run()
        if images:
            run()
        np.save(folder / f"{shard}.npy", np.concatenate(rows))


def staged(dataset: Dataset, backbone: Backbone, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        embed_dataset(dataset, backbone, Path(cache), folder, batch=BATCH, limits=Limits())


def measure(data: Path, pictures: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "workspace").mkdir()
        workspace, weights = dataset_of(data, pictures, folder / "workspace")
        dataset = Dataset.load(workspace.dataset)
        torch_backbone = backbones.pretrained("mobilenet_v2", weights, mean=0.5, std=0.5)
        chosen, choosing = {}, {}
        for label, precision in (("exact", "fp32"), ("auto", "auto")):
            params.assign(workspace.root / "params.yaml", [f"embed.precision={precision}"])
            before = time.perf_counter()
            chosen[label] = with_engine(
                Workspace(workspace.root), dataset, torch_backbone, Progress(quiet=True)
            )
            choosing[label] = time.perf_counter() - before
        ways: dict[str, Callable[[Path], None]] = {
            "plain": lambda place: plain(dataset, torch_backbone, place),
            "exact": lambda place: staged(dataset, fresh(chosen["exact"][0]), place),
            "auto": lambda place: staged(dataset, fresh(chosen["auto"][0]), place),
        }
        seconds: dict[str, list[float]] = {label: [] for label in ways}
        for _ in range(runs):
            for label, way in ways.items():
                place = folder / label
                place.mkdir(exist_ok=True)
                before = time.perf_counter()
                way(place)
                seconds[label].append(time.perf_counter() - before)
        count = len(dataset.manifest)
        embeddings = {label: gather(dataset, folder / label) for label in ways}
        result: dict[str, Any] = {"machine": engines.machine(), "pictures": count, "runs": runs}
        for label, times in seconds.items():
            ratios = [first / each for first, each in zip(seconds["plain"], times, strict=True)]
            result[label] = {
                "pictures a second": round(count / statistics.median(times), 1),
                "times as fast": round(statistics.median(ratios), 2),
                "of each run": [round(ratio, 2) for ratio in ratios],
            }
            if label != "plain":
                backbone, reason = chosen[label]
                result[label] |= {
                    "engine": str(backbone.engine),
                    "reason": reason,
                    "seconds to choose": round(choosing[label], 1),
                    "relative error": relative_error(embeddings[label], embeddings["plain"]),
                }
        return result


def fresh(backbone: Backbone) -> Backbone:
    """With an engine that is not started yet."""
    from dataclasses import replace

    return replace(backbone)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--pictures", type=int, default=3240)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    text = json.dumps(measure(chosen.data, chosen.pictures, chosen.runs), indent=1)
    print(text)
    if chosen.out:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
