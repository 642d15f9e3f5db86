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
from functools import partial
from pathlib import Path
from typing import Any

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
    remove: Callable[[], None] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "bytes": self.bytes}


@dataclass(frozen=True)
class Needed:
    """Versions that are kept, and of those that are not: both the newest first."""

    kept: list[Version]
    others: list[Version]


def find(
    workspace: Workspace,
    keep: int = KEEP,
    remote: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Item]:
    """Everything that could go; the caller holds the workspace. Data on the remote only when asked for.

    `say` is told of a cache that is left alone. Raises WorkspaceError and RegistryError where it cannot be told what
    is needed, and where others may use the remote that was asked for: nothing is guessed.
    """
    dvc.require(workspace)
    layout.clear_remains(workspace)
    needed = _needed(workspace, keep)
    return [
        *_versions(workspace, needed),
        *_bentos(workspace, needed),
        *_embeddings(workspace, needed),
        *_fetched(workspace, needed),
        *_objects(workspace, needed, remote, say),
        *_logs(workspace),
    ]


def _in(workspace: Workspace, folder: Path, pattern: str = "*") -> list[Path]:
    """What is in a folder, where that and what is in it lie in the workspace."""
    return [path for path in sorted(folder.glob(pattern)) if inside(path, workspace.root)]


def _needed(workspace: Workspace, keep: int) -> Needed:
    versions = registry_of(workspace).versions()
    state = record_of(workspace).state()
    whole = [version for version in versions if REMOVED not in version.tags]
    numbers = {version.number for version in whole[:keep]} | {state.champion, state.previous}
    with suppress(BundleError):
        here = digest(workspace.classifier)
        numbers |= {version.number for version in whole if version.bundle_digest == here}
    numbers |= {v.number for v in whole if v.aliases or v.tags.get("gate") in UNDECIDED}
    numbers |= {state.pending.to} if state.pending else set()
    return Needed(
        [version for version in versions if version.number in numbers],
        [version for version in versions if version.number not in numbers],
    )


def _versions(workspace: Workspace, needed: Needed) -> Iterator[Item]:
    registry = registry_of(workspace)
    for version in needed.others:
        files = {path: size for path, size in registry.artifacts(version).items() if path not in EVIDENCE}
        if files or REMOVED not in version.tags:
            name = f"version {version.number} of {registry.model}"
            yield Item("version", name, sum(files.values()), partial(registry.strip, version))


def _bentos(workspace: Workspace, needed: Needed) -> Iterator[Item]:
    """A kept version keeps the Bento that the record names, or else its newest one."""
    record, store = record_of(workspace), workspace.bentos / "bentos"
    built = sorted(
        (path.parent for path in _in(workspace, store, "*/*/bento.yaml")),
        key=lambda path: path.stat().st_mtime,
    )
    by_version: dict[int, Path] = {}
    for folder in built:
        number = folder.name.removeprefix("v").partition("-")[0]
        if number.isdecimal():
            by_version[int(number)] = folder
    kept = set()
    for version in needed.kept:
        tag = record.bento(version.number)
        named = BentoStore(workspace.bentos).folder(tag) if tag else None
        kept.add(named if named and named.is_dir() else by_version.get(version.number))
    for folder in built:
        if folder not in kept and not is_running(folder):
            tag = f"{folder.parent.name}:{folder.name}"
            yield Item("bento", tag, _size(folder), partial(_remove_bento, folder))


def _remove_bento(folder: Path) -> None:
    _remove_folder(folder)
    latest = folder.parent / "latest"
    if latest.is_file() and latest.read_text() == folder.name:
        left = sorted(folder.parent.glob("*/bento.yaml"), key=lambda path: path.stat().st_mtime)
        if left:
            write_atomic(latest, left[-1].parent.name.encode())
        else:
            latest.unlink()


def _embeddings(workspace: Workspace, needed: Needed) -> Iterator[Item]:
    """Of backbones and shards that no kept version has; another code of the embedding never reads them again."""
    registry = registry_of(workspace)
    shards, backbones = _shards_here(workspace), _backbone_here(workspace)
    for version in needed.kept:
        if manifest := registry.artifact(version, "manifest.parquet"):
            shards |= set(pd.read_parquet(manifest, columns=["shard"])["shard"])
        if bundle := registry.artifact(version, "model/bundle/bundle.json"):
            backbones.add(json.loads(bundle.read_bytes())["backbone"])
    prefixes = tuple(backbone[:16] if backbone else "features-" for backbone in backbones)
    current = code_digest()[:8]
    for folder in _in(workspace, workspace.state / "embeddings"):
        used = folder.name.startswith(prefixes) and folder.name.endswith(f"-{current}")
        files = [path for path in _in(workspace, folder, "*.npy") if not used or path.stem not in shards]
        if files:
            name = f"{folder.name}, {len(files)} of its shards"
            yield Item("embeddings", name, _sizes(files), partial(_unlink, files))
    for folder in _in(workspace, workspace.state / "backbones"):
        described = folder / "backbone.json"
        if described.is_file() and json.loads(described.read_bytes())["digest"] not in backbones:
            yield Item("backbone", folder.name, _size(folder), partial(_remove_folder, folder))


def _shards_here(workspace: Workspace) -> set[str]:
    manifest = workspace.dataset / "manifest.parquet"
    return set(read_frame(manifest, MANIFEST)["shard"]) if manifest.is_file() else set()


def _backbone_here(workspace: Workspace) -> set[str | None]:
    described = workspace.embeddings / "backbone.json"
    return {json.loads(described.read_bytes())["digest"]} if described.is_file() else set()


def _fetched(workspace: Workspace, needed: Needed) -> Iterator[Item]:
    home = workspace.state / "mlflow"
    kept = {version.bundle_digest[:16] for version in needed.kept} | {v.run_id for v in needed.kept}
    for folder in [*_in(workspace, home / "bundles", "[!.]*"), *_in(workspace, home / "artifacts-of")]:
        if folder.name not in kept:
            name = f"{folder.parent.name}/{folder.name}"
            yield Item("fetched", name, _size(folder), partial(_remove_folder, folder))


def _objects(
    workspace: Workspace, needed: Needed, remote: bool, say: Callable[[str], None]
) -> Iterator[Item]:
    trained = [commit for version in needed.kept if (commit := version.tags.get("git_commit"))]
    with stores.objects(workspace) as objects:
        if remote and "remote" in objects.shared:
            raise WorkspaceError(objects.left_alone("remote"))
        used = objects.used(_known(workspace, trained))
        if used and "cache" in objects.shared:
            say(objects.left_alone("cache"))
        sizes = {} if "cache" in objects.shared else objects.sizes("cache")
        if unused := sorted(sizes.keys() - used):
            total = sum(sizes[each] for each in unused)
            yield Item("cache", f"{len(unused)} objects", total, partial(_purge, workspace, "cache", unused))
        if remote and "remote" in objects.stores:
            kept = {version.tags.get("data_digest") for version in needed.kept}
            for dataset in commits.datasets(workspace):
                if dataset in used or dataset in kept:
                    continue
                left = _left(objects, dataset, used)
                if left:
                    name = f"dataset {dataset}, {len(left)} objects"
                    total = sum(left.values())
                    yield Item("remote", name, total, partial(_purge, workspace, "remote", list(left)))


def _known(workspace: Workspace, commits: Sequence[str]) -> list[str]:
    """Commits that the history still has: a version may be of a history that was rewritten since."""
    return [commit for commit in dict.fromkeys(commits) if git.has_commit(workspace, commit)]


def _left(objects: Objects, dataset: str, used: Set[str]) -> dict[str, int]:
    """Bytes of the objects of a dataset that are on the remote and in no use; its listing last.

    Only what this workspace ever pushed: others may share the remote.
    """
    try:
        files = objects.listing(dataset)
    except DataGone:
        return {}
    wanted = [each for each in [*files.values(), dataset] if each not in used and objects.has("remote", each)]
    return {each: objects.size("remote", each) for each in wanted}


def _purge(workspace: Workspace, store: str, digests: Sequence[str]) -> None:
    with stores.objects(workspace) as objects:
        for each in digests:
            objects.remove(store, each)


def _logs(workspace: Workspace) -> Iterator[Item]:
    oldest = time.time() - LOG_DAYS * 86400
    for path in _in(workspace, workspace.state / "logs", "*.log"):
        if path.stat().st_mtime < oldest:
            yield Item("log", path.name, path.stat().st_size, path.unlink)


def _remove_folder(folder: Path) -> None:
    """Out of its place by one rename, so that nothing half removed is taken for whole."""
    gone = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    return _sizes([path for path in folder.rglob("*") if path.is_file()])


def _sizes(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)
