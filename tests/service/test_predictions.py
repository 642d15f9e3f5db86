"""The prediction log: rows off the request path, whole files, and what is left of processes that end."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workspaces

from ayeaye.core.errors import DataError, StoreError
from ayeaye.service import predictions
from ayeaye.service.database import locate
from ayeaye.service.predictions import LogLimits, PredictionLog, files, read
from ayeaye.service.store import Store


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


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Makes logs in one folder, and closes them."""
    made: list[PredictionLog] = []

    def make(**limits: Any) -> PredictionLog:
        made.append(PredictionLog(tmp_path / "log", LogLimits(**limits)))
        return made[-1]

    yield make
    for each in made:
        each.close()


Opened = Callable[..., PredictionLog]


def test_a_row_comes_back_as_it_was_given(opened: Opened) -> None:
    before = datetime.now(UTC)
    log = opened()
    assert log.append(**row(1))
    assert log.append(**row(2, picture_id=None, model_version=None, vector=np.float32([0.5, -1e-3])))
    log.close()
    table = read(log.folder)
    assert table.schema.equals(predictions.SCHEMA)
    one, two = table.to_pylist()
    assert before <= one.pop("time") <= two.pop("time") <= datetime.now(UTC)
    assert one == row(1, vector=[1.0, 2.0, 3.0, 4.0])
    assert two["picture_id"] is two["model_version"] is None
    assert two["vector"] == pytest.approx([0.5, -1e-3], rel=1e-3)


def test_none_but_their_owner_reads_the_rows(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o755)
    assert stat.S_IMODE(opened().folder.stat().st_mode) == 0o700


def test_a_log_that_is_not_there_reads_as_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing").num_rows == 0


def test_a_vector_that_the_caller_changes_later_stays_as_it_was(opened: Opened) -> None:
    log, batch = opened(), np.ones((2, 3), np.float16)
    log.append(**row(1, vector=batch[0]))
    batch[:] = 9
    log.close()
    assert read(log.folder)["vector"].to_pylist() == [[1.0, 1.0, 1.0]]


def test_files_rotate_by_rows(opened: Opened) -> None:
    log = opened(rows=10)
    for number in range(35):
        log.append(**row(number))
    workspaces.wait_for(lambda: len(files(log.folder)) == 3, 10, "no file was written")
    log.close()
    assert len(files(log.folder)) == 4
    assert read(log.folder)["answer"].to_pylist() == [f"answer-{number}" for number in range(35)]


def test_files_rotate_by_age(opened: Opened) -> None:
    log = opened(age=0.2)
    log.append(**row(1))
    workspaces.wait_for(lambda: read(log.folder).num_rows == 1, 10, "no file was written")
    log.append(**row(2))
    workspaces.wait_for(lambda: read(log.folder).num_rows == 2, 10, "no second file was written")
    assert len(files(log.folder)) == 2


def test_a_reader_may_ask_for_what_is_new_alone(opened: Opened) -> None:
    log = opened(rows=2)
    for number in range(4):
        log.append(**row(number))
    workspaces.wait_for(lambda: len(files(log.folder)) == 2, 10, "no file was written")
    time.sleep(0.01)
    since = datetime.now(UTC)
    log.append(**row(4))
    log.close()
    files(log.folder)[0].write_bytes(b"damaged")  # not even opened
    assert read(log.folder, since)["answer"].to_pylist() == ["answer-4"]
    last = read(log.folder, since)["time"].to_pylist()[-1]
    assert read(log.folder, last + timedelta(microseconds=1)).num_rows == 0
    with pytest.raises(DataError, match="is damaged"):
        read(log.folder)


def test_append_never_waits_and_what_does_not_fit_is_counted(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, disk, table_of = opened(rows=10, waiting=30), threading.Event(), predictions._table
    # The writer stands still, as before a disk that hangs.
    monkeypatch.setattr(
        predictions, "_table", lambda rows, schema: (disk.wait(30), table_of(rows, schema))[1]
    )
    started = time.monotonic()
    kept = sum(log.append(**row(number)) for number in range(100))
    assert time.monotonic() - started < 10  # the disk is waited for three times as long
    disk.set()
    log.close()
    assert kept in (30, 40)  # with or without the file that was being written
    assert log.dropped == 100 - kept
    assert read(log.folder).num_rows == kept
    assert f"{log.dropped} predictions are missing" in caplog.text


@pytest.fixture
def full(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> PredictionLog:
    """A log in files of two rows, four of which may wait, on a disk that takes nothing."""
    monkeypatch.setattr(predictions, "RETRY", 0.05)
    log = opened(rows=2, waiting=4)
    log.folder.rename(log.folder.with_name("gone"))
    log.folder.write_text("in its place")
    return log


def test_rows_that_the_disk_does_not_take_are_written_when_it_does(
    full: PredictionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        full.append(**row(number))
    tried = "2 predictions cannot be written"
    workspaces.wait_for(lambda: caplog.text.count(tried) > 1, 10, "it was not tried again")
    full.append(**row(3))
    full.folder.unlink()
    workspaces.wait_for(lambda: read(full.folder).num_rows >= 2, 10, "nothing was written")
    full.close()
    assert read(full.folder)["answer"].to_pylist() == ["answer-1", "answer-2", "answer-3"]
    assert full.dropped == 0


def test_a_disk_that_takes_nothing_stops_no_answer_and_the_loss_is_counted(
    full: PredictionLog, caplog: pytest.LogCaptureFixture
) -> None:
    count = itertools.count(1)

    def waits() -> bool:
        full.append(**row(next(count)))
        return full.dropped >= 3

    workspaces.wait_for(waits, 10, "as many wait as come")
    full.close()
    assert full.dropped == next(count) - 1
    assert f"{full.dropped} predictions are missing" in caplog.text


def test_files_that_cannot_be_removed_cost_no_row(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(folder: Path, total_bytes: int) -> None:
        raise PermissionError("not allowed")

    monkeypatch.setattr(predictions, "_drop_oldest", refuses)
    log = opened()
    log.append(**row(1))
    log.close()
    assert log.dropped == 0 and read(log.folder).num_rows == 1
    assert "cannot be removed (not allowed)" in caplog.text


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match="AYEAYE_STATE"):
        PredictionLog(tmp_path / "state" / "predictions")
    with pytest.raises(StoreError, match="AYEAYE_STATE"):
        Store(locate(tmp_path / "state"))


def test_the_oldest_files_go_first(opened: Opened) -> None:
    first = opened(rows=100, total_bytes=10**9)
    for number in range(300):
        first.append(**row(number, vector=np.random.default_rng(number).normal(size=64)))
    first.close()
    size = max(path.stat().st_size for path in files(first.folder))
    second = opened(rows=100, total_bytes=int(2.5 * size))
    for number in range(300, 400):
        second.append(**row(number, vector=np.random.default_rng(number).normal(size=64)))
    second.close()
    assert read(second.folder)["answer"].to_pylist() == [f"answer-{number}" for number in range(200, 400)]


def test_a_closed_log_takes_nothing_and_counts_it(opened: Opened) -> None:
    log = opened()
    log.close()
    log.close()
    assert not log.append(**row(1))
    assert log.dropped == 1
    assert [path.name for path in log.folder.iterdir()] == [".door"]


# ---- processes that end ----

PROGRAM = """
    import signal, sys, time
    from pathlib import Path
    import numpy as np
    from ayeaye.core.files import replacing
    from ayeaye.service.predictions import LogLimits, PredictionLog

    name, ending = sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = PredictionLog(Path(sys.argv[1]), LogLimits(rows=50))
    number = 0
    try:
        if ending == "writing":
            part = replacing(log.folder / f"20260101T000000.000000Z-{log._writer}-000001.parquet").__enter__()
            part.write_bytes(b"half")
            print("ready", flush=True)
            signal.pause()
        while True:
            log.append(answer=f"{name}-{number}", label="okapi", seen=True, known=True, confidence=1.0,
                       margin=0.5, vector=np.zeros(8, np.float32))
            number += 1
            if number == 220 and ending == "stopped":
                print("ready", flush=True)
            time.sleep(0.0005)
    finally:
        print(number, flush=True)
"""


def _start(folder: Path, name: str, ending: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), name, ending]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_process_that_is_stopped_loses_no_row(tmp_path: Path) -> None:
    """Two at once into one folder: every row that was taken is there, once."""
    processes = [_start(tmp_path, name, "stopped") for name in ("a", "b")]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    expected: set[str] = set()
    for name, process in zip("ab", processes, strict=True):
        count = int(process.communicate(timeout=60)[0])
        assert process.returncode == 0 and count >= 220
        expected |= {f"{name}-{number}" for number in range(count)}
    found = read(tmp_path)["answer"].to_pylist()
    # The signal may come between a row that was taken and its count.
    assert set(found) >= expected and len(found) == len(set(found)) <= len(expected) + 2


def test_what_a_killed_process_left_half_written_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    dead, living = _start(tmp_path, "a", "writing"), _start(tmp_path, "b", "writing")
    assert len(list(tmp_path.glob(".*.part"))) == 2
    dead.kill()
    dead.wait()
    PredictionLog(tmp_path).close()
    assert len(list(tmp_path.glob(".*.part"))) == 1
    assert len(list(tmp_path.glob(".*.lock"))) == 1
    living.kill()
    living.wait()
    PredictionLog(tmp_path).close()
    assert [path for path in tmp_path.iterdir() if path.suffix in (".part", ".lock")] == []
