"""The service under load, while run-time classes come and go: no request is lost, and every answer is right."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import services
from load import Load
from small_bundle import COLOURS, picture
from threadpoolctl import threadpool_info, threadpool_limits

from ayeaye.class_vectors.new_class import NewClass
from ayeaye.classifier.model import Classifier
from ayeaye.service.served import Served

pytestmark = pytest.mark.slow

ATTRIBUTES = {"r": 1.0, "g": 0.5, "b": 0.6}
KINDS = ("without it", "with it")
TOP = len(COLOURS)
CONTENTS = [picture(colour, number) for number in range(8) for colour in COLOURS]


class Answers:
    """Compares every answer with what the classifier says offline, without the run-time class or with it."""

    def __init__(self, bundle: Path) -> None:
        trained = Classifier.load(bundle)
        with_pink = trained.with_classes([NewClass("pink", attributes=ATTRIBUTES)])
        self._offline = [
            (_scores(without), _scores(with_it))
            for without, with_it in zip(
                trained.classify(CONTENTS, top=TOP), with_pink.classify(CONTENTS, top=TOP), strict=True
            )
        ]
        self.right: Counter[str] = Counter()
        self.wrong: list[Any] = []

    def __call__(self, number: int, status: int, body: bytes) -> None:
        if status != 200:
            return
        scores = _scores(json.loads(body))
        with_it = "pink" in scores
        if scores == pytest.approx(self._offline[number][with_it], abs=1e-4):
            self.right[KINDS[with_it]] += 1
        else:
            self.wrong.append((number, scores))


def _scores(answer: Any) -> dict[str, float]:
    return {each["label"]: each["score"] for each in answer["alternatives"]}


@contextmanager
def changing(server: services.Server, pause: float) -> Iterator[Counter[str]]:
    """A class comes and goes meanwhile; how often it did."""
    done, changes = threading.Event(), Counter[str]()

    def change() -> None:
        with server.client() as client:
            while not done.wait(pause):
                client.post("/classes", json={"name": "pink", "attributes": ATTRIBUTES}).raise_for_status()
                changes["added"] += 1
                done.wait(pause)
                client.delete("/classes/pink").raise_for_status()
                changes["removed"] += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield changes
    finally:
        done.set()
        thread.join()


def _loaded(server: services.Server, bundle: Path, rate: float, seconds: float) -> None:
    answers = Answers(bundle)
    load = Load(f"{server.url}/classify?top={TOP}", CONTENTS, answered=answers)
    with changing(server, pause=0.3) as changes:
        seen = asyncio.run(load.open(rate, seconds))
    assert answers.wrong == []
    assert seen.lost == []
    assert seen.statuses == {200: len(seen.latencies)}
    assert len(seen.latencies) > 0.8 * rate * seconds
    # Of either kind there were some, so the class was one while they were asked.
    assert min(answers.right[kind] for kind in KINDS) > 0.1 * len(seen.latencies)
    assert changes["added"] == changes["removed"] > 0.5 * seconds
    with server.client() as client:
        assert [each["name"] for each in client.get("/classes").json()["classes"]] == list(COLOURS)


def test_no_request_is_lost_while_classes_come_and_go(server: services.Server, colours: Path) -> None:
    _loaded(server, colours, rate=30, seconds=15)


@pytest.mark.soak
def test_ten_minutes_at_four_fifths_of_the_capacity_lose_no_request(colours: Path, tmp_path: Path) -> None:
    """A machine that others use too may stand still for a second: what comes meanwhile is not yet too much."""
    bundle = shutil.copytree(colours, tmp_path / "served" / "bundle")
    (bundle.parent / "serve.json").write_text(json.dumps({"concurrency": 1024}))
    with services.serving(bundle, tmp_path / "state", tmp_path / "run", workers=2) as server:
        capacity = asyncio.run(Load(f"{server.url}/classify", CONTENTS).closed(32, 10))
        _loaded(server, colours, rate=0.8 * capacity.answered / capacity.seconds, seconds=600)


def test_requests_beyond_what_is_answered_at_once_are_refused_and_not_lost(
    server: services.Server,
) -> None:
    """More connections than are answered at once: every request gets an answer, the surplus that it is too much."""
    seen = asyncio.run(Load(f"{server.url}/classify", CONTENTS).closed(300, 2))
    assert seen.lost == []
    assert set(seen.statuses) <= {200, 429, 503}
    assert seen.statuses[200] and seen.statuses[429] + seen.statuses[503]
    with server.client() as client:
        assert client.post("/classify", files={"image": CONTENTS[0]}).status_code == 200


def test_blas_leaves_the_cores_to_the_network(colours: Path, tmp_path: Path) -> None:
    """Its threads spin while they wait: a third of all that a request costs, for products of a moment."""
    with threadpool_limits(2, user_api="blas"), services.within(Served(colours, tmp_path / "state")):
        threads = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    assert threads and set(threads) == {1}
