"""What is released, what disagrees with what about it, and how that is mended.

The promotion record is the truth. The registry's aliases and tags follow it, the Bento of the champion is a copy of
the bundle that the registry keeps: each can be brought back from the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ayeaye.classifier.model import digest
from ayeaye.core.errors import BundleError, RegistryError, ReleaseError
from ayeaye.core.workspace import Workspace
from ayeaye.packaging.bento import BentoStore
from ayeaye.packaging.serving_state import ServingState
from ayeaye.pipeline.evaluate import HEADLINE
from ayeaye.release import promotion
from ayeaye.release.promotion import Say, record_of, registry_of
from ayeaye.release.record import Entry, State
from ayeaye.release.registry import CHAMPION, PREVIOUS, REMOVED, Registry, Version
from ayeaye.versioning import layout


@dataclass(frozen=True)
class Disagreement:
    """What is not as the record says: which part, and a sentence about it."""

    part: Literal["record", "aliases", "version", "bundle", "bento"]
    what: str


def status(workspace: Workspace) -> dict[str, Any]:
    """Champion, previous, what waits for approval and all candidates, newest first, and every disagreement.

    `champion` is what is wanted, `serving` what is observed: None where nothing serves this workspace.
    """
    state = record_of(workspace).state()
    registry = registry_of(workspace)
    listed = {version.number: _described(workspace, registry, version) for version in registry.versions()}
    found, serving = list(disagreements(workspace)), ServingState.observe(workspace)
    return {
        "workspace": str(workspace.root),
        "model": workspace.params.release.model,
        "champion": listed.get(state.champion) if state.champion else None,
        "previous": listed.get(state.previous) if state.previous else None,
        "pending": listed.get(state.pending.to) if state.pending else None,
        "candidates": [each for number, each in listed.items() if number != state.champion],
        "serving": serving and asdict(serving),
        "agrees": not found,
        "disagreements": [asdict(each) for each in found],
    }


def _described(workspace: Workspace, registry: Registry, version: Version) -> dict[str, Any]:
    figures = registry.metrics(version)
    return {
        "version": version.number,
        "run_id": version.run_id,
        "bento": record_of(workspace).bento(version.number),
        "data_digest": version.tags.get("data_digest"),
        "bundle_digest": version.bundle_digest,
        "gate": version.tags.get("gate"),
        "reasons": version.tags.get("reasons"),
        "estimated_on": version.tags.get("estimated_on"),
        "removed": version.tags.get(REMOVED),
        "aliases": list(version.aliases),
        "metrics": {name: figures.get(name) for name in HEADLINE},
    }


def log(workspace: Workspace) -> list[dict[str, Any]]:
    """Every entry of the record, the newest first, as `ayeaye log --json` prints it."""
    return [_logged(entry) for entry in reversed(record_of(workspace).entries())]


def _logged(entry: Entry) -> dict[str, Any]:
    kept = ("time", "actor", "action", "from", "to", "why", "figures", "digests", "digest")
    raw = {"figures": {}, **entry.as_dict()}
    return {name: raw[name] for name in kept}


def disagreements(workspace: Workspace) -> Iterator[Disagreement]:
    """Where the registry and the Bentos are not as the record says; raises ReleaseError for a damaged record."""
    state = record_of(workspace).state()
    registry = registry_of(workspace)
    try:
        promotion.check_anchor(workspace)
    except ReleaseError as error:
        yield Disagreement("record", str(error))
    versions = registry.versions()
    there = {version.number for version in versions}
    if state.previous is not None and state.previous not in there:
        yield Disagreement(
            "version", f"version {state.previous}, the previous champion, is gone from the registry"
        )
    yield from _aliases(state, registry, there)
    if state.champion is None:
        return
    try:
        champion = registry.version(state.champion)
    except RegistryError as error:
        yield Disagreement("version", f"the champion is gone from the registry: {error}")
        return
    if champion.tags.get("bento") != state.bento:
        yield Disagreement(
            "aliases",
            f"version {champion.number} is tagged with the Bento {champion.tags.get('bento')}, the record says "
            f"{state.bento}",
        )
    for version in _needed(state, versions):
        if fault := _bundle_fault(registry, version):
            yield Disagreement("bundle", f"the bundle of version {version.number} in the registry {fault}")
    if state.bento and not BentoStore(workspace.bentos).is_intact(state.bento):
        yield Disagreement("bento", f"the champion's Bento {state.bento} is gone or damaged")


def _aliases(state: State, registry: Registry, there: Collection[int]) -> Iterator[Disagreement]:
    previous = state.previous if state.previous in there else None
    for name, number in ((CHAMPION, state.champion), (PREVIOUS, previous)):
        found = registry.alias(name)
        if (found.number if found else None) != number:
            says = f"version {number}" if number else "none"
            yield Disagreement(
                "aliases",
                f"the alias {name} is at version {found.number if found else 'none'}, the record says {says}",
            )


def _needed(state: State, versions: Sequence[Version]) -> list[Version]:
    """The versions that are champion, or can become it by one word."""
    numbers = {state.champion, state.previous, state.pending.to if state.pending else None}
    return [version for version in versions if version.number in numbers]


def _bundle_fault(registry: Registry, version: Version) -> str:
    """What is wrong with a version's bundle, after "the bundle in the registry"; nothing where it is whole."""
    try:
        folder = registry.bundle(version)
        found = digest(folder)
    except (BundleError, RegistryError, OSError) as error:
        return f"is gone or cannot be read: {error}"
    if found == version.bundle_digest:
        return ""
    return f"is damaged: the files in {folder} have the digest {found[:12]}, not {version.bundle_digest[:12]}"


def repair(
    workspace: Workspace,
    *,
    accept_record: bool = False,
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Mend every disagreement; the caller holds the workspace.

    Aliases and tags are set as the record says, a lost bundle is put back from the champion's Bento, a lost Bento
    is packed and tried again, and what killed runs left is removed. A record whose end is not the one that the
    registry knows is taken as it is only with `accept_record`. Returns what was `found`, and what is `left`.
    """
    found = list(disagreements(workspace))
    if not dry_run:
        layout.clear_remains(workspace)
        parts = {each.part for each in found}
        if "record" in parts and accept_record:
            promotion.anchor(workspace)
            parts.remove("record")
        if "record" not in parts:
            _mend(workspace, say)
    left = found if dry_run else list(disagreements(workspace))
    return {
        "found": [asdict(each) for each in found],
        "left": [asdict(each) for each in left],
        "dry_run": dry_run,
    }


def _mend(workspace: Workspace, say: Say) -> None:
    state = record_of(workspace).state()
    registry = registry_of(workspace)
    if state.champion is None:
        promotion.project(workspace)
        return
    try:
        registry.version(state.champion)
    except RegistryError as error:
        say(str(error))
        return
    promotion.project(workspace)
    for version in _needed(state, registry.versions()):
        if _bundle_fault(registry, version):
            registry.forget_fetched(version)  # where it is a copy that is damaged
            if _bundle_fault(registry, version) and (copy := _packed_bundle(workspace, version)):
                say(f"The bundle of version {version.number} is put back from its Bento.")
                registry.restore_bundle(version, copy)
    if state.bento and not BentoStore(workspace.bentos).is_intact(state.bento):
        try:
            promotion.renew(workspace, actor=promotion.actor(), say=say)
        except (RegistryError, ReleaseError) as error:
            say(str(error))


def _packed_bundle(workspace: Workspace, version: Version) -> Path | None:
    """The bundle as it lies in a version's Bento, where it is whole there."""
    tag = record_of(workspace).bento(version.number)
    if tag is None:
        return None
    folder = BentoStore(workspace.bentos).bundle(tag)
    try:
        return folder if digest(folder) == version.bundle_digest else None
    except (BundleError, OSError):
        return None
