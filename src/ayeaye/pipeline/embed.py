"""The stage `embed`: every picture of the dataset through the backbone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ayeaye.backbones import backbones, training
from ayeaye.backbones.backbones import Backbone
from ayeaye.backbones.shards import embed_dataset, gather
from ayeaye.core.code_digests import PACKAGE, digest_files
from ayeaye.core.workspace import Workspace
from ayeaye.data import checks
from ayeaye.data.decode import Limits
from ayeaye.data.table import Dataset
from ayeaye.pipeline.engine import with_engine
from ayeaye.pipeline.progress import Progress

TRAINED_SIZE = 64  # side of the input of a backbone trained here, where embed.size does not say


def embed(workspace: Workspace, progress: Progress) -> dict[str, object]:
    """Embed the dataset under the backbone of params.yaml; only what the cache lacks is computed."""
    dataset = Dataset.load(workspace.dataset)
    backbone, because = None, "features as given"
    if dataset.kind != "features":
        backbone, because = with_engine(
            workspace, dataset, backbone_of(workspace, dataset, progress), progress
        )
    folder = workspace.embeddings
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backbone.json").unlink(missing_ok=True)
    anew = embed_under(workspace, dataset, backbone, folder, progress)
    X = gather(dataset, folder)
    checks.check_embeddings(
        dataset.manifest["id"].tolist(),
        dataset.manifest["label"].tolist(),
        X,
        len(dataset.manifest),
        workspace.checks,
    )
    if backbone:
        backbone.save(folder)
    return {
        "pictures": len(X),
        "embedded": anew,
        "width": int(X.shape[1]),
        "backbone": backbone.origin if backbone else "features as given",
        **({"weights": backbone.taken} if backbone and backbone.taken else {}),
        "engine": str(backbone.running) if backbone else None,
        "engine_because": because,
    }


def embed_under(
    workspace: Workspace, dataset: Dataset, backbone: Backbone | None, folder: Path, progress: Progress
) -> int:
    """Embeddings of the dataset under any backbone, also an earlier champion's, through the same cache."""
    chosen = workspace.params
    key = backbone.digest[:16] if backbone else f"features-{dataset.about.get('dtype')}"
    if backbone and backbone.fallback:  # what stands in here may not pass for what was meant
        key += f"-{backbone.running}".replace(" ", "-")
    key += f"-{code_digest()[:8]}"
    with progress.task("embedding", len(dataset.manifest)) as advance:
        return embed_dataset(
            dataset,
            backbone,
            workspace.state / "embeddings" / key,
            folder,
            batch=chosen.embed.batch,
            limits=Limits.of(chosen.prepare),
            progress=advance,
        )


def code_digest() -> str:
    """Of what lies between a picture's bytes and its embedding, for what is kept from run to run.

    Not of all that this imports: nobody wants a million pictures embedded anew for an error's wording.
    """
    return digest_files([*(PACKAGE / "backbones").glob("*.py"), PACKAGE / "data" / "decode.py"])


def backbone_of(workspace: Workspace, dataset: Dataset, progress: Progress) -> Backbone:
    """The backbone of params.yaml, trained first where `embed.weights` is `train`."""
    chosen = workspace.params.embed
    if chosen.weights == "train":
        return _trained(workspace, dataset, backbones.device_of(chosen.device, "embed.device"), progress)
    return pretrained_of(workspace)


def pretrained_of(workspace: Workspace) -> Backbone:
    """The backbone of the weights that params.yaml names; raises BackboneError."""
    chosen = workspace.params.embed
    return backbones.pretrained(
        chosen.backbone,
        chosen.weights,
        mean=chosen.mean,
        std=chosen.std,
        size=chosen.size,
        device=backbones.device_of(chosen.device, "embed.device"),
        resolve=workspace.resolve,
    )


def check_trainable(workspace: Workspace) -> None:
    """Raises BackboneError where a backbone of params.yaml cannot be trained here: its network, size or device."""
    chosen = workspace.params.embed
    device = backbones.device_of(chosen.device, "embed.device")
    network = _untrained(chosen.backbone, 2, chosen.seed)
    backbones.assemble(chosen.backbone, backbones.TRAINED_HERE, network, _transform(workspace), device)


def _transform(workspace: Workspace) -> backbones.Transform:
    """Of a backbone trained here."""
    chosen = workspace.params.embed
    side = chosen.size or TRAINED_SIZE
    # Nothing was learned at another size, so nothing need be cropped away.
    return backbones.adjust(backbones.Transform(side, side), chosen.mean, chosen.std, None)


def _trained(workspace: Workspace, dataset: Dataset, device: str, progress: Progress) -> Backbone:
    """A backbone trained on the training pictures of the seen classes, without the pretend-unseen ones.

    Kept under a digest of all that it depends on, so that an interrupted run does not train it again.
    """
    chosen = workspace.params.embed
    classes = dataset.classes
    shown = classes.frame["name"][classes.seen & ~classes.pretend_unseen]
    rows = dataset.manifest[
        dataset.manifest["label"].isin(set(shown)) & (dataset.manifest["split"] == "train")
    ]
    recipe = [
        chosen.model_dump(exclude={"batch", "device", "engine", "precision", "pretrained_on", "hierarchy"}),
        code_digest(),
        sorted(zip(rows["id"], rows["label"], strict=True)),
    ]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    cached = workspace.state / "backbones" / key
    if (cached / "backbone.json").is_file():
        return backbones.load(cached, device)

    transform = _transform(workspace)
    images = _pictures(workspace, dataset, rows["id"].tolist(), transform, progress)
    labels = sorted(set(rows["label"]))
    y = np.array([labels.index(label) for label in rows["label"]])
    network = _untrained(chosen.backbone, len(labels), chosen.seed)
    with progress.task("training the backbone", chosen.epochs) as advance:
        training.train_backbone(
            network,
            images,
            y,
            chosen.epochs,
            seed=chosen.seed,
            device=device,
            mean=transform.mean,
            std=transform.std,
            progress=lambda done, total: advance(1),
        )
    origin = f"{backbones.TRAINED_HERE} on {len(rows)} pictures of {len(labels)} seen classes"
    backbone = backbones.assemble(chosen.backbone, origin, network, transform, device, tuple(labels))
    backbone.save(cached)
    return backbone


def _untrained(name: str, classes: int, seed: int):  # type: ignore[no-untyped-def]
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return backbones.build(name, classes)


def _pictures(
    workspace: Workspace, dataset: Dataset, ids: list[str], transform: backbones.Transform, progress: Progress
) -> np.ndarray:
    """(n, 3, s, s) uint8, at the network's input size, in the order of `ids`."""
    from dataclasses import replace

    limits = Limits.of(workspace.params.prepare)
    # Identity normalisation: training augments in 0–255 and normalises itself.
    read = replace(transform, mean=(0.0,) * 3, std=(1.0,) * 3).reader(limits)
    place = {id: row for row, id in enumerate(ids)}
    side = transform.crop
    images = np.zeros((len(ids), 3, side, side), np.uint8)
    with progress.task("reading pictures", len(ids)) as advance:
        for shard in dataset.shards():
            for id, content in dataset.pictures(shard):
                if id in place:
                    images[place[id]] = (read(content) * 255).round()
                    advance(1)
    return images
