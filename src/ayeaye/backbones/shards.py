"""Embeddings of a dataset, shard by shard, from a cache that outlives runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.backbones.engines import cores
from ayeaye.core.errors import DataError
from ayeaye.core.files import replacing
from ayeaye.data.decode import Limits

if TYPE_CHECKING:
    from ayeaye.backbones.backbones import Backbone, Transform
    from ayeaye.data.table import Dataset

Progress = Callable[[int], None]


def embed_pictures(
    backbone: Backbone,
    contents: Iterable[bytes],
    *,
    batch: int = 32,
    limits: Limits,
    progress: Progress | None = None,
) -> np.ndarray:
    """Embeddings (n, width) float32 of encoded pictures; decoding overlaps the network."""
    rows = []
    for inputs in prepared(backbone.transform, contents, batch=batch, limits=limits):
        rows.append(backbone.forward(inputs))
        if progress:
            progress(len(inputs))
    return np.concatenate(rows) if rows else np.empty((0, backbone.width), np.float32)


def prepared(
    transform: Transform, contents: Iterable[bytes], *, batch: int, limits: Limits
) -> Iterator[np.ndarray]:
    """Inputs (batch, 3, h, w) of encoded pictures, in order, the last one shorter.

    Pictures are decoded by threads, at most two batches ahead of what is taken: that bounds memory.
    """
    reader = transform.reader(limits)
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        for inputs in _batches(_ahead(pool, reader, contents, 2 * batch), batch):
            yield np.stack(inputs)


def embed_dataset(
    dataset: Dataset,
    backbone: Backbone | None,
    cache: Path,
    folder: Path,
    *,
    batch: int = 32,
    limits: Limits,
    progress: Progress | None = None,
) -> int:
    """Write one `<shard>.npy` (n, d) float32 for each current shard, linked from the cache; nothing stale stays.

    Without a backbone the dataset holds features, which pass through. Returns how many pictures were embedded
    anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{shard}.npy" for shard in dataset.shards()}
    for path in folder.glob("*.npy"):
        if path.name not in wanted:
            path.unlink()
    anew = 0
    for shard in dataset.shards():
        cached = cache / f"{shard}.npy"
        if not cached.is_file():
            if backbone is None:
                X = dataset.features(shard).astype(np.float32)
            else:
                contents = (content for _, content in dataset.pictures(shard))
                X = embed_pictures(backbone, contents, batch=batch, limits=limits, progress=progress)
            anew += len(X)
            with replacing(cached) as part, part.open("wb") as file:
                np.save(file, X)
        link(cached, folder / cached.name)
    return anew


def gather(dataset: Dataset, folder: Path) -> np.ndarray:
    """Embeddings (n, d) float32 in the order of the manifest; raises DataError where a shard has none."""
    shards = {}
    for shard in dataset.shards():
        path = folder / f"{shard}.npy"
        if not path.is_file():
            raise DataError(f"shard {shard} is not embedded in {folder}: run `ayeaye embed`")
        shards[shard] = np.load(path, allow_pickle=False)
    places = zip(dataset.manifest["shard"], dataset.manifest["row"], strict=True)
    return np.stack([shards[shard][row] for shard, row in places])


def link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no links."""
    import shutil

    with replacing(target) as part:
        part.unlink()
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[bytes], Any], items: Iterable[bytes], depth: int
) -> Iterator[Any]:
    """Results in order, computed by the pool at most `depth` items ahead."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    from itertools import islice

    while chunk := list(islice(items, size)):
        yield chunk
