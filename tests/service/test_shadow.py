"""The shadow: answers of a challenger are compared and kept, and never delay, change or fail a client's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import services
from small_bundle import COLOURS, picture
from workspaces import wait_for

from ayeaye.core.processes import free_port
from ayeaye.service import shadow
from ayeaye.service.answer_log import AnswerLog, comparisons
from ayeaye.service.database import Database, locate
from ayeaye.service.inference import Inference
from ayeaye.service.served import Served
from ayeaye.service.tables import COMPARISONS

STABLE = ("label", "seen", "known", "confidence", "alternatives")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that others use too may stand still for a while."""
    monkeypatch.setattr(shadow, "PATIENCE", 60.0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AnswerLog]:
    database = Database(locate(tmp_path))
    made = AnswerLog(database)
    yield made
    made.close()
    database.close()


@contextmanager
def shadowed(
    colours: Path, state: Path, address: str, share: float = 1.0
) -> Iterator[tuple[services.TestClient, Inference]]:
    """A service with a challenger at an address."""
    served = Served(colours, state, version=3, bento="ayeaye:v3-0", shadow=address, shadow_share=share)
    with services.within(served) as both:
        yield both


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def classify(client: services.TestClient, colour: str, number: int = 0) -> httpx.Response:
    return client.post("/classify", files={"image": picture(colour, number)})


@pytest.mark.slow
def test_answers_of_a_challenger_are_kept_and_compared(
    server: services.Server, colours: Path, tmp_path: Path, patient: None
) -> None:
    url = locate(tmp_path)
    with shadowed(colours, tmp_path, server.url) as (client, inference):
        answers = [classify(client, colour).json() for colour in COLOURS]
        assert classify(client, "red").status_code == 200
        assert client.post("/classify", files={"image": b"no picture"}).status_code == 400
        wait_for(lambda: len(services.logged(url, COMPARISONS)) == 7, 30, "a copy was not answered")
        assert inference.shadow and inference.shadow.dropped == 0
    rows = services.logged(url, COMPARISONS)
    assert [row["answer"] for row in rows[:6]] == [answer["id"] for answer in answers]
    for row, answer in zip(rows, answers, strict=False):
        assert (row["label"], row["shadow_label"]) == (answer["label"], answer["label"])
        assert row["shadow_confidence"] == pytest.approx(answer["confidence"], abs=1e-4)
        assert row["picture_id"] == answer["id"].split("-")[1]
        assert (row["bento"], row["shadow_status"], row["shadow_known"]) == (
            "ayeaye:v3-0",
            200,
            answer["known"],
        )
    (found,) = comparisons(url)
    assert (found["answers"], found["failed"], found["agreement"], found["known_agreement"]) == (
        7,
        0,
        1.0,
        1.0,
    )
    assert found["confidence"] == pytest.approx(found["shadow_confidence"], abs=1e-4)
    # The challenger's copies are not among what the champion answered.
    assert len(services.logged(url)) == 7


@pytest.mark.slow
def test_a_challenger_that_refuses_shows(animals: Path, colours: Path, tmp_path: Path, patient: None) -> None:
    """It takes rows of features, and no pictures."""
    with (
        services.serving(animals, tmp_path / "other", tmp_path / "run") as other,
        shadowed(colours, tmp_path / "state", other.url) as (client, _),
    ):
        assert classify(client, "red").status_code == 200
        wait_for(
            lambda: services.logged(locate(tmp_path / "state"), COMPARISONS), 30, "the copy was not answered"
        )
    (found,) = comparisons(locate(tmp_path / "state"))
    assert (found["answers"], found["failed"], found["agreement"], found["shadow"]) == (1, 1, None, None)


def test_one_that_is_away_or_silent_changes_nothing(
    client: services.TestClient, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "PATIENCE", 1.0)
    monkeypatch.setattr(shadow, "PAUSE", 0.0)
    sent = [(colour, number) for number in range(10) for colour in COLOURS]
    plain = [classify(client, *each).json() for each in sent]
    with silent() as address:
        for name, where in (("away", f"http://127.0.0.1:{free_port()}"), ("silent", address)):
            with shadowed(colours, tmp_path / name, where) as (shadowed_client, inference):
                before = time.monotonic()
                answers = [classify(shadowed_client, *each) for each in sent]
                # One after the other they would take a minute.
                assert time.monotonic() - before < 20
                assert inference.shadow and inference.shadow._queue.qsize() <= shadow.WAITING
            assert {answer.status_code for answer in answers} == {200}
            for answer, expected in zip(answers, plain, strict=True):
                assert {key: answer.json()[key] for key in STABLE} == {key: expected[key] for key in STABLE}
            assert comparisons(locate(tmp_path / name)) == []
            wait_for(lambda: inference.shadow.dropped == len(sent), 20, "a copy is neither sent nor dropped")  # type: ignore[union-attr]


def test_only_the_share_is_sent_and_what_waits_is_bounded(log: AnswerLog) -> None:
    answer = {"id": "x", "label": "x", "known": True, "confidence": 0.5, "model": {"bento": "a:b"}}
    with silent() as address:
        some = shadow.Shadow(address, 0.0, log)
        some.offer(b"x", "x", answer)
        assert some._queue.empty() and some.dropped == 0
        some.close()
        all_ = shadow.Shadow(address, 1.0, log)
        large = b"x" * (shadow.WAITING_BYTES // 2 - 1)
        before = time.monotonic()
        for _ in range(5):
            all_.offer(large, "x", answer)
        assert time.monotonic() - before < 1
        assert all_._bytes <= shadow.WAITING_BYTES
        assert all_.dropped >= 2
        threads = threading.active_count()
        all_.close()
        assert threading.active_count() <= threads - 1
        all_.offer(b"x", "x", answer)
        all_.close()


def test_a_share_is_a_share(server: services.Server, tmp_path: Path, log: AnswerLog, patient: None) -> None:
    answer = {"id": "x", "label": "red", "known": True, "confidence": 0.5, "model": {"bento": "a:b"}}
    made = shadow.Shadow(server.url, 0.25, log)
    content = picture("red")
    for _ in range(20):
        for _ in range(10):
            made.offer(content, "x", answer)
        wait_for(made._queue.empty, 60, "the copies are not sent")
    wait_for(lambda: not made._bytes, 60, "the last copy is not sent")
    time.sleep(0.5)
    made.close()
    log.close()
    (found,) = comparisons(locate(tmp_path))
    assert made.dropped <= 1
    assert 20 <= found["answers"] <= 85  # 50 ± 6 standard deviations
