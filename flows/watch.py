"""The watch flow: production's answers against the held-out ones; above the thresholds an event, and a retraining."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from ayeaye.core.workspace import Workspace
from ayeaye.flows import events
from ayeaye.flows.place import open_workspace
from ayeaye.flows.prefect_api import PrefectApi
from ayeaye.flows.schedule import make_up_once
from ayeaye.release.promotion import record_of
from ayeaye.service import watch as watching
from ayeaye.service.watch import DRIFT, Watched


@task(cache_policy=NO_CACHE)
def look(workspace: Workspace, days: float | None) -> Watched:
    return watching.look(workspace, days)


@task(cache_policy=NO_CACHE)
def show(workspace: Workspace, watched: Watched, started: dict[str, Any] | None, said: str) -> Path:
    page = watching.write(workspace, watched, started)
    # No link: from a page of a server, browsers open no file.
    content = f"{watching.markdown(watched)}\n\n{said}\n\nReport: `{page}`"
    create_markdown_artifact(content, key="drift", description="Answers in production against held-out ones")
    return page


@task(cache_policy=NO_CACHE)
def tell(workspace: Workspace, watched: Watched) -> None:
    """Emit the event, to which automations of the server may react."""
    events.emit(workspace, DRIFT, **watched.as_dict())


@task(cache_policy=NO_CACHE)
def retrain(workspace: Workspace, watched: Watched) -> tuple[dict[str, Any] | None, str]:
    """The retraining that was started, if one was, and what to say of it."""
    name = workspace.params.watch.retrain
    if name is None:
        return None, "No retraining is started (watch.retrain is empty)."
    if rests := watching.rests_until(workspace):
        last = watching.last_retraining(workspace) or {}
        return None, (
            f"No retraining is started: drift started one at {last['time'][:16]}, "
            f"and starts none until {rests:%Y-%m-%d %H:%M} UTC (watch.cooldown)."
        )
    now = datetime.now(UTC)
    try:
        started_run = run_deployment(
            name,
            parameters={"workspace": str(workspace.root)},
            timeout=0,
            as_subflow=False,
            tags=["drift"],
            # Killed before it was written down, the next watch of the day finds the same run.
            idempotency_key=f"drift {workspace.identity} {watched.version} {now:%Y-%m-%d}",
        )
    except ObjectNotFound:
        return None, (
            f"No retraining is started: this Prefect server has no deployment {name}. Deploy it as prefect.yaml "
            "says, or run `ayeaye retrain`."
        )
    run = cast(FlowRun, started_run)  # a coroutine only where it is awaited
    started = {
        "time": now.isoformat(timespec="seconds"),
        "version": watched.version,
        "run": str(run.id),
        "deployment": name,
    }
    return started, f"Retraining is started: run {run.name} of {name}."


@flow(name="watch", validate_parameters=False, persist_result=False)
def watch(workspace: str = ".", days: float | None = None) -> dict[str, Any]:
    """Compare the champion's answers of the last days with those on pictures held out of its training.

    Returns what `drift.json` holds, with `page` and, under `message`, all that a person should know. Before the
    first champion that is `verdict` and `message` alone: nothing failed.
    """
    found = open_workspace(workspace)
    say = get_run_logger().info
    make_up_once(say)
    if record_of(found).state().champion is None:
        say(watching.NOTHING_YET)
        return {"verdict": watching.NO_CHAMPION, "message": watching.NOTHING_YET}
    watched = look(found, days)
    say(watched.message)
    started, said = None, ""
    if watched.verdict == DRIFT:
        tell(found, watched)
        started, said = retrain(found, watched)
        say(said)
    page = show(found, watched, started, said)
    message = f"{watched.message} {said}".strip()
    return {**watched.as_dict(), "message": message, "retraining": started, "page": str(page)}


def run(workspace: Workspace, api: PrefectApi, days: float | None = None) -> dict[str, Any]:
    """Run the flow from the command line, as a client of a Prefect API; raises what `look` raises."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with api.settings():
        try:
            return watch(str(workspace.root), days)
        finally:
            drains: tuple[Callable[..., Any], ...] = (APILogWorker.drain_all, EventsWorker.drain_all)
            for drain in drains:
                drain(timeout=5)  # what is still queued when the server ends is lost
