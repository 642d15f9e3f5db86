"""The prediction log: one row per answer of /classify and /classify_batch, in Parquet files that a watch for drift
reads later.

    <folder>/<time of the last row>-<writer>-<number>.parquet    whole files, the oldest go first
    <folder>/.<writer>.lock                                      held by a writer for as long as it lives

Rows wait in memory and are written by a thread of their own: what is killed loses the rows of at most `age`
seconds, what is stopped loses none that the disk takes. Rows that it does not take wait on, as many as may; what still
waits when the service is stopped is tried once more, and then lost.
"""

from __future__ import annotations

import atexit
import fcntl
import io
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError, StoreError
from ayeaye.core.files import replacing

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", tz="UTC")),
        ("model_version", pa.int32()),
        ("answer", pa.string()),
        ("label", pa.string()),
        ("seen", pa.bool_()),
        ("known", pa.bool_()),
        ("confidence", pa.float32()),
        ("margin", pa.float32()),
        ("picture_id", pa.string()),
        ("vector", pa.list_(pa.float16())),
    ]
)
COMPRESSION = "zstd"
RETRY = 30.0  # seconds until rows that the disk did not take are written again
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogLimits:
    """When a file is full, `rows` or `age` seconds; how many rows may wait; what all files may take together."""

    rows: int = 10_000
    age: float = 300.0
    waiting: int = 40_000
    total_bytes: int = 1_000_000_000


class RowLog:
    """Writes rows of a schema into a folder, beside any number of other processes that do.

    `dropped` counts the rows that were not kept, since too many waited or the disk did not take them by the end.
    Raises StoreError where nothing can be written there.
    """

    def __init__(self, folder: Path, schema: pa.Schema, limits: LogLimits = LogLimits()) -> None:
        self.folder, self.schema, self.limits = folder, schema, limits
        self.dropped = 0
        self._rows: list[tuple[Any, ...]] = []
        self._since = 0.0  # when the oldest waiting row came, monotonic
        self._retry = 0.0  # when the disk is tried again, monotonic
        self._closing = False
        self._changed = threading.Condition()
        self._writer, self._written = uuid.uuid4().hex[:12], 0
        # What a write imports is imported now: while a program ends, that fails.
        pq.write_table(_table([], schema), io.BytesIO(), compression=COMPRESSION)
        self._held = self._enter()
        self._thread = threading.Thread(target=self._write_on, name="predictions", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, *row: Any) -> bool:
        """Add a row, its columns but the first, which is the time; never waits. False when it was dropped."""
        with self._changed:
            if self._closing or len(self._rows) >= self.limits.waiting:
                self.dropped += 1
                return False
            self._rows.append((time.time_ns() // 1000, *row))
            if len(self._rows) == 1:
                self._since = time.monotonic()
                self._changed.notify()
            elif len(self._rows) == self.limits.rows:
                self._changed.notify()
            return True

    def close(self) -> None:
        """Write what waits and end.

        Also done when the program ends by itself or by sys.exit; one that a signal ends, as uvicorn lets it in
        the end, calls it when it shuts down.
        """
        with self._changed:
            closed, self._closing = self._closing, True
            self._changed.notify()
        self._thread.join()
        if not closed:
            atexit.unregister(self.close)
            with suppress(OSError):  # the next writer clears it
                _lock_of(self.folder, self._writer).unlink()
            os.close(self._held)

    # ---- the writer's thread ----

    def _write_on(self) -> None:
        told = 0
        while True:
            with self._changed:
                while not self._closing and (left := self._left()) > 0:
                    self._changed.wait(None if left == float("inf") else left)
                rows, last = self._take(), self._closing and not self._rows
            if rows and not self._write(rows):
                self._put_back(rows)
            if self.dropped > told:
                told = self.dropped
                _log.warning("%d predictions are missing from %s by now", told, self.folder)
            if last:
                return

    def _left(self) -> float:
        """Seconds until a file is due."""
        if not self._rows:
            return float("inf")
        full = len(self._rows) >= self.limits.rows
        return max(self._retry, 0.0 if full else self._since + self.limits.age) - time.monotonic()

    def _take(self) -> list[tuple[Any, ...]]:
        taken, self._rows = self._rows[: self.limits.rows], self._rows[self.limits.rows :]
        self._since = time.monotonic()
        return taken

    def _put_back(self, rows: list[tuple[Any, ...]]) -> None:
        """Rows that were not written wait again, the newest of them where there is not room for all."""
        with self._changed:
            room = 0 if self._closing else self.limits.waiting - len(self._rows)
            surplus = max(0, len(rows) - room)
            self._rows = rows[surplus:] + self._rows
            self.dropped += surplus
            self._retry = time.monotonic() + RETRY
            self._since = self._retry - self.limits.age

    def _write(self, rows: list[tuple[Any, ...]]) -> bool:
        """Whether they are written; whatever happens, the service goes on without its log."""
        self._written += 1
        stamp = _stamp(datetime.fromtimestamp(max(row[0] for row in rows) / 1e6, UTC))
        path = self.folder / f"{stamp}-{self._writer}-{self._written:06d}.parquet"
        try:
            with replacing(path) as part:
                pq.write_table(_table(rows, self.schema), part, compression=COMPRESSION)
        except Exception as error:
            _log.error("%d predictions cannot be written to %s (%s)", len(rows), self.folder, error)
            return False
        try:
            _drop_oldest(self.folder, self.limits.total_bytes)
        except Exception as error:
            _log.error("old predictions in %s cannot be removed (%s)", self.folder, error)
        return True

    # ---- who else is there ----

    def _enter(self) -> int:
        """Make the folder and this writer's lock, and clear what dead writers left; returns the lock."""
        try:
            # Who showed what is nobody else's business.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(PermissionError):  # another one's
                self.folder.chmod(0o700)
            with _door(self.folder):
                held = os.open(_lock_of(self.folder, self._writer), os.O_RDWR | os.O_CREAT, 0o644)
                fcntl.flock(held, fcntl.LOCK_EX)
                _clear_dead(self.folder)
            return held
        except OSError as error:
            raise StoreError(
                f"predictions cannot be kept in {self.folder} ({error.strerror}): set AYEAYE_STATE to a folder "
                "that can be written, or serve.predictions=false"
            ) from None


class PredictionLog(RowLog):
    """The rows of SCHEMA."""

    def __init__(self, folder: Path, limits: LogLimits = LogLimits()) -> None:
        super().__init__(folder, SCHEMA, limits)

    def append(
        self,
        *,
        answer: str,
        label: str,
        seen: bool,
        known: bool,
        confidence: float,
        margin: float,
        vector: np.ndarray,
        picture_id: str | None = None,
        model_version: int | None = None,
    ) -> bool:
        """Add a row, stamped with the time; never waits. False when it was dropped.

        `vector` (m,) is the projected picture, kept as float16; `margin` is the score over the second best.
        """
        kept = np.array(vector, np.float16)  # of its own: it may be a row of a batch that changes
        return self.add(model_version, answer, label, seen, known, confidence, margin, picture_id, kept)


@contextmanager
def _door(folder: Path) -> Iterator[None]:
    """Only one writer at a time comes in: a lock that is made and not yet held would look like a dead one's."""
    descriptor = os.open(folder / ".door", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_of(folder: Path, writer: str) -> Path:
    return folder / f".{writer}.lock"


def _clear_dead(folder: Path) -> None:
    # A number of a process would mean nothing to a writer in another container.
    for lock in folder.glob(".*.lock"):
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for part in folder.glob(f".*-{lock.name.split('.')[1]}-*.part"):
                    part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _drop_oldest(folder: Path, total_bytes: int) -> None:
    sizes: dict[Path, int] = {}
    for path in files(folder):
        with suppress(FileNotFoundError):  # another writer dropped it
            sizes[path] = path.stat().st_size
    surplus = sum(sizes.values()) - total_bytes
    for path, size in sizes.items():
        if surplus <= 0:
            return
        path.unlink(missing_ok=True)
        surplus -= size


# ---- reading ----


def files(folder: Path) -> list[Path]:
    """The whole files of a log, the oldest first."""
    return sorted(folder.glob("*.parquet"))


def read(
    folder: Path,
    since: datetime | None = None,
    schema: pa.Schema = SCHEMA,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The rows since a time (aware), in some columns of a log's schema and the order in which files were written.

    A choice of columns must hold `time` where there is a time. Raises DataError for a damaged file. May be called
    while others write.
    """
    first = _stamp(since) if since else ""
    names = list(columns or schema.names)
    tables = [schema.empty_table().select(names)]
    for path in files(folder):
        if path.name >= first:
            try:
                tables.append(pq.read_table(path, columns=names, schema=schema, partitioning=None))
            except FileNotFoundError:
                continue  # dropped meanwhile
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is damaged ({error}): remove it") from None
    table = pa.concat_tables(tables)
    return (
        table
        if since is None
        else table.filter(pa.compute.field("time") >= pa.scalar(since, table["time"].type))
    )


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _array(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.concatenate(values) if values else np.zeros(0, kind.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
