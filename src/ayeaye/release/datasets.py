"""Datasets of an earlier time, read from what DVC keeps without checking them out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ayeaye.core.errors import DataError, DataGone
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import Dataset, content_at
from ayeaye.release.promotion import registry_of, version_called
from ayeaye.versioning import commits
from ayeaye.versioning.stores import Objects

NOW = "now"
_DIGEST = re.compile(r"([0-9a-f]{6,32})(\.dir)?")
_SMALL = ("manifest.parquet", "classes.parquet", "dataset.json")


@dataclass(frozen=True)
class Kept:
    """A dataset without its shards, and a way to its pictures; `digest` is DVC's, None for what lies here."""

    dataset: Dataset
    digest: str | None
    _shards: dict[str, str]
    _objects: Objects | None

    def picture(self, id: str) -> bytes:
        """The original bytes; raises DataGone where its shard is no longer kept."""
        if self._objects is None:
            return self.dataset.picture(id)
        shard, row = self.dataset.place(id)
        with self._objects.open(self._shards[f"shards/{shard}.parquet"]) as file:
            content = content_at(pq.ParquetFile(file), row)
        if content is None:
            raise DataGone(f"shard {shard} of dataset {self.digest} is shorter than its manifest says")
        return content


def digest_of(workspace: Workspace, name: str) -> str | None:
    """DVC's digest of the dataset of a version, of an alias or by its first digits; None for `now`.

    Raises RegistryError and ReleaseError for an unknown version, DataError for an unknown digest.
    """
    if name == NOW:
        return None
    if len(name) >= 6 and (given := _DIGEST.fullmatch(name)):
        registered = (each.tags.get("data_digest", "") for each in registry_of(workspace).versions())
        known = {*commits.datasets(workspace), *filter(None, registered)}
        found = sorted(digest for digest in known if digest.startswith(given[1]))
        if len(found) != 1:
            what = f"{len(found)} datasets begin with it" if found else "no dataset of this workspace has it"
            raise DataError(f"digest {name}: {what}; `git log data/dataset.dvc` shows them")
        return found[0]
    return version_called(workspace, name).tags["data_digest"]


@contextmanager
def opened(workspace: Workspace, objects: Objects, name: str) -> Iterator[Kept]:
    """The dataset of a digest, a version, an alias, or `now`; raises DataGone where it is no longer kept."""
    digest = digest_of(workspace, name)
    if digest is None:
        yield Kept(Dataset.load(workspace.dataset), None, {}, None)
        return
    listing = objects.listing(digest)
    with tempfile.TemporaryDirectory(dir=workspace.state) as folder:
        for file in _SMALL:
            if file not in listing:
                raise DataError(f"the dataset {digest} has no {file}: it was not made by `ayeaye prepare`")
            (Path(folder) / file).write_bytes(objects.read(listing[file]))
        yield Kept(Dataset.load(Path(folder)), digest, listing, objects)
