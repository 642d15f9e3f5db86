"""The database of the service: its address, its migrations, and how several processes take turns in it."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, inspect, make_url, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ayeaye.core.errors import StoreError
from ayeaye.service import migrations
from ayeaye.service.tables import SCHEMA

FILE = "service.db"
PATIENCE = 10  # seconds that a writer waits for its turn
ANSWER = 15  # seconds within which a server answers, the writer's wait included
_CREATION = 0x617965617965  # number of the advisory lock under which the tables are made
_Identity = tuple[int, int]  # of a file: its device and number


# With them a server ends what takes too long, and a network that drops packets is noticed.
_POSTGRESQL = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "tcp_user_timeout": "3000",
    "options": f"-c lock_timeout={PATIENCE}s -c statement_timeout={ANSWER}s",
}


def locate(state: Path, database: str | None = None) -> URL:
    """The address of the database: `database`, or else the SQLite file in the folder `state`.

    Raises StoreError, without the address, which may hold a password.
    """
    if not database:
        return URL.create("sqlite", database=str(state / FILE))
    expected = (
        "expected postgresql+psycopg://user:password@host/name or sqlite:////folder/file.db, "
        "with @ and % in a password written as %40 and %25"
    )
    try:
        url = make_url(database)
    except (SQLAlchemyError, ValueError):
        raise StoreError(f"the address of the service's database cannot be read: {expected}") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("postgresql+psycopg", "sqlite") or "@" in (url.host or ""):
        raise StoreError(f"the address of the service's database is not one that ayeaye can use: {expected}")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("the address of the service's database names no file: the workers must share one")
    return url


class Database:
    """One of the service; its tables are made when they are not there. Open it after a fork, not before.

    A file that is moved away while it is open cannot be used, and is not made anew; it is used again when it is back,
    and so is another database in its place.

    `name` is its address without the password; `openings` is another number once it may be another database. Raises
    StoreError when it cannot be used, here and in the transactions, whose messages do not hold the password either.
    """

    def __init__(self, url: URL) -> None:
        # The query may hold a password too.
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self.openings = 0
        self._engine = _engine(url)
        self._file = path_of(url)
        self._opened: _Identity | None = None
        self._beside: dict[Path, _Identity | None] = {}
        self._reopening = threading.Lock()
        with self._told():
            self._create()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._told():
            self._check_file()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that no other writer runs beside."""
        with self.appending() as connection:
            # PostgreSQL's turn is this row, SQLite's came with the BEGIN.
            self._check_version(connection.execute(select(SCHEMA).with_for_update()).scalar())
            yield connection

    @contextmanager
    def appending(self) -> Iterator[Connection]:
        """A transaction that only adds rows, and waits for no other writer's turn where the database allows that."""
        with self._told():
            opened = self._check_file()
            with self._begun() as connection:
                yield connection
            if self._file and _identity(self._file) != opened:
                raise StoreError(f"the service's database {self.name} was moved away while it was written")

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            writing = connection.execution_options(begin="BEGIN IMMEDIATE")
            with writing.begin():
                yield writing

    def _create(self) -> None:
        """Make the file and the tables where they are missing; of several processes that do so at once, one does."""
        if self._file:
            # Pictures that clients sent are nobody else's business.
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(self._file):
            if self._file and not self._file.exists():
                os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with self._begun() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(select(func.pg_advisory_xact_lock(_CREATION)))
                there = inspect(connection).has_table(SCHEMA.name)
                if not there or connection.scalar(select(SCHEMA)) != migrations.HEAD:
                    self._migrate(connection)
            self._remember()

    def _check_file(self) -> _Identity | None:
        """See that the file is the one that was opened, and give its identity.

        SQLite would not: it goes on with a file that was moved away or deleted, and what it writes there is lost.
        """
        if self._file is None:
            return None
        found = _identity(self._file)
        if found is None or found != self._opened:
            with self._reopening:
                self._reopen(self._file)
        return self._opened

    def _reopen(self, file: Path) -> None:
        found, left = _identity(file), self._left_behind()
        if found is None:
            if not left:
                self._let_go()
            raise StoreError(
                f"the service's database {self.name} is not there any more: put it back, or start the service again "
                "to begin with an empty one"
            )
        if found == self._opened:
            return  # it is back, or another thread was first
        if left:
            raise StoreError(
                f"the service's database {self.name} was replaced, and {' and '.join(left)} beside it are of the one "
                "before: move them away, too"
            )
        self._let_go()
        with _alone(file):
            with self._engine.connect() as connection:
                self._check_version(connection.scalar(select(SCHEMA)))
            self._remember()

    def _remember(self) -> None:
        """Which files are open now, and that none but their owner reads them."""
        self.openings += 1
        if self._file:
            beside = [self._file.with_name(self._file.name + ending) for ending in ("-wal", "-shm")]
            for path in (self._file, *beside):
                with suppress(FileNotFoundError, PermissionError):  # not there; another one's
                    path.chmod(0o600)
            self._opened, self._beside = _identity(self._file), {path: _identity(path) for path in beside}

    def _left_behind(self) -> list[str]:
        """What lies beside the file and is of the database that is open: with any other it would be damage.

        While they are open, no other files have their identities.
        """
        return [path.name for path, opened in self._beside.items() if opened and _identity(path) == opened]

    def _let_go(self) -> None:
        self._engine.dispose()
        self._opened, self._beside = None, {}

    def _migrate(self, connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        folder = str(Path(migrations.__file__).parent)
        config.set_main_option("script_location", folder.replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:  # a revision that this code does not know
            raise self._newer() from None

    def _check_version(self, version: str | None) -> None:
        if version != migrations.HEAD:
            raise self._newer()

    def _newer(self) -> StoreError:
        return StoreError(
            f"{self.name} was made by a newer ayeaye: upgrade ayeaye, or give the service another database"
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            said = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
            hint = (
                "see that it can be written and has room, or set AYEAYE_STATE to a folder where that is so"
                if self._engine.name == "sqlite"
                else "see that it runs, can be written, and has room"
            )
            raise StoreError(
                f"the service's database {self.name} cannot be used ({said[0] if said else 'no reason given'}): {hint}"
            ) from error


class _Patient(psycopg.Connection):
    """One that is given up when the server is silent for ANSWER seconds.

    None of PostgreSQL's own timeouts ends the wait for a server that stands still, or for a proxy before it.
    """

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Any) -> Generator[Any, Any, Any]:
        until = time.monotonic() + ANSWER
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {ANSWER} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        url = url.set(query={**_POSTGRESQL, **url.query})
        # A connection that a restart of the server broke is replaced, not answered with an error.
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)

        @event.listens_for(engine, "do_connect")
        def patient(dialect: Any, record: Any, arguments: Any, options: Any) -> psycopg.Connection:
            return _Patient.connect(*arguments, **options)

        return engine
    # Files are made by Database alone, not by whatever connects.
    uri = Path(str(url.database)).absolute().as_uri()
    url = url.set(database=uri, query={**url.query, "mode": "rw", "uri": "true"})
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": PATIENCE})

    # As SQLAlchemy's documentation says: sqlite3 must not begin transactions by its own rules.
    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def path_of(url: URL) -> Path | None:
    """The file of a SQLite database."""
    return Path(str(url.database)).absolute() if url.get_backend_name() == "sqlite" else None


def _identity(file: Path) -> _Identity | None:
    """What a file stays, however it is called; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """One process at a time: SQLite does not wait for its turn while it begins to write ahead."""
    if file is None:
        yield
        return
    descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
