"""The schedule: prefect.yaml applied to a real Prefect server, and a run of it through a real worker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect_servers import Server
from workspaces import Place, wait_for

from ayeaye.core.processes import start, stop
from ayeaye.core.workspace import Workspace
from ayeaye.flows.events import resource

pytestmark = pytest.mark.slow
POOL = "ayeaye"
DEPLOYMENT = "retrain/weekly-retrain"


@pytest.fixture(scope="module")
def place(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace with something to do at the next run, which a person has to approve."""
    place = trained.copy(tmp_path_factory.mktemp("scheduled"))
    place.set("train.folds=4", "release.approval=manual")
    return place


@pytest.fixture(scope="module")
def deployment(server: Server, place: Place) -> dict[str, Any]:
    """prefect.yaml of the workspace, applied as its first lines say."""
    # Other tests deploy to the same server, and the pool is everybody's.
    server.prefect("work-pool", "create", "--type", "process", "--overwrite", POOL, cwd=place.root)
    server.prefect("deploy", "--all", "--no-prompt", cwd=place.root, AYEAYE_WORKSPACE=str(place.root))
    return server.get(f"deployments/name/{DEPLOYMENT}")


@pytest.fixture(scope="module")
def missed(server: Server, deployment: dict[str, Any]) -> list[str]:
    """Runs that the schedule made and that are overdue, since there was no worker: first to last."""
    start = datetime.now(UTC) + timedelta(seconds=20)
    rule = f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:FREQ=SECONDLY;INTERVAL=1;COUNT=3"
    httpx.post(
        f"{server.url}/deployments/{deployment['id']}/schedules",
        json=[{"schedule": {"rrule": rule, "timezone": "UTC"}, "active": True}],
        timeout=30,
    ).raise_for_status()
    # What was changed a moment ago is scheduled at once, and a new schedule alone counts for no change.
    httpx.patch(
        f"{server.url}/deployments/{deployment['id']}", json={"description": "Often."}, timeout=30
    ).raise_for_status()

    def overdue() -> list[str]:
        now = datetime.now(UTC)
        runs = [run for run in server.runs(deployment["id"]) if run["auto_scheduled"]]
        runs = [run for run in runs if datetime.fromisoformat(run["expected_start_time"]) < now]
        return [run["id"] for run in sorted(runs, key=lambda run: run["expected_start_time"])]

    wait_for(lambda: len(overdue()) == 3, 120, "no run is overdue")
    return overdue()


@pytest.fixture(scope="module")
def worker(server: Server, missed: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a worker that runs somewhere else than in the workspace."""
    folder = tmp_path_factory.mktemp("worker")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (folder / "worker.log").open("wb") as log:
        process = start(command, env=server.environment, cwd=folder, log=log)
        try:
            yield folder / "worker.log"
        finally:
            stop(process)


def test_the_deployment_runs_weekly_and_one_at_a_time(deployment: dict[str, Any], place: Place) -> None:
    (schedule,) = deployment["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * 1"
    assert schedule["active"] is True
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deployment["parameters"] == {"workspace": str(place.root)}


def test_the_watch_runs_daily_and_a_second_run_beside_it_is_cancelled(
    server: Server, deployment: dict[str, Any], place: Place
) -> None:
    watch = server.get("deployments/name/watch/daily-drift-watch")
    (schedule,) = watch["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 5 * * *", True)
    assert watch["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert watch["parameters"] == {"workspace": str(place.root)}
    # What drift starts unless it is told otherwise.
    assert Workspace(place.root).params.watch.retrain == DEPLOYMENT


def test_the_scheduler_makes_runs_of_it(server: Server, deployment: dict[str, Any]) -> None:
    def scheduled() -> list[datetime]:
        runs = [run for run in server.runs(deployment["id"]) if run["auto_scheduled"]]
        assert {run["state"]["type"] for run in runs} <= {"SCHEDULED"}
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)

    wait_for(lambda: len(scheduled()) >= 2, 120, "no run was scheduled")
    first, following = scheduled()[:2]
    assert first > datetime.now(UTC)
    assert (following - first).days == 7
    assert (first.weekday(), first.hour, first.minute) == (0, 3, 0)


def completed(server: Server, run: str, worker: Path) -> None:
    """Return when a run ended well."""

    def state() -> str:
        return server.get(f"flow_runs/{run}")["state"]["type"]

    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    wait_for(lambda: state() in ended, 500, f"the run did not end: {worker.read_text()[-2000:]}")
    assert state() == "COMPLETED", worker.read_text()[-4000:]


def test_a_worker_makes_up_once_for_the_runs_that_were_missed(
    server: Server, missed: list[str], worker: Path, place: Place
) -> None:
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def states() -> list[str]:
        return [server.get(f"flow_runs/{id}")["state"]["type"] for id in missed]

    wait_for(lambda: set(states()) <= ended, 500, f"the runs did not end: {worker.read_text()[-2000:]}")
    assert sorted(states()) == ["CANCELLED", "CANCELLED", "COMPLETED"], worker.read_text()[-4000:]
    ran = server.get(f"flow_runs/{missed[states().index('COMPLETED')]}")
    for id in missed:
        if id != ran["id"]:
            assert server.get(f"flow_runs/{id}")["state"]["message"] == f"Made up for by {ran['name']}."

    artifacts = server.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [ran["id"]]}})
    kinds = {(each["key"], each["type"]) for each in artifacts}
    assert kinds == {
        ("checks-dataset", "table"),
        ("checks-embeddings", "table"),
        ("checks-class-space", "table"),
        ("metrics", "table"),
        ("decision", "markdown"),
    }
    rows = json.loads(next(each for each in artifacts if each["key"] == "checks-dataset")["data"])
    assert {"about": "manifest", "expectation": "no picture occurs twice", "met": True, "found": ""} in rows
    decision = next(each for each in artifacts if each["key"] == "decision")
    assert decision["data"].startswith("**promoted**")
    status = place.status
    assert (status["champion"]["version"], status["pending"]["version"]) == (1, 2)
    # What matters lies in the workspace, also when a worker did it.
    assert (place.root / ".ayeaye" / "bentoml" / "bentos").is_dir()


def test_the_form_in_the_page_asks_for_a_decision(server: Server, deployment: dict[str, Any]) -> None:
    asked = server.get("deployments/name/promote/promote")["parameter_openapi_schema"]
    assert asked["properties"]["decision"]["enum"] == ["approve", "refuse", "promote", "rollback"]
    assert asked["required"] == ["decision", "version"]
    assert all(each["description"] for each in asked["properties"].values())


def give_word(server: Server, worker: Path, **parameters: Any) -> str:
    """Have a promote run end well; returns its id."""
    promote = server.get("deployments/name/promote/promote")["id"]
    run = server.post(f"deployments/{promote}/create_flow_run", parameters=parameters)["id"]
    completed(server, run, worker)
    return run


def told(server: Server, place: Place, kind: str, run: str) -> list[dict[str, Any]]:
    """What a run of the workspace emitted of that kind."""
    content = {"filter": {"event": {"name": [f"ayeaye.{kind}"]}}, "limit": 50}
    related = f"prefect.flow-run.{run}"
    return [
        event["payload"]
        for event in server.post("events/filter", **content)["events"]
        if event["resource"]["prefect.resource.id"] == resource(Workspace(place.root))
        and related in [each["prefect.resource.id"] for each in event["related"]]
    ]


def test_what_waits_is_approved_through_the_deployment(server: Server, worker: Path, place: Place) -> None:
    run = give_word(server, worker, decision="approve", version=2, reason="seen by ann")
    status = place.status
    assert (status["champion"]["version"], status["previous"]["version"]) == (2, 1)
    assert status["pending"] is None
    last = place("log", "--json").json[0]
    assert last["actor"].startswith("promote flow (") and last["why"] == ["seen by ann"]
    wait_for(lambda: told(server, place, "promoted", run), 30, "nobody was told")
    (event,) = told(server, place, "promoted", run)
    assert (event["version"], event["bento"]) == (2, status["champion"]["bento"])
    assert event["message"].endswith(": seen by ann")


def test_a_rollback_that_is_run_again_does_not_undo_itself(
    server: Server, worker: Path, place: Place
) -> None:
    run = give_word(server, worker, decision="rollback", version=2)
    assert (place.status["champion"]["version"], place.status["previous"]["version"]) == (1, 2)
    entries = place("log", "--json").json
    server.set_state(run, "SCHEDULED")  # as `ayeaye down` leaves one that was at work
    wait_for(lambda: server.get(f"flow_runs/{run}")["run_count"] == 2, 120, "it is not run again")
    completed(server, run, worker)
    assert place.status["champion"]["version"] == 1
    assert place("log", "--json").json == entries
    wait_for(lambda: told(server, place, "promoted", run), 30, "nobody was told")
    (event,) = told(server, place, "promoted", run)
    assert event["version"] == 1


def test_a_refusal_by_a_person_is_told(server: Server, worker: Path, place: Place) -> None:
    run = give_word(server, worker, decision="refuse", version=2, reason="too dark")
    wait_for(lambda: told(server, place, "refused", run), 30, "nobody was told")
    (event,) = told(server, place, "refused", run)
    assert (event["version"], event["champion"]) == (2, 1)
    assert event["message"].startswith("Version 2 is refused, version 1 stays champion: promote flow (")
    assert event["message"].endswith(": too dark")
