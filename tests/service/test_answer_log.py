"""The log of answers: rows off the request path, bounds, and what is left of processes that end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces
from sqlalchemy import URL, select

from ayeaye.core.errors import StoreError
from ayeaye.service import answer_log
from ayeaye.service.answer_log import AnswerLog, LogLimits
from ayeaye.service.database import Database, locate
from ayeaye.service.tables import COMPARISONS, PREDICTIONS

LONG_AGO, SOON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


def row(number: int, **other: Any) -> dict[str, Any]:
    return {
        "answer": f"answer-{number}",
        "label": "okapi",
        "seen": True,
        "known": False,
        "confidence": 0.25,
        "margin": 0.125,
        "vector": np.arange(4) + number,
        "picture_id": f"{number:064x}",
        "model_version": 3,
    } | other


Opened = Callable[..., AnswerLog]


@pytest.fixture
def database(address: URL) -> Iterator[Database]:
    made = Database(address)
    yield made
    made.close()


@pytest.fixture
def opened(database: Database) -> Iterator[Opened]:
    """Makes logs in one database, and closes them."""
    made: list[AnswerLog] = []

    def make(**limits: Any) -> AnswerLog:
        made.append(AnswerLog(database, LogLimits(**{"pause": 0.05, "retry": 0.05, **limits})))
        return made[-1]

    yield make
    for each in made:
        each.close()


def logged(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.scalars(select(PREDICTIONS.c.answer).order_by(PREDICTIONS.c.id)))


def test_a_row_comes_back_as_it_was_given(opened: Opened, database: Database) -> None:
    before = datetime.now(UTC)
    log = opened()
    assert log.add_prediction(**row(1))
    assert log.add_prediction(**row(2, picture_id=None, model_version=None))
    log.close()
    with database.reading() as connection:
        one, two = connection.execute(select(PREDICTIONS).order_by(PREDICTIONS.c.id)).mappings().all()
    assert before <= one["time"] <= two["time"] <= datetime.now(UTC)
    assert np.frombuffer(one["vector"], "<f2").tolist() == [1, 2, 3, 4]
    assert {name: one[name] for name in row(1) if name != "vector"} == {
        name: value for name, value in row(1).items() if name != "vector"
    }
    assert two["picture_id"] is two["model_version"] is None


def test_answers_are_read_by_version_and_time(opened: Opened, database: Database) -> None:
    log = opened()
    log.add_prediction(**row(1, vector=[0.5, -1e-3]))
    log.add_prediction(**row(2, vector=[1, 2, 3], label="zebra"))
    log.add_prediction(**row(3, vector=[4, 5]))
    log.add_prediction(**row(4, model_version=4))
    log.close()
    found = answer_log.predictions(database, 3, LONG_AGO, SOON)
    assert found.label.tolist() == ["okapi", "zebra", "okapi"]
    assert (found.known.dtype, found.confidence.tolist()) == (np.dtype(bool), [0.25] * 3)
    assert found.vectors[[0, 2]] == pytest.approx(np.array([[0.5, -1e-3], [4, 5]]), rel=1e-3)
    assert np.isnan(found.vectors[1]).all()  # not of the usual length
    assert answer_log.labels(database, 4, LONG_AGO, SOON).tolist() == ["okapi"]
    assert len(answer_log.predictions(database, 3, LONG_AGO, LONG_AGO)) == 0


def test_a_log_that_is_not_there_reads_as_empty_and_is_not_made(tmp_path: Path) -> None:
    url = locate(tmp_path / "nothing")
    assert answer_log.comparisons(url) == []
    with answer_log.reading(url) as database:
        assert len(answer_log.predictions(database, 1, LONG_AGO, SOON)) == 0
    assert not (tmp_path / "nothing").exists()


def test_a_vector_that_the_caller_changes_later_stays_as_it_was(opened: Opened, database: Database) -> None:
    log, batch = opened(pause=60), np.ones((2, 3), np.float16)
    log.add_prediction(**row(1, vector=batch[0]))
    batch[:] = 9
    log.close()
    assert answer_log.predictions(database, 3, LONG_AGO, SOON).vectors.tolist() == [[1.0, 1.0, 1.0]]


def test_a_full_batch_is_written_at_once_and_others_soon(opened: Opened, database: Database) -> None:
    log = opened(batch=10, pause=60)
    for number in range(25):
        log.add_prediction(**row(number))
    workspaces.wait_for(lambda: len(logged(database)) == 20, 20, "full batches were not written")
    log.close()
    assert logged(database) == [f"answer-{number}" for number in range(25)]
    other = opened()
    other.add_prediction(**row(25))
    workspaces.wait_for(lambda: len(logged(database)) == 26, 20, "nothing was written")


def test_the_oldest_rows_go_first(opened: Opened, database: Database) -> None:
    log = opened(kept=20, batch=10)
    for number in range(55):
        log.add_prediction(**row(number))
    log.add(COMPARISONS, answer="a", label="x", known=True, confidence=1.0, shadow_status=200, shadow_ms=1.0)
    log.close()
    assert logged(database) == [f"answer-{number}" for number in range(35, 55)]


def test_adding_never_waits_and_what_does_not_fit_is_counted(
    opened: Opened, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, appending = threading.Event(), database.appending
    # The writer stands still, as before a disk that hangs.
    monkeypatch.setattr(database, "appending", lambda: (disk.wait(30), appending())[1])
    log = opened(batch=10, waiting=30)
    started = time.monotonic()
    kept = sum(log.add_prediction(**row(number)) for number in range(100))
    assert time.monotonic() - started < 10  # the disk is waited for three times as long
    disk.set()
    log.close()
    assert (kept, log.dropped, len(logged(database))) == (30, 70, 30)
    assert "70 answers are missing" in caplog.text


@pytest.fixture
def full(
    opened: Opened, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[AnswerLog, list[bool]]]:
    """A log of batches of two rows, four of which may wait, and whether its database takes anything."""
    takes, appending = [False], database.appending

    def refusing() -> Any:
        if not takes[0]:
            raise StoreError("no space left")
        return appending()

    monkeypatch.setattr(database, "appending", refusing)
    yield opened(batch=2, waiting=4), takes


def test_rows_that_the_database_does_not_take_are_written_when_it_does(
    full: tuple[AnswerLog, list[bool]], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    log, takes = full
    for number in (1, 2):
        log.add_prediction(**row(number))
    workspaces.wait_for(lambda: caplog.text.count("cannot be logged") > 1, 10, "it was not tried again")
    log.add_prediction(**row(3))
    takes[0] = True
    workspaces.wait_for(lambda: len(logged(database)) == 3, 10, "nothing was written")
    log.close()
    assert logged(database) == ["answer-1", "answer-2", "answer-3"]
    assert log.dropped == 0


def test_a_database_that_takes_nothing_stops_no_answer_and_the_loss_is_counted(
    full: tuple[AnswerLog, list[bool]], caplog: pytest.LogCaptureFixture
) -> None:
    log, _ = full
    count = itertools.count(1)

    def waits() -> bool:
        log.add_prediction(**row(next(count)))
        return log.dropped >= 3

    workspaces.wait_for(waits, 10, "as many wait as come")
    log.close()
    assert log.dropped == next(count) - 1
    assert f"{log.dropped} answers are missing" in caplog.text


def test_a_closed_log_takes_nothing_and_counts_it(opened: Opened) -> None:
    log = opened()
    log.close()
    log.close()
    assert not log.add_prediction(**row(1))
    assert log.dropped == 1


PROGRAM = """
    import signal, sys, time
    from pathlib import Path
    import numpy as np
    from ayeaye.service.answer_log import AnswerLog, LogLimits
    from ayeaye.service.database import Database, locate

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = AnswerLog(Database(locate(Path(sys.argv[1]))), LogLimits(batch=50))
    number = 0
    try:
        while True:
            log.add_prediction(answer=f"{sys.argv[2]}-{number}", label="okapi", seen=True, known=True,
                               confidence=1.0, margin=0.5, vector=np.zeros(8, np.float32), model_version=1)
            number += 1
            if number == 220:
                print("ready", flush=True)
            time.sleep(0.0005)
    finally:
        print(number, flush=True)
"""


def test_a_process_that_is_stopped_loses_no_row(tmp_path: Path) -> None:
    """Two at once into one database: every row that was taken is there, once."""
    processes = []
    for name in "ab":
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), name]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ))
    expected: set[str] = set()
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for name, process in zip("ab", processes, strict=True):
        count = int(process.communicate(timeout=60)[0])
        assert process.returncode == 0 and count >= 220
        expected |= {f"{name}-{number}" for number in range(count)}
    database = Database(locate(tmp_path))
    found = logged(database)
    database.close()
    # The signal may come between a row that was taken and its count.
    assert set(found) >= expected and len(found) == len(set(found)) <= len(expected) + 2


def test_a_batch_that_one_table_does_not_take_is_in_neither_and_comes_whole_later(
    opened: Opened, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is tried again doubles no row."""
    log, left_out = opened(pause=60), {"shadow_status": 200, "shadow_ms": None}  # which may not be none
    log.add_prediction(**row(1))
    log.add(COMPARISONS, answer="a", label="x", known=True, confidence=1.0, **left_out)
    assert not log._write(list(log._rows))
    assert logged(database) == []
    log._rows[1][1]["shadow_ms"] = 1.0
    log.close()
    assert logged(database) == ["answer-1"]
