"""The release protocol: registered, passed the gate, Bento built, Bento tried, champion.

Each step finds what an earlier, killed call left of it and goes on from there. The promotion record is the
truth; the registry's aliases are its projection. The caller holds what is released (`Workspace.releasing`).
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.classifier.model import Classifier, digest
from ayeaye.core.errors import Incomparable, NoCard, ReleaseError, SmokeTestFailed
from ayeaye.core.files import digest_file, write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data.decode import Limits
from ayeaye.data.prepare_dataset import quarantine
from ayeaye.data.table import Dataset
from ayeaye.packaging.bento import CARD, BentoStore, GoldenRequest, Recipe
from ayeaye.packaging.smoke_test import SmokeTestResult, smoke_test
from ayeaye.pipeline.evaluate import HEADLINE
from ayeaye.pipeline.progress import Progress
from ayeaye.release import card, compare, gate
from ayeaye.release.card import Card
from ayeaye.release.gate import Decision
from ayeaye.release.record import MOVES, Action, Entry, Record
from ayeaye.release.registry import CHALLENGER, CHAMPION, PREVIOUS, REMOVED, Registry, Training, Version
from ayeaye.version import __version__
from ayeaye.versioning import dvc, git

Say = Callable[[str], None]
# With which entries in the record begin that the flow made, and the service: any other was made by hand.
FLOW, SERVICE = "retrain flow", "service"
ANCHOR = "record"  # the model's tag with length and newest digest of the record
# Figures that GET /model tells beside the headline: whether its confidence and its "none of these" can be trusted.
TRUST = (
    "reliability.ece",
    "none_of_these.false_accept",
    "none_of_these.accepted.unknown",
    "none_of_these.accepted.seen",
    "none_of_these.accepted.unseen",
)
GOLDEN_EACH = 3  # requests with pictures of seen, and of unseen classes


def _silent(text: str) -> None:
    pass


def registry_of(workspace: Workspace) -> Registry:
    release = workspace.params.release
    return Registry(release.tracking, release.model, workspace.state / "mlflow", workspace.identity)


def record_of(workspace: Workspace) -> Record:
    return Record(workspace.release / "record.jsonl")


# Registered


def register(workspace: Workspace, commit: str) -> Version:
    """The version of the current bundle, with its params, figures, dataset, pictures, tags and card."""
    reports = workspace.reports
    dataset = Dataset.load(workspace.dataset)
    data_digest = dvc.dataset_digest(workspace)
    params = workspace.params
    version = registry_of(workspace).record(
        Training(
            bundle_folder=workspace.classifier,
            bundle_digest=digest(workspace.classifier),
            evaluation_digest=evaluation_digest(workspace),
            params=_flat_params(params.model_dump(mode="json")),
            metrics=_metrics(workspace),
            pictures=[
                reports / "index.html",
                reports / "metrics.json",
                reports / "predictions.parquet",
                reports / "reference.parquet",
                reports / "plots",
                workspace.dataset / "manifest.parquet",
            ],
            dataset={
                "name": params.prepare.source,
                "digest": data_digest,
                "source": params.prepare.remote,
                "pictures": len(dataset.manifest),
                "classes": len(dataset.classes.names),
                "rejected": len(quarantine(workspace.dataset)),
            },
            tags={
                "data_digest": data_digest,
                "git_commit": commit,
                "params_digest": params.digest(),
                "lock": digest_file(workspace.root / "dvc.lock"),
                "estimated_on": _metrics(workspace)["estimated_on"],
                **_code(workspace),
            },
        )
    )
    keep_card(workspace, version)
    return version


def _code(workspace: Workspace) -> dict[str, str]:
    """Which ayeaye this is: its version, the digest of each stage's code, its commit where it runs from a checkout."""
    stages = " ".join(f"{stage}={digest}" for stage, digest in sorted(workspace.fingerprints().items()))
    commit = git.code_commit()
    return {"ayeaye_version": __version__, "code": stages, **({"code_commit": commit} if commit else {})}


def evaluation_digest(workspace: Workspace) -> str:
    """What an evaluation found, as a digest of its figures, predictions and reference."""
    names = ("metrics.json", "predictions.parquet", "reference.parquet")
    found = [digest_file(workspace.reports / name) for name in names]
    return hashlib.sha256("".join(found).encode()).hexdigest()


# The card


def card_of(workspace: Workspace, version: Version, *, packed: bool = False) -> Card:
    """What is recorded of a version, for a person; `packed` as it goes into a Bento (see `card.of`)."""
    return card.of(registry_of(workspace), version, workspace.params, packed=packed)


def version_called(workspace: Workspace, name: str) -> Version:
    """A version by its number, or by what it is to the record: `champion` or `previous`; raises ReleaseError."""
    state = record_of(workspace).state()
    known = {CHAMPION: state.champion, PREVIOUS: state.previous}
    number = int(name) if name.isdecimal() else known.get(name)
    if number is None:
        raise ReleaseError(
            f"there is no {name} yet: see `ayeaye status`"
            if name in known
            else f"{name!r} is no version: expected a number, {' or '.join(known)}; `ayeaye status` lists them"
        )
    return registry_of(workspace).version(number)


def card_file(workspace: Workspace, version: Version, name: str) -> bytes:
    """`card.html`, `.md` or `.json` of a version: made now, or as it was kept of one that was removed."""
    if version.tags.get(REMOVED) and (kept := registry_of(workspace).artifact(version, name)):
        return kept.read_bytes()
    return card_of(workspace, version).files()[name]


def keep_card(workspace: Workspace, version: Version) -> None:
    """Bring the card that the registry has of a version up to what is recorded of it."""
    if made := _card(workspace, version):
        registry_of(workspace).describe(version, made.description(), made.files())


def _card(workspace: Workspace, version: Version, *, packed: bool = False) -> Card | None:
    """None where it cannot be made: neither a promotion nor a way back hangs on it."""
    try:
        return card_of(workspace, version, packed=packed)
    except NoCard:
        return None


def _keep_decision(workspace: Workspace, version: Version, judgement: Judgement) -> None:
    """Beside the version's run, where it outlives the decision file: each version's own, and on which evaluation."""
    content = {"evaluation": evaluation_digest(workspace), **judgement.decision.as_dict()}
    registry_of(workspace).keep(version, {"decision.json": json.dumps(content, indent=1).encode()})


# The gate


@dataclass(frozen=True)
class Judgement:
    """A decision, and the digest of the figures, champion and thresholds that it was made from."""

    decision: Decision
    key: str


def judge(workspace: Workspace, version: Version, progress: Progress) -> Judgement:
    """Decide on a version by the current evaluation, against the champion where there is one.

    What was decided before is known; only a trial may end otherwise, and is made again.
    """
    release = workspace.params.release
    gate.check_thresholds(release)
    champion = record_of(workspace).state().champion
    if version.number != champion:
        registry_of(workspace).set_alias(CHALLENGER, version)
    key = hashlib.sha256(
        json.dumps([evaluation_digest(workspace), champion, release.model_dump(mode="json")]).encode()
    ).hexdigest()
    before = _read_decision(workspace)
    if before and before["key"] == key and before["version"] == version.number and version.tags.get("gate"):
        return _judged(workspace, version, Judgement(gate.untried(gate.from_dict(before)), key))
    against = champion if champion != version.number else None
    found, incomparable = compare.Compared([], []), ""
    if against is not None:
        try:
            found = _compared(workspace, version, against, progress)
        except Incomparable as error:
            incomparable = str(error)
    decision = gate.decide(
        _metrics(workspace), release, against, found.losses, incomparable, found.not_judged
    )
    return _judged(workspace, version, Judgement(decision, key))


def _judged(workspace: Workspace, version: Version, judgement: Judgement) -> Judgement:
    # Before the Bento is packed: the floors and ceilings are part of the card in it.
    _keep_decision(workspace, version, judgement)
    return judgement


def judged(workspace: Workspace, version: Version) -> bool:
    """Whether there is a decision on the current evaluation of a version."""
    return version.tags.get("judged") == evaluation_digest(workspace)


def _compared(workspace: Workspace, version: Version, champion: int, progress: Progress) -> compare.Compared:
    registry = registry_of(workspace)
    before = registry.version(champion)
    pair = compare.between(workspace, registry, version, before, progress)
    leaked = compare.leaked(_metrics(workspace), compare.figures_of(registry, before))
    groups = compare.groups_of(Dataset.load(workspace.dataset).classes)
    return compare.compared(pair, workspace.params, compare.slices_of(pair, groups, leaked))


def settle(workspace: Workspace, version: Version, judgement: Judgement, actor: str) -> None:
    """Write the decision file and the version's tags; a refusal goes into the record, once."""
    decision = judgement.decision
    content = {"version": version.number, "key": judgement.key, **decision.as_dict()}
    write_atomic(workspace.release / "decision.json", json.dumps(content, indent=1).encode())
    verdict = {"promoted": "passed", "refused": "refused", "untried": "untried"}[decision.verdict]
    reasons = "; ".join(decision.reasons)
    registry = registry_of(workspace)
    if verdict == "refused":
        last = record_of(workspace).last(version.number, "refuse")
        if last is None or last.digests.get("decision") != judgement.key:
            digests = {"decision": judgement.key}
            enter(workspace, "refuse", version, actor=actor, why=decision.reasons, digests=digests)
        registry.tag(version, gate=verdict, reasons=reasons[:4000])
        registry.set_alias(CHALLENGER, _waiting(workspace))
    else:
        registry.tag(version, gate=verdict)
        registry.untag(version, "reasons")
    _keep_decision(workspace, version, judgement)
    keep_card(workspace, version)
    registry.tag(version, judged=evaluation_digest(workspace))  # last: killed before, all of it is done again


# Bento and trial


def pack(workspace: Workspace, version: Version) -> str:
    """Build the Bento of a version where it is not there yet; returns its tag."""
    recipe = _recipe(workspace, version)
    if digest(recipe.bundle) != version.bundle_digest:
        raise ReleaseError(
            f"the bundle of version {version.number} in {recipe.bundle} is not the one that was registered: "
            "restore it, or retrain"
        )
    return BentoStore(workspace.bentos).build(recipe)


def _recipe(workspace: Workspace, version: Version) -> Recipe:
    registry = registry_of(workspace)
    figures, made = registry.metrics(version), _card(workspace, version, packed=True)
    files = made.files() if made else {}
    return Recipe(
        name=workspace.params.release.model,
        version=version.number,
        bundle=registry.bundle(version),
        bundle_digest=version.bundle_digest,
        template=workspace.root / "bentofile.yaml",
        serve=workspace.params.serve,
        data_digest=version.tags.get("data_digest"),
        metrics={
            "estimated_on": version.tags.get("estimated_on"),
            **{name: figures[name] for name in (*HEADLINE, *TRUST) if name in figures},
        },
        card={name: files[name] for name in CARD if name in files},
    )


def try_out(workspace: Workspace, version: Version, tag: str, say: Say = _silent) -> SmokeTestResult:
    """Real requests to the Bento; raises SmokeTestFailed when it fails twice, since a machine may be busy once.

    Those of an earlier trial, where it had one: they need no dataset, at which a retrain may be at work.
    """
    golden = BentoStore(workspace.bentos).kept_golden(tag) or golden_requests(
        workspace, registry_of(workspace).bundle(version), BentoStore(workspace.bentos).limits(tag)
    )
    trial = partial(
        smoke_test, BentoStore(workspace.bentos), tag, golden, bundle_digest=version.bundle_digest, say=say
    )
    try:
        tried = trial()
    except SmokeTestFailed as error:
        say(f"{error}; trying once more.")
        tried = trial()
    BentoStore(workspace.bentos).keep_golden(tag, golden)
    return tried


def try_champion(workspace: Workspace, say: Say = _silent) -> SmokeTestResult:
    """Real requests to the champion's Bento; raises ReleaseError where it is gone, SmokeTestFailed where it fails."""
    state = record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion yet: run `ayeaye retrain`")
    return try_out(workspace, registry_of(workspace).version(state.champion), state.bento, say)


def golden_requests(workspace: Workspace, bundle: Path, limits: Limits) -> list[GoldenRequest]:
    """Test pictures of seen and unseen classes with the answers that the bundle gives here."""
    dataset = Dataset.load(workspace.dataset)
    classifier = Classifier.load(bundle)
    requests = []
    for split in ("test_seen", "test_unseen"):
        rows = dataset.manifest[dataset.manifest["split"] == split].sort_values("id")
        for row in rows.drop_duplicates("label").head(GOLDEN_EACH).itertuples():
            content = dataset.picture(str(row.id))
            if dataset.kind == "features":
                content, answer = _features_request(classifier, np.frombuffer(content, dataset.dtype))
            else:
                answer = classifier.classify([content], limits)[0]
            # A picture over the limits of the service is a 4xx there, too.
            expected = answer if isinstance(answer, dict) else None
            requests.append(GoldenRequest(f"{row.label} ({split})", content, expected))
    return requests


def _features_request(classifier: Classifier, row: np.ndarray) -> tuple[bytes, Any]:
    """A service of features takes one row as an .npy file in place of a picture."""
    content = io.BytesIO()
    np.save(content, row)
    return content.getvalue(), classifier.answers(classifier.scores(row[None].astype(np.float32)))[0]


# Champion


def crown(
    workspace: Workspace,
    version: Version,
    tag: str,
    *,
    action: Action = "promote",
    actor: str,
    why: list[str],
) -> None:
    """Append to the record that a tried Bento is champion, then bring the aliases after it."""
    record = record_of(workspace)
    state = record.state()
    if state.champion != version.number or state.bento != tag:
        enter(workspace, action, version, actor=actor, why=why, digests={"bento": tag})
    project(workspace)


def enter(
    workspace: Workspace,
    action: Action,
    version: Version,
    *,
    actor: str,
    why: Sequence[str],
    digests: Mapping[str, str] | None = None,
) -> Entry:
    """Append an entry about a version, with what made it and its headline figures as they are now."""
    check_anchor(workspace)
    figures = registry_of(workspace).metrics(version)
    found = {
        "bundle": version.bundle_digest,
        "data": version.tags.get("data_digest", ""),
        "params": version.tags.get("params_digest", ""),
        "commit": version.tags.get("git_commit", ""),
        **(digests or {}),
    }
    entry = record_of(workspace).append(
        action,
        version.number,
        actor=actor,
        why=why,
        digests=found,
        figures={name: round(figures[name], 6) for name in HEADLINE if name in figures},
    )
    anchor(workspace)
    return entry


def check_anchor(workspace: Workspace) -> None:
    """Raise ReleaseError where the record is not a continuation of the one whose end the registry keeps.

    The chain of digests shows what was changed in the middle of it; this, that its end is gone or another one.
    """
    length, _, digest = (registry_of(workspace).marked(ANCHOR) or "0").partition(" ")
    entries = record_of(workspace).entries()
    if int(length) > len(entries):
        what = f"holds {len(entries)} entries, and the registry knows of {length}: its end was removed"
    elif int(length) and entries[int(length) - 1].digest != digest:
        what = f"has another entry {length} than the registry knows: it was written anew"
    else:
        return
    raise ReleaseError(
        f"{record_of(workspace).path} {what}; restore it from a backup of the workspace, or take it as it is with "
        "`ayeaye repair --accept-record`"
    )


def anchor(workspace: Workspace) -> None:
    """Keep the end of the record in the registry, where no one who changes the file changes it too."""
    length, digest = record_of(workspace).head()
    if length:
        registry_of(workspace).mark(ANCHOR, f"{length} {digest}")


def _waiting(workspace: Workspace) -> int | None:
    pending = record_of(workspace).state().pending
    return pending.to if pending else None


def project(workspace: Workspace) -> None:
    """Bring the registry's aliases to what the record says.

    A challenger is one only while it is judged, or waits for approval.
    """
    check_anchor(workspace)
    state = record_of(workspace).state()
    registry = registry_of(workspace)
    registry.set_alias(CHALLENGER, _waiting(workspace))
    anchor(workspace)
    if state.champion is None:
        return
    registry.set_alias(CHAMPION, state.champion)
    versions = registry.versions()
    there = {version.number for version in versions}
    registry.set_alias(PREVIOUS, state.previous if state.previous in there else None)
    for version in versions:
        if version.number == state.champion and version.tags.get("bento") != state.bento:
            registry.tag(version, bento=state.bento or "")


def current(workspace: Workspace, champion: Version) -> bool:
    """Whether the champion's Bento is whole, and what would be packed today.

    Another ayeaye, other limits of the service and new figures make another one.
    """
    tag = record_of(workspace).state().bento
    return tag == _recipe(workspace, champion).tag() and BentoStore(workspace.bentos).is_intact(tag)


def renew(workspace: Workspace, *, actor: str, say: Say = _silent) -> str:
    """The tag of the champion's Bento; packed, tried and recorded anew where it is not current."""
    state = record_of(workspace).state()
    if state.champion is None or state.bento is None:
        raise ReleaseError("there is no champion yet: run `ayeaye retrain`")
    version = registry_of(workspace).version(state.champion)
    if current(workspace, version):
        return state.bento
    why = f"{state.bento} is lost, damaged or out of date"
    say(f"{why}: version {version.number} is packed again.")
    return _release(workspace, version, "promote", actor, why, say)


def _release(workspace: Workspace, version: Version, action: Action, actor: str, why: str, say: Say) -> str:
    tag = _tried_as_it_was(workspace, version, say) if action == "rollback" else None
    if tag is None:
        say(f"Packing version {version.number}.")
        tag = pack(workspace, version)
        say(f"Trying {tag}.")
        try_out(workspace, version, tag, say)
    crown(workspace, version, tag, action=action, actor=actor, why=[why])
    return tag


def _tried_as_it_was(workspace: Workspace, version: Version, say: Say) -> str | None:
    """The Bento with which a version was champion, where it is whole and answers: a rollback undoes all of it."""
    tag = record_of(workspace).bento(version.number)
    if tag is None or not BentoStore(workspace.bentos).is_intact(tag):
        return None
    say(f"Trying {tag}.")
    try:
        try_out(workspace, version, tag, say)
    except SmokeTestFailed as error:
        say(f"{error}; it is packed anew.")
        return None
    return tag


def set_aside(workspace: Workspace, version: int) -> Entry | None:
    """The entry, if it is the newest word about a version, with which a person or the service went back from it.

    Another promotion of something newer says nothing against it.
    """
    for entry in reversed(record_of(workspace).entries()):
        by_gate = entry.actor.startswith(FLOW)
        if entry.action == "refuse" and entry.to == version and not by_gate:
            return entry
        if entry.action in MOVES:
            if entry.to == version:
                return None
            back = entry.action != "promote" or entry.to < version
            if entry.from_ == version and back and not by_gate:
                return entry
    return None


# What a person asks for


def promote(
    workspace: Workspace,
    number: int,
    *,
    reason: str = "",
    actor: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    say: Say = _silent,
) -> dict[str, Any]:
    """Make a registered version champion; raises ReleaseError for one the gate refused, unless forced.

    The champion itself gets its Bento anew where that is lost, damaged or out of date.
    """
    version = registry_of(workspace).version(number)
    if REMOVED in version.tags:
        raise ReleaseError(
            f"version {number} was removed by `ayeaye gc` at {version.tags[REMOVED]}, and its bundle is gone: choose "
            "another, see `ayeaye status`"
        )
    verdict = version.tags.get("gate", "not judged")
    if verdict != "passed" and not force and number != record_of(workspace).state().champion:
        why = version.tags.get("reasons", "")
        raise ReleaseError(
            f"version {number} did not pass the gate ({verdict}{': ' + why if why else ''}): "
            "promote it all the same with --force and a --reason"
        )
    return _change(workspace, version, "promote", reason or "asked for", actor, dry_run, say)


def rollback(
    workspace: Workspace,
    *,
    away_from: int | None = None,
    reason: str = "",
    actor: str | None = None,
    dry_run: bool = False,
    say: Say = _silent,
) -> dict[str, Any]:
    """Make the previous champion champion again; raises ReleaseError where there is none.

    With `away_from` nothing is done where another version is champion: so called, it may be called again.
    """
    state = record_of(workspace).state()
    if away_from is not None and state.champion is not None and state.champion != away_from:
        version = registry_of(workspace).version(state.champion)
        return _change(workspace, version, "promote", reason, actor, dry_run, say)
    if state.previous is None:
        raise ReleaseError("there is no previous champion to go back to: see `ayeaye status`")
    version = registry_of(workspace).version(state.previous)
    return _change(workspace, version, "rollback", reason or "asked for", actor, dry_run, say)


def restore(
    workspace: Workspace, *, version: int, tag: str, failed: str, reason: str, say: Say = _silent
) -> bool:
    """Make what still serves, `version` with the Bento `tag`, champion again, since `failed` cannot be served.

    False, and nothing is changed, where the champion is another one by now. Takes the lock of what is released;
    raises WorkspaceBusy at once where another run holds it.
    """
    with workspace.releasing(timeout=0):
        if record_of(workspace).state().bento != failed:
            return False
        say(f"{failed} cannot be served ({reason}): {tag} is champion again.")
        restored = registry_of(workspace).version(version)
        by = f"{SERVICE} ({actor()})"
        crown(workspace, restored, tag, action="restore", actor=by, why=[f"{failed}: {reason}"])
        return True


def _change(
    workspace: Workspace,
    version: Version,
    action: Action,
    reason: str,
    by: str | None,
    dry_run: bool,
    say: Say,
) -> dict[str, Any]:
    before = record_of(workspace).state().champion
    check_anchor(workspace)
    if not dry_run and (before != version.number or not current(workspace, version)):
        _release(workspace, version, action, by or actor(), reason, say)
    elif not dry_run:
        project(workspace)
    return {
        "action": action,
        "champion": version.number,
        "before": before,
        "bento": record_of(workspace).bento(version.number),
        "dry_run": dry_run,
    }


def actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def fail_trial(judgement: Judgement, error: SmokeTestFailed) -> Judgement:
    return Judgement(gate.with_trial_failure(judgement.decision, str(error)), judgement.key)


def _metrics(workspace: Workspace) -> dict[str, Any]:
    return json.loads((workspace.reports / "metrics.json").read_bytes())


def decision_of(workspace: Workspace, version: Version) -> dict[str, Any] | None:
    """The decision file, where it is about this version."""
    found = _read_decision(workspace)
    return found if found and found["version"] == version.number else None


def _read_decision(workspace: Workspace) -> dict[str, Any] | None:
    try:
        return json.loads((workspace.release / "decision.json").read_bytes())
    except (OSError, ValueError):
        return None


def _flat_params(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat_params(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
