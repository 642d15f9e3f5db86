"""The service as BentoML runs it: several workers, a stop, and what holds between restarts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import services
from small_bundle import COLOURS, picture, write_bundle
from sqlalchemy import URL
from workspaces import wait_for

from ayeaye.backbones.engines import Engine
from ayeaye.class_vectors.new_class import NewClass
from ayeaye.classifier import hubs
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import PictureError
from ayeaye.core.processes import free_port
from ayeaye.service.database import locate
from ayeaye.service.security import HEADERS

pytestmark = pytest.mark.slow

PINK = {"name": "pink", "attributes": {"r": 1.0, "g": 0.5, "b": 0.6}}


@pytest.fixture(scope="module", params=["csls", "nnn"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all that a bundle may have: an engine, hubs corrected by a bank, an offset, and a threshold that
    some pictures do not reach."""
    folder = tmp_path_factory.mktemp(request.param) / "classifier"
    write_bundle(folder, engine=Engine("onnxruntime"))
    plain = Classifier.load(folder)
    X = np.stack(plain.read([picture(colour, number) for number in range(90, 95) for colour in COLOURS]))
    bank = hubs.Bank.of(plain.mapper, X, np.tile(np.arange(len(COLOURS)), 5))
    correction = hubs.fit_on(request.param, hubs.GRIDS[request.param][0], bank, plain.space.vectors)
    made = replace(plain, correction=correction, gamma=0.05)
    confident = [each["confidence"] for each in made.answers(made.scores(X))]
    replace(made, threshold=float(np.median(confident))).save(folder)
    return folder


def test_200_pictures_at_once_are_answered_as_offline(whole: Path, tmp_path: Path) -> None:
    contents = [picture(colour, number) for number in range(34) for colour in COLOURS][:200]
    classifier = Classifier.load(whole).with_classes([NewClass(**PINK)])
    offline = classifier.classify(contents, top=7)
    assert classifier.lowest != classifier.threshold
    with (
        services.serving(whole, tmp_path / "state", tmp_path / "run", workers=2) as server,
        server.client() as client,
        ThreadPoolExecutor(16) as threads,
    ):
        client.post("/classes", json=PINK).raise_for_status()
        assert client.get("/model").json()["backbone"]["running"] == "onnxruntime fp32"

        def ask(content: bytes) -> Any:
            return client.post("/classify?top=7", files={"image": content}).raise_for_status().json()

        online = list(threads.map(ask, contents))
    for mine, theirs in zip(online, offline, strict=True):
        assert not isinstance(theirs, PictureError)
        assert mine["label"] == theirs["label"]
        if abs(theirs["confidence"] - classifier.lowest) > 1e-3:
            assert mine["known"] == theirs["known"]
        there = {each["label"]: each for each in theirs["alternatives"]}
        assert "pink" in there
        for each in mine["alternatives"]:
            for figure in ("score", "confidence"):
                assert each[figure] == pytest.approx(there[each["label"]][figure], abs=1e-4)
    assert {each["known"] for each in online} == {True, False}


def test_a_class_is_one_of_every_worker_at_once(server: services.Server) -> None:
    def pink(client: httpx.Client) -> bool:
        answer = client.post("/classify?top=6", files={"image": picture("red")}).json()
        return "pink" in {each["label"] for each in answer["alternatives"]}

    with server.of_every_worker() as clients:
        for changing in (clients[0], clients[-1]):
            changing.post("/classes", json=PINK).raise_for_status()
            assert all(map(pink, clients))
            changing.delete("/classes/pink").raise_for_status()
            assert not any(map(pink, clients))


def test_no_worker_writes_into_a_database_that_was_moved_away(colours: Path, tmp_path: Path) -> None:
    state, away = tmp_path / "state", tmp_path / "away"
    away.mkdir()
    rose = {"name": "rose", "attributes": {"r": 1.0, "g": 0.1, "b": 0.5}}
    with (
        services.serving(colours, state, tmp_path / "run", workers=2) as server,
        server.of_every_worker() as clients,
    ):
        clients[0].post("/classes", json=PINK).raise_for_status()
        for client in clients:
            client.get("/classes").raise_for_status()
        for path in state.glob("service.db*"):
            path.rename(away / path.name)
        for client in clients * 2:
            assert client.post("/classes", json=rose).status_code == 503
            assert client.post("/classify?top=7", files={"image": picture("red")}).status_code == 200
        assert not list(state.glob("service.db*"))
        for path in away.iterdir():
            path.rename(state / path.name)
        clients[-1].post("/classes", json=rose).raise_for_status()
        for client in clients:
            names = [each["name"] for each in client.get("/classes").json()["classes"]]
            assert names[-2:] == ["pink", "rose"]


def test_the_description_is_that_of_what_is_served(server: services.Server) -> None:
    with server.client() as client:
        described = client.get("/openapi.json").json()
        assert described == client.get("/docs.json").json()
        assert client.head("/openapi.json").status_code == 200
        assert client.get("/openapi.json").json() == described  # the connection is as it was
        for path in ("/livez", "/healthz", "/readyz", "/metrics"):
            assert path in described["paths"]
            response = client.get(path)
            assert response.status_code == 200
            assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/nothing", "/a%0Ab", "/schema.json", "/static_content/x.js"])
def test_an_unknown_address_is_a_404_in_json(server: services.Server, path: str) -> None:
    with server.client() as client:
        response = client.get(path)
        removed = client.delete("/classes/a%0Ab")
    assert response.status_code == removed.status_code == 404
    assert response.json()["error"] and removed.json()["error"]


def test_an_address_cannot_write_lines_of_its_own_into_the_log(server: services.Server) -> None:
    with server.client() as client:
        client.get("/forged%0d%0a2026-11-28%20all%20is%20well%1b[31m%c2%9b1m%e2%80%a8end")
    wait_for(lambda: "forged" in server.log.read_text(), 10, "nothing is logged")
    log = server.log.read_text()
    (line,) = [line for line in log.splitlines() if "forged" in line]
    assert "path=/forged\\r\\n2026-11-28 all is well\\x1b[31m\\x9b1m\\u2028end," in line
    assert "\x1b" not in log


def test_requests_are_counted_by_the_addresses_that_there_are(server: services.Server) -> None:
    """Others would fill the memory of the service, and the metrics."""
    with server.client() as client:
        for number in range(20):
            assert client.get(f"/nothing/{number}").status_code == 404
            client.delete(f"/classes/nothing-{number}")
        client.get("/model").raise_for_status()
        client.get("/page.js").raise_for_status()
        client.get("/samples").raise_for_status()
        assert client.get("/samples/0123456789abcdef").status_code == 404
        counted = client.get("/metrics").text
    assert "nothing" not in counted
    for endpoint in ("/model", "/page.js", "/samples", "/samples/{id}", "/classes/{name}", "/other"):
        assert f'endpoint="{endpoint}"' in counted


def test_removals_under_load_lose_no_request_and_are_seen_at_once(server: services.Server) -> None:
    rng = np.random.default_rng(0)
    shades = [f"shade {number}" for number in range(24)]
    for name in shades:
        attributes = dict(zip("rgb", rng.random(3).tolist(), strict=True))
        with server.client() as client:
            client.post("/classes", json={"name": name, "attributes": attributes}).raise_for_status()
    ended = threading.Event()

    def ask(_: int) -> list[int]:
        statuses = []
        with server.client() as client:
            while not ended.is_set():
                statuses.append(client.post("/classify", files={"image": picture("red")}).status_code)
        return statuses

    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask, number) for number in range(6)]
        try:
            while shades:
                with server.client() as client:
                    client.delete(f"/classes/{shades.pop(len(shades) // 2)}").raise_for_status()
                with server.client() as client:
                    top = len(COLOURS) + len(shades)
                    answer = client.post(f"/classify?top={top}", files={"image": picture("red")}).json()
                assert {each["label"] for each in answer["alternatives"]} == {*COLOURS, *shades}
        finally:
            ended.set()
    statuses = [status for each in asking for status in each.result()]
    assert len(statuses) > 24 and set(statuses) == {200}


def test_a_stop_loses_no_prediction_and_a_restart_no_class(
    colours: Path, address: URL, tmp_path: Path
) -> None:
    state, kept = tmp_path / "state", {"AYEAYE_DATABASE": address.render_as_string(hide_password=False)}
    with (
        services.serving(colours, state, tmp_path / "run", environment=kept) as server,
        server.client() as client,
    ):
        client.post("/classes", json=PINK).raise_for_status()
        ids = [client.post("/classify", files={"image": picture(colour)}).json()["id"] for colour in COLOURS]
        said = {"answer": ids[0], "label": "pink"}
        client.post("/feedback", data=said, files={"image": picture("red")}).raise_for_status()
    assert [row["answer"] for row in services.logged(address)] == ids
    log = server.log.read_text()
    assert "Traceback" not in log
    assert all(content not in server.log.read_bytes() for content in (b"PNG", b"IHDR"))
    # With a token, and one request at a time.
    environment = {"AYEAYE_TOKEN": "secret", **kept}
    with services.serving(colours, state, tmp_path / "run", environment=environment) as server:
        with server.client() as client:
            assert client.get("/classes").json()["classes"][-1]["name"] == "pink"
            assert client.delete("/classes/pink").status_code == 401
            right = {"Authorization": "Bearer secret"}
            assert client.delete("/classes/pink", headers=right).status_code == 200
        assert "secret" not in server.log.read_text()


def test_a_stop_answers_what_it_has_begun_and_logs_every_answer(colours: Path, tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    stopped, answers, refused = threading.Event(), list[httpx.Response](), list[httpx.Response]()

    def halves() -> Iterator[bytes]:
        content = picture("red")
        yield content[:50]
        begun.set()
        go.wait(30)
        yield content[50:]

    with services.serving(colours, tmp_path / "state", tmp_path / "run", workers=2) as server:

        def half() -> None:
            with server.client() as client:
                kind = {"Content-Type": "image/png"}
                answers.append(client.post("/classify", content=halves(), headers=kind))

        def many() -> None:
            with server.client() as client, suppress(httpx.TransportError):
                while not stopped.is_set():
                    answer = client.post("/classify", files={"image": picture("blue")})
                    (answers if answer.status_code == 200 else refused).append(answer)

        with ThreadPoolExecutor(5) as threads:
            for ask in (half, many, many, many, many):
                threads.submit(ask)
            assert begun.wait(30)
            wait_for(lambda: len(answers) > 20, 30, "nothing is answered")
            server.process.terminate()
            wait_for(lambda: not listens(server), 30, "it goes on")
            go.set()
            stopped.set()
        assert server.process.wait(30) is not None
    assert not refused
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["label"] for answer in answers} == {"red", "blue"}
    logged = [row["answer"] for row in services.logged(locate(tmp_path / "state"))]
    assert {answer.json()["id"] for answer in answers} <= set(logged)
    assert "Traceback" not in server.log.read_text()


def listens(server: services.Server) -> bool:
    """Whether a worker takes new connections; the port stays open until the last has ended."""
    try:
        with server.client() as client:
            client.get("/livez", timeout=2)
    except httpx.TransportError:
        return False
    return True


def test_a_service_that_has_nothing_to_serve_ends_at_once_and_says_why(tmp_path: Path) -> None:
    """BentoML starts a worker that fails again and again."""
    command = [sys.executable, "-m", "bentoml", "serve", "ayeaye.service.service:Ayeaye"]
    done = subprocess.run(
        [*command, "--port", str(free_port())],
        env={**os.environ, "AYEAYE_BUNDLE": str(tmp_path / "none"), "BENTOML_DO_NOT_TRACK": "True"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode
    assert "none: serve a Bento, or set AYEAYE_BUNDLE to a bundle's folder" in done.stderr


def test_more_requests_at_once_than_allowed_are_a_429_and_late_ones_a_504(
    colours: Path, tmp_path: Path
) -> None:
    shutil.copytree(colours, tmp_path / "classifier")
    (tmp_path / "serve.json").write_text(json.dumps({"concurrency": 1, "timeout": 1}))
    with services.serving(tmp_path / "classifier", tmp_path / "state", tmp_path / "run") as server:
        answers: list[httpx.Response] = []

        def slow() -> Any:
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n'
            time.sleep(1.5)  # longer than an answer may take

        def send() -> None:
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            with server.client() as client:
                while not answers or answers[-1].status_code == 429:  # it found a GET in its place
                    answers.append(client.post("/classify", content=slow(), headers=kind))

        sender = threading.Thread(target=send)
        sender.start()
        with server.client() as client:
            busy = []
            while not busy and sender.is_alive():
                busy = [answer for answer in [client.get("/model")] if answer.status_code != 200]
            assert client.get("/livez").status_code == 200
        sender.join()
    for answer, status in ((busy[0], 429), (answers[-1], 504)):
        assert answer.status_code == status
        assert answer.json()["error"]
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert answer.headers["Retry-After"] == "1"
