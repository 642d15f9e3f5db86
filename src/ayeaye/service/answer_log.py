"""The log of answers: predictions, and a challenger's answers beside the champion's, as tables of the database.

Rows wait in memory, and a thread inserts them in batches, off the request path. A killed process loses the rows of the
last seconds, a stopped one none that the database takes. While the database takes none, rows wait, as many as may.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import URL, Table, func, select

from ayeaye.evaluation.drift import Answers, stacked
from ayeaye.service.database import Database, path_of
from ayeaye.service.tables import COMPARISONS, PREDICTIONS

VECTOR = np.dtype("<f2")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogLimits:
    """How many rows a batch has, and how many may wait; how many a table keeps; seconds between batches and retries."""

    batch: int = 1_000
    waiting: int = 40_000
    kept: int = 1_000_000
    pause: float = 2.0
    retry: float = 30.0


class AnswerLog:
    """Adds rows to the tables of a database, beside other processes that do. `dropped` counts the rows it lost."""

    def __init__(self, database: Database, limits: LogLimits = LogLimits()) -> None:
        self.limits, self.dropped = limits, 0
        self._database = database
        self._rows: deque[tuple[Table, dict[str, Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = self._failing = False
        self._thread = threading.Thread(target=self._write_on, name="answer log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, table: Table, **values: Any) -> bool:
        """Add a row, stamped with the time; never waits. False when it was dropped."""
        with self._changed:
            if self._closing or len(self._rows) >= self.limits.waiting:
                self.dropped += 1
                return False
            self._rows.append((table, {"time": datetime.now(UTC), **values}))
            if len(self._rows) == self.limits.batch:
                self._changed.notify()
            return True

    def add_prediction(self, *, vector: np.ndarray, **values: Any) -> bool:
        """Add a row of PREDICTIONS. `vector` (m,) is the projected image, stored as float16."""
        return self.add(PREDICTIONS, vector=np.asarray(vector, VECTOR).tobytes(), **values)

    def close(self) -> None:
        """Write the waiting rows and end. Rows that the database does not take are lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _write_on(self) -> None:
        told = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    self._is_due, self.limits.retry if self._failing else self.limits.pause
                )
                rows = [self._rows[place] for place in range(min(len(self._rows), self.limits.batch))]
                closing = self._closing
            written = self._write(rows)
            self._failing = not written
            with self._changed:
                lost = 0 if written or not closing else len(self._rows)
                for _ in range(lost or (len(rows) if written else 0)):
                    self._rows.popleft()
                self.dropped += lost
                left = bool(self._rows)
            if self.dropped > told:
                told = self.dropped
                _log.warning("%d answers are missing from the log by now", told)
            if closing and not left:
                return

    def _is_due(self) -> bool:
        return self._closing or (len(self._rows) >= self.limits.batch and not self._failing)

    def _write(self, rows: list[tuple[Table, dict[str, Any]]]) -> bool:
        """Return whether the rows were written. An error is logged and never stops the service."""
        if not rows:
            return True
        by_table = defaultdict(list)
        for table, row in rows:
            by_table[table].append(row)
        try:
            # One transaction: what is tried again was not written, of either table.
            with self._database.appending() as connection:
                for table, batch in by_table.items():
                    connection.execute(table.insert(), batch)
                    oldest = select(func.max(table.c.id) - self.limits.kept).scalar_subquery()
                    connection.execute(table.delete().where(table.c.id <= oldest))
        except Exception as error:
            _log.error("%d answers cannot be logged for now (%s)", len(rows), error)
            return False
        return True


# Reading


@contextmanager
def reading(url: URL) -> Iterator[Database | None]:
    """The database at an address; None for a SQLite file that is not there yet."""
    file = path_of(url)
    if file and not file.exists():
        yield None
        return
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def predictions(database: Database | None, version: int, since: datetime, until: datetime) -> Answers:
    """The answers of a version in [since, until), in their order. Vectors of an unusual length are NaN."""
    columns = ("label", "seen", "known", "confidence", "margin", "vector")
    rows = _predictions(database, columns, version, since, until)
    label, seen, known, confidence, margin, vectors = zip(*rows, strict=True) if rows else [()] * 6
    return Answers(
        label=np.array(label, dtype=str),
        seen=np.array(seen, dtype=bool),
        known=np.array(known, dtype=bool),
        confidence=np.array(confidence, dtype=np.float64),
        margin=np.array(margin, dtype=np.float64),
        vectors=stacked([np.frombuffer(each, VECTOR) for each in vectors]),
    )


def labels(database: Database | None, version: int, since: datetime, until: datetime) -> np.ndarray:
    """The labels (n,) that a version answered in [since, until)."""
    rows = _predictions(database, ("label",), version, since, until)
    return np.array([row.label for row in rows], dtype=str)


def _predictions(
    database: Database | None, columns: tuple[str, ...], version: int, since: datetime, until: datetime
) -> list[Any]:
    if database is None:
        return []
    of = PREDICTIONS.c
    wanted = select(*(of[name] for name in columns)).order_by(of.id)
    wanted = wanted.where(of.model_version == version, of.time >= since, of.time < until)
    with database.reading() as connection:
        return list(connection.execute(wanted))


def comparisons(url: URL) -> list[dict[str, Any]]:
    """What the log says of each pair of Bentos, the newest pair first.

    `answers` were compared, `failed` of them had none from the challenger. Of the others, `agreement` is the share with
    the same label, `known_agreement` the share with the same `known`, `confidence` and `shadow_confidence` are means.
    """
    import pandas as pd

    with reading(url) as database:
        if database is None:
            return []
        with database.reading() as connection:
            found = connection.execute(select(COMPARISONS).order_by(COMPARISONS.c.id))
            frame = pd.DataFrame(found.mappings().all(), columns=COMPARISONS.c.keys())
    pairs = [
        _pair(bento, shadow, rows)
        for (bento, shadow), rows in frame.groupby(["bento", "shadow_bento"], dropna=False)
    ]
    return sorted(pairs, key=lambda each: str(each["last"]), reverse=True)


def _pair(bento: Any, shadow: Any, rows: Any) -> dict[str, Any]:
    answered = rows[rows["shadow_status"] == 200]

    def mean(values: Any) -> float | None:
        return float(values.mean()) if len(values) else None

    def given(value: Any) -> Any:
        return None if value is None or value != value else value

    return {
        "bento": given(bento),
        "shadow": given(shadow),
        "answers": len(rows),
        "failed": len(rows) - len(answered),
        "agreement": mean(answered["label"] == answered["shadow_label"]),
        "known_agreement": mean(answered["known"].astype(bool) == answered["shadow_known"].astype(bool)),
        "confidence": mean(answered["confidence"]),
        "shadow_confidence": mean(answered["shadow_confidence"].astype(float)),
        "shadow_ms": given(answered["shadow_ms"].median()),
        "first": rows["time"].min().isoformat(timespec="seconds"),
        "last": rows["time"].max().isoformat(timespec="seconds"),
    }
