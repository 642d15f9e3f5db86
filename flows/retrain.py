"""The retrain flow: data, the stages of dvc.yaml, registration, gate, Bento, trial, promotion, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from ayeaye.core.errors import CheckFailed, RegistryError, ReleaseError, RemoteError, SmokeTestFailed
from ayeaye.core.workspace import Workspace
from ayeaye.data import checks
from ayeaye.flows import events
from ayeaye.flows.place import open_workspace
from ayeaye.flows.prefect_api import PrefectApi
from ayeaye.flows.schedule import make_up_once
from ayeaye.pipeline.prepare import prepare as prepare_dataset
from ayeaye.pipeline.progress import Progress
from ayeaye.release import approval, gate, preflight, promotion
from ayeaye.release.promotion import Judgement
from ayeaye.release.record import Entry
from ayeaye.release.registry import Version
from ayeaye.versioning import dvc, git, layout
from ayeaye.versioning.running import Stages

CHECKED = {"embed": "embeddings", "classes": "class_space"}  # stages, and which place each of them checks
_speaker: Callable[[str], None] | None = None
COMMITTED = ["params.yaml", "dvc.yaml", "dvc.lock", "data/dataset.dvc", "data/.gitignore", "models/.gitignore",
             "reports/.gitignore", ".dvc/config"]  # fmt: skip


def say(text: str) -> None:
    """Tell the run's log, and the person at the command line where there is one."""
    get_run_logger().info(text)
    if _speaker:
        _speaker(text)


def _can_wait(task: Any, run: Any, state: Any) -> bool:
    """Retry only what may come back by itself: a server or a remote that is away."""
    try:
        state.result()
    except (RegistryError, RemoteError):
        return True
    except Exception:
        return False
    return False


@contextmanager
def _showing_checks(workspace: Workspace, place: str | None) -> Iterator[None]:
    """An artifact of what the expectations on a place found, also when one of them stops the run."""
    try:
        yield
    except CheckFailed:
        _show_checks(workspace, place)
        raise
    _show_checks(workspace, place)


def _show_checks(workspace: Workspace, place: str | None) -> None:
    if place and (rows := checks.results(workspace.checks, place)):
        title = f"Expectations on the {checks.PLACES[place].lower()}"
        create_table_artifact(rows, key=f"checks-{place.replace('_', '-')}", description=title)


@task(cache_policy=NO_CACHE)
def prepare(workspace: Workspace) -> dict[str, Any]:
    say("Preparing the dataset.")
    with _showing_checks(workspace, "dataset"):
        summary = prepare_dataset(
            workspace, Progress(), examine=partial(preflight.examine, workspace, say=say)
        )
    say(f"{summary['pictures']} pictures of {summary['classes']} classes, {summary['new']} new, "
        f"{summary['rejected']} rejected.")  # fmt: skip
    for warning in summary["warnings"]:
        say(f"Warning: {warning}.")
    return summary


@task(cache_policy=NO_CACHE)
def track(workspace: Workspace) -> None:
    dvc.add_dataset(workspace)


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[2, 10], retry_condition_fn=_can_wait)
def push(workspace: Workspace) -> None:
    dvc.push_dataset(workspace)


@task(cache_policy=NO_CACHE, timeout_seconds=24 * 3600)
def stage(workspace: Workspace, name: str, stages: Stages) -> bool:
    say(f"Stage {name}.")
    with _showing_checks(workspace, CHECKED.get(name)):
        ran = stages.wait(name)
    say(f"Stage {name} {'done' if ran else 'has nothing new to do'}.")
    return ran


@task(cache_policy=NO_CACHE)
def commit(workspace: Workspace, data_digest: str) -> str:
    return git.commit(workspace, f"Retrain on dataset {data_digest[:12]}", COMMITTED)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 5, 15], retry_condition_fn=_can_wait)
def record(workspace: Workspace, commit: str) -> Version:
    version = promotion.register(workspace, commit)
    figures = promotion.registry_of(workspace).metrics(version)
    rows = [{"figure": name, "value": value} for name, value in sorted(figures.items())]
    create_table_artifact(rows, key="metrics", description=f"Figures of version {version.number}")
    say(f"Registered as version {version.number}.")
    return version


@task(cache_policy=NO_CACHE)
def judge(workspace: Workspace, version: Version) -> Judgement:
    return promotion.judge(workspace, version, Progress())


@task(cache_policy=NO_CACHE)
def pack(workspace: Workspace, version: Version) -> str:
    say(f"Packing the Bento of version {version.number}.")
    return promotion.pack(workspace, version)


@task(cache_policy=NO_CACHE, timeout_seconds=1800)
def try_out(workspace: Workspace, version: Version, tag: str, judgement: Judgement) -> Judgement:
    """The decision after real requests to the candidate's Bento and, where latencies count, to the champion's."""
    say(f"Trying {tag}.")
    try:
        trial = promotion.try_out(workspace, version, tag, say)
    except SmokeTestFailed as error:
        return promotion.fail_trial(judgement, error)
    against, without = None, gate.ALONE
    if judgement.decision.verdict == "untried":  # a latency stands open, so there is a champion
        try:
            against = promotion.try_champion(workspace, say).latency_ms
        except ReleaseError as error:
            # A champion that no longer answers is no reason to keep it.
            without = f"not compared, since the champion's Bento does not answer as it should: {error}"
            say(f"Latency is {without}")
    decided = gate.with_latency(judgement.decision, trial.latency_ms, against, without)
    return Judgement(replace(decided, stand_in=trial.stand_in), judgement.key)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 5, 15], retry_condition_fn=_can_wait)
def settle(workspace: Workspace, version: Version, judgement: Judgement, actor: str) -> None:
    promotion.settle(workspace, version, judgement, actor)
    create_markdown_artifact(
        gate.markdown(judgement.decision), key="decision", description="The gate's decision"
    )


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 5, 15], retry_condition_fn=_can_wait)
def crown(workspace: Workspace, version: Version, tag: str, actor: str) -> None:
    promotion.crown(workspace, version, tag, actor=actor, why=["passed the gate"])
    say(f"Version {version.number} is champion.")


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 5, 15], retry_condition_fn=_can_wait)
def wait(workspace: Workspace, version: Version, tag: str, judgement: Judgement, actor: str) -> None:
    approval.wait(workspace, version, tag, judgement, actor)
    say(f"Version {version.number} waits for approval.")


@task(cache_policy=NO_CACHE, timeout_seconds=1800)
def renew(workspace: Workspace, actor: str) -> str:
    return promotion.renew(workspace, actor=actor, say=say)


@flow(name="retrain", validate_parameters=False, persist_result=False)
def retrain(workspace: str = ".") -> dict[str, Any]:
    """Bring the workspace's classifier up to its data and parameters, and production up to what passes.

    Returns `outcome` (promoted, pending, unchanged or refused), `version`, `message` and `decision`. A refusal is
    a completed run, and so is one that leaves its version waiting for approval: the champion stays.
    """
    found = open_workspace(workspace)
    make_up_once(say)
    with found.lock(say, releasing=False) as lock:
        trained = _train(found, lock)
        with found.releasing(say):
            events.emit_missed(found)
            outcome = _release(found, trained)
    events.emit_outcome(found, outcome)
    return outcome


def _train(workspace: Workspace, lock: int) -> str:
    """Data and stages; returns the commit that keeps them. What is released is not touched, nor held."""
    dvc.require(workspace)
    with workspace.releasing(say):
        layout.clear_remains(workspace)
    workspace.write_fingerprints()

    prepare(workspace)
    changed = dvc.changed(workspace)
    if dvc.DATASET in changed:
        track(workspace)
    data_digest = dvc.dataset_digest(workspace)
    push(workspace)
    if changed:
        new = dvc.affected(workspace, changed)
        for name in CHECKED.keys() - new:  # what its last run found holds for this one
            _show_checks(workspace, CHECKED[name])
        with Stages(workspace, new, lock) as stages:
            for name in new:
                stage(workspace, name, stages)
    else:
        say("No stage has anything new to do.")
    return commit(workspace, data_digest)


def _release(workspace: Workspace, commit: str) -> dict[str, Any]:
    """From what was trained to a champion, or to the reason why not."""
    actor = f"{promotion.FLOW} ({promotion.actor()})"
    version = record(workspace, commit)
    promotion.project(workspace)

    if version.number == promotion.record_of(workspace).state().champion:
        return _kept(workspace, version, actor)
    if left := promotion.set_aside(workspace, version.number):
        return _outcome("unchanged", version, _left_aside(version, left), workspace)
    judgement = judge(workspace, version)
    if approval.waits(workspace, version, judgement):
        return _pending(workspace, version)
    if judgement.decision.verdict == "refused":
        settle(workspace, version, judgement, actor)
        return _refused(workspace, version, judgement)
    tag = pack(workspace, version)
    judgement = try_out(workspace, version, tag, judgement)
    settle(workspace, version, judgement, actor)
    if judgement.decision.verdict == "refused":
        return _refused(workspace, version, judgement)
    if workspace.params.release.approval == "manual":
        wait(workspace, version, tag, judgement, actor)
        return _pending(workspace, version)
    crown(workspace, version, tag, actor)
    return _outcome("promoted", version, f"Version {version.number} is champion ({tag}).", workspace)


def _kept(workspace: Workspace, version: Version, actor: str) -> dict[str, Any]:
    """The champion, met again: what has changed may be its Bento, or its figures."""
    message = f"Nothing new: version {version.number} is champion."
    reasons = ""
    # First, since the card in the Bento tells of it.
    if not promotion.judged(workspace, version):
        judgement = judge(workspace, version)
        settle(workspace, version, judgement, actor)
        reasons = "; ".join(judgement.decision.reasons)
    if not promotion.current(workspace, version):
        tag = renew(workspace, actor)
        message = f"Version {version.number} is champion as before, in a new Bento ({tag})."
    if reasons:
        message = f"Version {version.number} stays champion, but its new evaluation fails the gate: {reasons}"
        events.emit(workspace, "refused", message, version=version.number, champion=version.number)
    return _outcome("unchanged", version, message, workspace)


def _left_aside(version: Version, left: Entry) -> str:
    refused = left.action == "refuse"
    said = "refused" if refused else "rolled back from"
    back = f"ayeaye promote {version.number}{' --force' if refused else ''}"
    return (
        f"Nothing new: version {version.number} was {said} by {left.actor} ({'; '.join(left.why)}); "
        f"`{back}` makes it champion."
    )


def _pending(workspace: Workspace, version: Version) -> dict[str, Any]:
    number = version.number
    message = (
        f"Version {number} passed the gate and waits: `ayeaye approve {number}` makes it champion, "
        f"`ayeaye refuse {number} --reason …` does not."
    )
    return _outcome("pending", version, message, workspace)


def _refused(workspace: Workspace, version: Version, judgement: Judgement) -> dict[str, Any]:
    champion = promotion.record_of(workspace).state().champion
    stays = f"version {champion} stays champion" if champion else "there is no champion"
    message = f"Version {version.number} is refused, {stays}: {'; '.join(judgement.decision.reasons)}"
    return _outcome("refused", version, message, workspace)


def _outcome(kind: str, version: Version, message: str, workspace: Workspace) -> dict[str, Any]:
    state = promotion.record_of(workspace).state()
    decision = promotion.decision_of(workspace, version)
    return {
        "outcome": kind,
        "version": version.number,
        "champion": state.champion,
        "bento": state.bento,
        "message": message,
        "decision": decision,
    }


def run(workspace: Workspace, api: PrefectApi, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Run the flow from the command line, as a client of a Prefect API."""
    global _speaker
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with api.settings():
        _speaker = say
        try:
            return retrain(str(workspace.root))
        finally:
            _speaker = None
            for queue in (APILogWorker, EventsWorker):
                queue.drain_all(timeout=5)  # what is still queued when the server ends is lost
