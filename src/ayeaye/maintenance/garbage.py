"""What takes up room and is needed by nothing: found, shown, and removed when asked to.

Needed are the champion and the previous one, every version with an alias or without a verdict, the one of the
bundle that lies in the workspace, and the newest few; and what the workspace, its branches, tags and experiments
refer to. Every item can be made again, but for data that no needed version and no branch was trained on.

Removed is only what lies in the workspace, and from stores of DVC's that are the workspace's own: behind a link, or
in a shared cache, there may be what others need. It goes piece by piece, and only where nothing refers to it: killed
anywhere, the next call completes it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from ayeaye.classifier.model import digest
from ayeaye.core.errors import BundleError, DataGone, WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import inside
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import MANIFEST, read_frame
from ayeaye.packaging.bento import BentoStore, is_running
from ayeaye.pipeline.embed import code_digest
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.release.registry import EVIDENCE, REMOVED, Version
from ayeaye.versioning import commits, dvc, git, layout, stores
from ayeaye.versioning.stores import Objects

KEEP = 5  # newest versions
LOG_DAYS = 30
UNDECIDED = (None, "untried")
KINDS = {
    "version": "bundle, report and plots of a registered version; its figures stay",
    "bento": "packed service",
    "embeddings": "cached embeddings of a backbone",
    "backbone": "cached backbone that was trained here",
    "fetched": "copy of what MLflow holds",
    "cache": "objects in DVC's cache",
    "remote": "data on the remote",
    "log": "log",
}


@dataclass(frozen=True)
class Item:
    """Something that nothing needs; `kind` is one of KINDS."""

    kind: str
    name: str
    bytes: int
    remove: Callable[[], None] = field(repr=False, compare=False)

    def as_json(self) -> dict[str, str | int]:
        return {"kind": self.kind, "name": self.name, "bytes": self.bytes}


def find(
    workspace: Workspace,
    keep: int = KEEP,
    remote: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Item]:
    """Return everything that could go; the caller holds the workspace. Data on the remote only when asked for.

    `say` is told of a cache that is left alone. Raises WorkspaceError and RegistryError where it cannot be told what
    is needed, and where others may use the remote that was asked for: nothing is guessed.
    """
    dvc.require(workspace)
    layout.clear_remains(workspace)
    search = _Search(workspace, keep)
    return [
        *search.versions(),
        *search.bentos(),
        *search.embeddings(),
        *search.backbones(),
        *search.fetched(),
        *search.objects(remote, say),
        *search.logs(),
    ]


@dataclass(frozen=True)
class _Search:
    """Of one workspace, in which the `keep` newest versions are needed at least."""

    workspace: Workspace
    keep: int

    @cached_property
    def all(self) -> list[Version]:
        return registry_of(self.workspace).versions()

    @cached_property
    def kept(self) -> list[Version]:
        """The versions that are needed, the newest first."""
        state = record_of(self.workspace).state()
        whole = [version for version in self.all if REMOVED not in version.tags]
        numbers = {version.number for version in whole[: self.keep]} | {state.champion, state.previous}
        with suppress(BundleError):
            here = digest(self.workspace.classifier)
            numbers |= {version.number for version in whole if version.bundle_digest == here}
        numbers |= {v.number for v in whole if v.aliases or v.tags.get("gate") in UNDECIDED}
        numbers |= {state.pending.to} if state.pending else set()
        return [version for version in self.all if version.number in numbers]

    def versions(self) -> Iterator[Item]:
        registry = registry_of(self.workspace)
        for version in self.all:
            if version in self.kept:
                continue
            sizes = registry.artifacts(version).items()
            files = {path: size for path, size in sizes if path not in EVIDENCE}
            if files or REMOVED not in version.tags:
                name = f"version {version.number} of {registry.model}"
                yield Item("version", name, sum(files.values()), partial(registry.strip, version))

    def bentos(self) -> Iterator[Item]:
        """A kept version keeps the Bento that the history names, or else its newest one."""
        store, history = BentoStore(self.workspace.bentos), record_of(self.workspace)
        built = _by_age(self._in(store.home / "bentos", "*/*/bento.yaml"))
        kept = set()
        for version in self.kept:
            tag = history.bento(version.number)
            named = store.folder(tag) if tag else None
            own = [folder for folder in built if folder.name.startswith(f"v{version.number}-")]
            kept.add(named if named and named.is_dir() else own[-1] if own else None)
        for folder in built:
            if folder not in kept and not is_running(folder):
                name = f"{folder.parent.name}:{folder.name}"
                yield Item("bento", name, _size(folder), partial(_remove_bento, folder))

    def embeddings(self) -> Iterator[Item]:
        """Of backbones and shards that no kept version has; another code of the embedding never reads them again."""
        shards, backbones = self._used
        prefixes = tuple(backbone[:16] if backbone else "features-" for backbone in backbones)
        for folder in self._in(self.workspace.state / "embeddings"):
            used = folder.name.startswith(prefixes) and folder.name.endswith(f"-{code_digest()[:8]}")
            files = [path for path in self._in(folder, "*.npy") if not used or path.stem not in shards]
            if files:
                name = f"{folder.name}, {len(files)} of its shards"
                yield Item("embeddings", name, _size(*files), partial(_unlink, files))

    def backbones(self) -> Iterator[Item]:
        for folder in self._in(self.workspace.state / "backbones"):
            described = folder / "backbone.json"
            if described.is_file() and json.loads(described.read_bytes())["digest"] not in self._used[1]:
                yield Item("backbone", folder.name, _size(folder), partial(_remove_folder, folder))

    @cached_property
    def _used(self) -> tuple[set[str], set[str | None]]:
        """Names of shards and digests of backbones of the workspace and of kept versions; None: features."""
        workspace, registry = self.workspace, registry_of(self.workspace)
        shards, backbones = set[str](), set[str | None]()
        if (here := workspace.dataset / "manifest.parquet").is_file():
            shards |= set(read_frame(here, MANIFEST)["shard"])
        if (described := workspace.embeddings / "backbone.json").is_file():
            backbones.add(json.loads(described.read_bytes())["digest"])
        for version in self.kept:
            if manifest := registry.artifact(version, "manifest.parquet"):
                shards |= set(pd.read_parquet(manifest, columns=["shard"])["shard"])
            if bundle := registry.artifact(version, "model/bundle/bundle.json"):
                backbones.add(json.loads(bundle.read_bytes())["backbone"])
        return shards, backbones

    def fetched(self) -> Iterator[Item]:
        home = self.workspace.state / "mlflow"
        kept = {version.bundle_digest[:16] for version in self.kept} | {each.run_id for each in self.kept}
        for folder in [*self._in(home / "bundles", "[!.]*"), *self._in(home / "artifacts-of")]:
            if folder.name not in kept:
                name = f"{folder.parent.name}/{folder.name}"
                yield Item("fetched", name, _size(folder), partial(_remove_folder, folder))

    def objects(self, remote: bool, say: Callable[[str], None]) -> Iterator[Item]:
        # A version may be of a history that was rewritten since.
        trained = dict.fromkeys(filter(None, (version.tags.get("git_commit") for version in self.kept)))
        known = [commit for commit in trained if git.has_commit(self.workspace, commit)]
        with stores.objects(self.workspace) as objects:
            if remote and "remote" in objects.shared:
                raise WorkspaceError(objects.left_alone("remote"))
            used = objects.used(known)
            if used and "cache" in objects.shared:
                say(objects.left_alone("cache"))
            sizes = {} if "cache" in objects.shared else objects.sizes("cache")
            if unused := {each: size for each, size in sorted(sizes.items()) if each not in used}:
                yield self._purged("cache", f"{len(unused)} objects", unused)
            if not remote or "remote" not in objects.stores:
                return
            kept = used | {version.tags.get("data_digest") for version in self.kept}
            for dataset in commits.datasets(self.workspace):
                if dataset not in kept and (left := _left(objects, dataset, used)):
                    yield self._purged("remote", f"dataset {dataset}, {len(left)} objects", left)

    def logs(self) -> Iterator[Item]:
        oldest = time.time() - LOG_DAYS * 86400
        for path in self._in(self.workspace.state / "logs", "*.log"):
            if path.stat().st_mtime < oldest:
                yield Item("log", path.name, path.stat().st_size, path.unlink)

    def _in(self, folder: Path, pattern: str = "*") -> list[Path]:
        """What is in a folder, where that and what is in it lie in the workspace."""
        return [path for path in sorted(folder.glob(pattern)) if inside(path, self.workspace.root)]

    def _purged(self, store: str, name: str, sizes: dict[str, int]) -> Item:
        def purge() -> None:
            with stores.objects(self.workspace) as objects:
                for each in sizes:
                    objects.remove(store, each)

        return Item(store, name, sum(sizes.values()), purge)


def _left(objects: Objects, dataset: str, used: Set[str]) -> dict[str, int]:
    """Bytes of the objects of a dataset that are on the remote and in no use; its listing last.

    Only what this workspace ever pushed: others may share the remote.
    """
    try:
        files = [*objects.listing(dataset).values(), dataset]
    except DataGone:
        return {}
    wanted = [each for each in files if each not in used and objects.has("remote", each)]
    return {each: objects.size("remote", each) for each in wanted}


def _by_age(described: Sequence[Path]) -> list[Path]:
    """The folders of these files, the oldest first."""
    return [path.parent for path in sorted(described, key=lambda path: path.parent.stat().st_mtime)]


def _remove_bento(folder: Path) -> None:
    _remove_folder(folder)
    latest = folder.parent / "latest"
    if latest.is_file() and latest.read_text() == folder.name:
        latest.unlink()
        if left := _by_age(list(folder.parent.glob("*/bento.yaml"))):
            write_atomic(latest, left[-1].name.encode())


def _remove_folder(folder: Path) -> None:
    """Out of its place by one rename, so that nothing half removed is taken for whole."""
    gone = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _size(*paths: Path) -> int:
    """Bytes of files, and of what lies in folders."""
    files = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    return sum(path.stat().st_size for path in files if path.is_file())
