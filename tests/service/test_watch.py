"""The watch over a real champion: its log, the reference of its version, the page, the event and the retraining."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import workspaces
from browsers import chromium
from PIL import Image, ImageFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from workspaces import Place, wait_for

from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import ReleaseError
from ayeaye.core.workspace import Workspace
from ayeaye.flows.events import resource
from ayeaye.flows.watch import watch as flow
from ayeaye.release.promotion import registry_of
from ayeaye.service import drift_page, watch
from ayeaye.service.answer_log import AnswerLog
from ayeaye.service.database import Database, locate
from ayeaye.service.watch import DRIFT, NO_CHAMPION, NONE, TOO_FEW

pytestmark = pytest.mark.slow
CLEAN, OTHER = range(1000, 1010), range(2000, 2010)  # numbers of paint pictures that no dataset holds


def blurred(content: bytes) -> bytes:
    """Darkened, a paint would be another paint; the grain is what this network knows them by, too."""
    picture, file = Image.open(io.BytesIO(content)).convert("RGB"), io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(2)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def place(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = trained.copy(tmp_path_factory.mktemp("watched"))
    place.set("watch.retrain=retrain/is-not-there")
    return place


@pytest.fixture(scope="module")
def classifier(place: Place) -> Classifier:
    return Classifier.load(registry_of(Workspace(place.root)).bundle(1))


def serve(place: Place, classifier: Classifier, contents: list[bytes], version: int = 1) -> None:
    """The rows that a service would have left of these pictures."""
    embeddings = np.stack(classifier.read(contents))
    vectors = classifier.mapper.map_images(embeddings)
    database = Database(locate(place.root / ".ayeaye" / "service"))
    log = AnswerLog(database)
    for number, (answer, vector) in enumerate(
        zip(classifier.answers(classifier.scores_of(vectors), top=2), vectors, strict=True)
    ):
        first, second = (each["score"] for each in answer["alternatives"])
        log.add_prediction(
            answer=f"{version}-{number}",
            vector=vector,
            margin=first - second,
            model_version=version,
            **{name: answer[name] for name in ("label", "seen", "known", "confidence")},
        )
    log.close()
    database.close()


def pictures(numbers: range) -> list[bytes]:
    return [workspaces.paint(name, number) for name in workspaces.paints() for number in numbers]


@pytest.fixture
def log(place: Place) -> Iterator[Path]:
    """The database of a log that is empty before and after a test."""
    file = place.root / ".ayeaye" / "service" / "service.db"
    yield file
    for path in [*file.parent.glob("service.db*"), *(place.root / "checks" / "drift").glob("*")]:
        path.unlink()


def test_no_answers_are_too_few_and_no_alarm(place: Place, log: Path) -> None:
    done = place("watch", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert done.json["verdict"] == TOO_FEW
    assert "0 answers of version 1" in done.json["message"] and "200 are needed" in done.json["message"]
    assert not (place.root / "checks" / "drift").exists()


def test_pictures_like_the_held_out_ones_are_no_drift(
    place: Place, log: Path, classifier: Classifier
) -> None:
    serve(place, classifier, pictures(CLEAN))
    serve(place, classifier, [blurred(each) for each in pictures(OTHER)], version=2)  # another version's
    done = place("watch", "--json")
    assert done.code == 0, done.err or done.out
    assert done.json["verdict"] == NONE
    assert done.json["answers"] == 260
    assert {figure["figure"] for figure in done.json["figures"]} == {
        "confidence",
        "margin",
        "none_of_these",
        "vectors",
    }
    assert place.read("checks/drift/drift.json")["verdict"] == NONE


def test_blurred_pictures_are_drift_and_the_exit_status_says_so(
    place: Place, log: Path, classifier: Classifier, environment: Mapping[str, str]
) -> None:
    serve(place, classifier, [blurred(each) for each in pictures(OTHER)])
    done = place("watch", "--json")
    assert done.code == 3, done.err or done.out
    found = done.json
    assert found["verdict"] == DRIFT and found["message"].startswith("Drift of ")
    assert "no deployment retrain/is-not-there" in found["message"]
    assert found["retraining"] is None
    left = place.read("checks/drift/drift.json")
    assert {name: left[name] for name in ("version", "verdict", "figures", "answers")} == {
        name: found[name] for name in ("version", "verdict", "figures", "answers")
    }
    wanted = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC", "limit": 1}
    url = environment["PREFECT_API_URL"]
    (artifact,) = httpx.post(f"{url}/artifacts/filter", json=wanted, timeout=30).json()
    assert artifact["data"].startswith("**drift**") and f"`{found['page']}`" in artifact["data"]
    ours = resource(Workspace(place.root))

    def events() -> list[dict[str, Any]]:
        wanted = {"filter": {"event": {"name": ["ayeaye.drift"]}}, "limit": 50}
        asked = (
            httpx.post(f"{url}/events/filter", json=wanted, timeout=30).raise_for_status().json()["events"]
        )
        return [each for each in asked if each["resource"]["prefect.resource.id"] == ours]

    wait_for(events, 30, "the event did not come")
    assert events()[0]["payload"]["verdict"] == DRIFT


def deployment(url: str, name: str) -> str:
    """A deployment of the retrain flow that no worker asks for; returns its id."""
    flow = httpx.post(f"{url}/flows/", json={"name": "retrain"}, timeout=30).json()["id"]
    wanted = {
        "name": name,
        "flow_id": flow,
        "parameters": {"workspace": "another"},
        "enforce_parameter_schema": False,
    }
    return httpx.post(f"{url}/deployments/", json=wanted, timeout=30).raise_for_status().json()["id"]


def test_drift_starts_a_retraining_once_in_the_cooldown(
    place: Place, log: Path, classifier: Classifier, environment: Mapping[str, str]
) -> None:
    url = environment["PREFECT_API_URL"]
    id = deployment(url, "for-drift")

    def runs() -> list[dict[str, Any]]:
        wanted = {"deployments": {"id": {"any_": [id]}}}
        return httpx.post(f"{url}/flow_runs/filter", json=wanted, timeout=30).json()

    place.set("watch.retrain=retrain/for-drift", "watch.cooldown=7")
    try:
        serve(place, classifier, [blurred(each) for each in pictures(OTHER)])
        first = place("watch", "--json").json
        (run,) = runs()
        assert run["parameters"] == {"workspace": str(place.root)}
        assert run["id"] == first["retraining"]["run"]
        assert run["state"]["type"] == "SCHEDULED"
        second = place("watch", "--json")
        assert second.code == 3
        assert second.json["retraining"] is None and "starts none until" in second.json["message"]
        assert len(runs()) == 1
        # Killed before it was written down: the same run is found again.
        (place.root / "checks" / "drift" / "drift.json").unlink()
        third = place("watch", "--json").json
        assert third["retraining"]["run"] == run["id"] and len(runs()) == 1
    finally:
        place.set("watch.retrain=retrain/is-not-there")


def test_what_was_started_is_not_forgotten_by_a_week_without_drift(
    place: Place, log: Path, classifier: Classifier
) -> None:
    workspace = Workspace(place.root)
    watched = watch.look(workspace)
    started = {"time": (datetime.now(UTC) - timedelta(days=2)).isoformat(), "version": 1, "run": "r"}
    watch.write(workspace, watched, started)
    watch.write(workspace, watched)
    assert watch.last_retraining(workspace) == started
    rests = watch.rests_until(workspace)
    assert rests is not None and timedelta(days=4.9) < rests - datetime.now(UTC) < timedelta(days=5)
    place.set("watch.cooldown=1")
    assert watch.rests_until(Workspace(place.root)) is None
    place.set("watch.cooldown=7")


def test_labels_are_held_against_the_weeks_before(place: Place, log: Path, classifier: Classifier) -> None:
    serve(place, classifier, pictures(CLEAN))
    later = datetime.now(UTC) + timedelta(days=10)
    workspace = Workspace(place.root)
    assert watch.look(workspace, now=later).verdict == TOO_FEW
    assert len(watch.look(workspace, now=later).earlier) == 260
    with_earlier = watch.look(workspace, days=20, now=later)
    assert len(with_earlier.labels) == 260 and not len(with_earlier.earlier)


def test_the_page_draws_the_same_differences_and_asks_nothing_from_outside(
    place: Place, log: Path, classifier: Classifier
) -> None:
    serve(place, classifier, [blurred(each) for each in pictures(OTHER)])
    workspace = Workspace(place.root)
    watched = watch.look(workspace)
    assert watched.reference and watched.comparison
    ours = {figure.figure: figure.difference for figure in watched.comparison.figures}
    snapshot = drift_page.distributions(watched.reference, watched.comparison).dict()
    theirs = {each["config"]["column"]: float(each["value"]) for each in snapshot["metrics"]}
    for figure in ("confidence", "margin", "vectors"):
        # It has the weights of the reference as repeated pictures.
        assert theirs[drift_page.DRAWN[figure]] == pytest.approx(ours[figure], rel=0.15, abs=0.05)
    page = watch.write(workspace, watched)
    asked: list[str] = []
    with chromium() as browser:
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        frame = tab.frame_locator("iframe")
        frame.get_by_text("confidence", exact=False).first.wait_for(timeout=30_000)
        assert "Drift of" in tab.inner_text(".verdict")
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert outside == []


def test_a_version_without_a_reference_is_an_error_that_says_what_to_do(
    place: Place, log: Path, classifier: Classifier
) -> None:
    serve(place, classifier, pictures(CLEAN))
    path = registry_of(Workspace(place.root)).artifact(1, "reference.parquet")
    assert path is not None
    hidden = path.rename(path.with_name("hidden"))
    try:
        with pytest.raises(ReleaseError, match="earlier ayeaye; retrain"):
            watch.look(Workspace(place.root))
    finally:
        hidden.rename(path)


def test_without_a_champion_there_is_nothing_to_watch(tmp_path: Path, environment: Mapping[str, str]) -> None:
    place = workspaces.make(tmp_path / "fresh", tmp_path, environment)
    for arguments in (["--dry-run"], []):
        done = place("watch", *arguments)
        assert done.code == 1 and "no champion to watch yet" in done.err
    # The daily run is there from the first day on, and has nobody told that it failed.
    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        found = flow(str(place.root))
    assert found["verdict"] == NO_CHAMPION and "no champion to watch yet" in found["message"]
    assert not (place.root / "checks" / "drift").exists()


def test_only_what_is_watched_may_have_a_threshold(place: Place) -> None:
    done = place("set", "watch.maximum.colour=0.1")
    assert done.code == 1 and "colour is not watched: expected any of confidence" in done.err
    assert json.dumps(Workspace(place.root).params.watch.maximum)
