"""What the service keeps: classes described at run time, every change of them, and feedback.

A SQLite file, or PostgreSQL by URL; several processes use one database at once. A change of the classes is a
row of an append-only table, and the number of the last one is the revision, by which every worker sees whether
it is up to date. Writers take turns, so revisions become visible in their order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import URL, Connection, CursorResult, Row, Table, func, select, true

from ayeaye.core.errors import Conflict, DataError, NotKept, Outdated, StoreFull
from ayeaye.core.unicode_checks import check_name, check_prose, clean, comparable, normal
from ayeaye.service.database import Database
from ayeaye.service.tables import CHANGES, CLASSES, FEEDBACK, PENDING

Status = Literal["pending", "accepted", "rejected"]
ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"


@dataclass(frozen=True)
class StoreLimits:
    """How much is kept: `feedback` counts what is pending, `picture_bytes` all pictures in the database."""

    classes: int = 1000
    feedback: int = 1000
    picture_bytes: int = 500_000_000


@dataclass(frozen=True)
class RuntimeClass:
    """A class as a caller described it. `vector` (k,) is one of the class space, not of words.

    `created` is set by the store. Raises DataError for an empty name, and for values that cannot be kept; what is
    kept already has been looked at when it came.
    """

    name: str
    description: str = ""
    synonyms: tuple[str, ...] = ()
    attributes: Mapping[str, float] | None = None
    vector: tuple[float, ...] | None = None
    caller: str = ""
    created: datetime | None = None

    def __post_init__(self) -> None:
        if self.created is not None:
            return
        object.__setattr__(self, "name", clean(self.name, "the name of the class"))
        _check_texts(self.name, self.description, self.caller, *self.synonyms, *(self.attributes or ()))
        check_prose(self.description, f"the description of {self.name}")
        for name in self.attributes or ():
            check_name(name, f"an attribute of {self.name}")
        synonyms = tuple(clean(name, f"a synonym of {self.name}") for name in self.synonyms)
        object.__setattr__(self, "synonyms", synonyms)
        object.__setattr__(self, "description", normal(self.description))
        for what, values in (("attributes", (self.attributes or {}).values()), ("vector", self.vector or ())):
            if not all(math.isfinite(value) for value in values):
                raise DataError(f"the {what} of {self.name} must be finite numbers")

    def content(self) -> dict[str, Any]:
        """What the caller gave but the name, as JSON."""
        return {
            "description": self.description,
            "synonyms": list(self.synonyms),
            "attributes": None if self.attributes is None else dict(self.attributes),
            "vector": None if self.vector is None else list(self.vector),
        }


@dataclass(frozen=True)
class Change:
    """One change of the run-time classes; `content` is the class that was added or removed, or came in the place of
    another."""

    revision: int
    time: datetime
    caller: str
    action: Literal["add", "replace", "remove"]
    name: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Feedback:
    """What a caller says an answer should have been.

    `picture_bytes` is the size of the picture that was sent along, or 0; `has_picture` says whether the
    database still holds it.
    """

    id: int
    time: datetime
    answer: str
    label: str
    caller: str
    picture_id: str | None
    model_version: int | None
    picture_bytes: int
    has_picture: bool
    status: Status
    reviewer: str | None
    reason: str | None
    decided: datetime | None


@dataclass(frozen=True)
class Given:
    """The number of feedback. It is `new` unless the same was pending; `picture`: one is kept with it."""

    id: int
    new: bool
    picture: bool


_REVISION = select(func.coalesce(func.max(CHANGES.c.revision), 0))
_WITHOUT_PICTURE = select(
    *(column for column in FEEDBACK.c if column.name != "picture"),
    FEEDBACK.c.picture.is_not(None).label("has_picture"),
)


class Store:
    """What a service keeps, in the database at `url` as `database.locate` gives it.

    Open it after a fork, not before. Every method raises StoreError when the database cannot be used.
    """

    def __init__(self, url: URL, limits: StoreLimits = StoreLimits()) -> None:
        self.limits = limits
        self.database = Database(url)

    def __repr__(self) -> str:
        return f"Store({self.database.name!r})"

    def close(self) -> None:
        self.database.close()

    @property
    def openings(self) -> int:
        """Another number once it may be another database, whose revisions say nothing of those before."""
        return self.database.openings

    # ---- run-time classes ----

    def revision(self) -> int:
        """The number of the last change, 0 before the first; quick enough to be asked before every batch."""
        with self.database.reading() as connection:
            return connection.execute(_REVISION).scalar_one()

    def classes(self) -> tuple[int, list[RuntimeClass]]:
        """The revision and the classes as of it, the oldest first."""
        # One statement sees one state of the database.
        latest = select(_REVISION.scalar_subquery().label("revision")).subquery()
        both = select(latest.c.revision, CLASSES).select_from(latest.outerjoin(CLASSES, true()))
        with self.database.reading() as connection:
            rows = connection.execute(both.order_by(CLASSES.c.created, CLASSES.c.key)).all()
        return rows[0].revision, [_runtime_class(row) for row in rows if row.key is not None]

    def add(self, described: RuntimeClass, after: int | None = None, *, instead: bool = False) -> int:
        """Keep a class and return the new revision; with `instead` in the place of the one of its name, if any.

        With `after`, the revision of the classes that it was compared with, it is kept as the next change or not
        at all. Raises Conflict where the name is taken, Outdated where another change came first, StoreFull where
        there are as many classes as are allowed, DataError for a name that no address can have.
        """
        # DELETE /classes/.. is DELETE / to a browser. Checked here alone, so that classes that are kept can be read.
        if described.name in (".", ".."):
            raise DataError(f"a class named {described.name} could not be removed again: choose another name")
        key = comparable(described.name)
        with self.database.writing() as connection:
            if after is not None and connection.scalar(_REVISION) != after:
                raise Outdated(f"the run-time classes changed while {described.name} was added: add it again")
            there = connection.scalar(select(CLASSES.c.name).where(CLASSES.c.key == key))
            if there is not None and not instead:
                raise there_already(there)
            if there is None and _count(connection, CLASSES) >= self.limits.classes:
                raise StoreFull(
                    f"there are {self.limits.classes} run-time classes, as many as are allowed: remove some, "
                    "or train with them"
                )
            row = {"name": described.name, "content": described.content(), "caller": described.caller}
            now = _later(_now(), connection.scalar(select(func.max(CLASSES.c.created))))
            connection.execute(CLASSES.delete().where(CLASSES.c.key == key))
            connection.execute(CLASSES.insert().values(key=key, created=now, **row))
            return _record(connection, action="add" if there is None else "replace", time=now, **row)

    def remove(self, name: str, caller: str) -> int:
        """Forget a class and return the new revision; raises NotKept where there is none of that name."""
        _check_texts(name, caller)
        with self.database.writing() as connection:
            gone = connection.execute(
                CLASSES.delete()
                .where(CLASSES.c.key == comparable(name))
                .returning(CLASSES.c.name, CLASSES.c.content)
            ).one_or_none()
            if gone is None:
                raise NotKept(f"there is no run-time class {name}")
            return _record(
                connection, action="remove", time=_now(), caller=caller, name=gone.name, content=gone.content
            )

    def changes(self, after: int = 0, most: int | None = None) -> list[Change]:
        """The changes since a revision in order, the first `most` of them."""
        rows = select(CHANGES).where(CHANGES.c.revision > after).order_by(CHANGES.c.revision).limit(most)
        with self.database.reading() as connection:
            return [Change(**row._mapping) for row in connection.execute(rows)]

    # ---- feedback ----

    def give(
        self,
        answer: str,
        label: str,
        caller: str,
        picture: bytes | None = None,
        picture_id: str | None = None,
        model_version: int | None = None,
    ) -> Given:
        """Keep feedback, pending, in the place of what the caller said of that answer before.

        `answer` is the answer it is about, `picture_id` the SHA-256 of the picture that was answered. The same again
        is kept once; what differs has a number of its own, so that nobody decides about what they have not seen, and
        keeps the picture that was sent before. Raises DataError where the picture is another one or empty, StoreFull
        where too much is pending.
        """
        label = clean(label, "the label")
        _check_texts(answer, caller, picture_id or "")
        if picture is not None:
            picture_id = check_picture(picture, answer, picture_id)
        with self.database.writing() as connection:
            said = _said_before(connection, answer, caller)
            for before in said:
                if before.label == label and (picture is None or before.has_picture):
                    return Given(before.id, new=False, picture=before.has_picture)
            for before in said:
                picture = picture or _picture(connection, before.id)
                picture_id = picture_id or before.picture_id
                connection.execute(FEEDBACK.delete().where(FEEDBACK.c.id == before.id))
            size = len(picture or b"")
            self._check_room(connection, size)
            made = connection.execute(
                FEEDBACK.insert().values(
                    time=_now(),
                    answer=answer,
                    label=label,
                    caller=caller,
                    picture_id=picture_id,
                    model_version=model_version,
                    picture_bytes=size,
                    status=PENDING,
                    picture=picture,
                )
            )
            return Given(_number(made), new=True, picture=picture is not None)

    def _check_room(self, connection: Connection, size: int) -> None:
        """Raise StoreFull where there is no room for feedback with a picture of so many bytes."""
        if _count(connection, FEEDBACK, FEEDBACK.c.status == PENDING) >= self.limits.feedback:
            raise StoreFull(
                f"{self.limits.feedback} pieces of feedback are pending, as many as are allowed: "
                "`ayeaye data review` decides them"
            )
        held = select(func.coalesce(func.sum(FEEDBACK.c.picture_bytes), 0))
        held = held.where(FEEDBACK.c.picture.is_not(None))
        if size and connection.execute(held).scalar_one() + size > self.limits.picture_bytes:
            raise StoreFull(
                f"pending feedback holds {self.limits.picture_bytes:,} bytes of pictures, as many as are "
                "allowed: `ayeaye data review` decides it; feedback without a picture is still taken"
            )

    def pending(self) -> list[Feedback]:
        """What nobody has decided yet, the oldest first."""
        return self.feedback(PENDING)

    def feedback(self, status: Status | None = None) -> list[Feedback]:
        """All feedback, or that of one status, the oldest first."""
        wanted = _WITHOUT_PICTURE.order_by(FEEDBACK.c.id)
        if status is not None:
            wanted = wanted.where(FEEDBACK.c.status == status)
        with self.database.reading() as connection:
            return [Feedback(**row._mapping) for row in connection.execute(wanted)]

    def find(self, id: int) -> Feedback:
        """One piece of feedback; raises NotKept where there is none of that number."""
        with self.database.reading() as connection:
            return _found(connection, id)

    def picture(self, id: int) -> bytes | None:
        """The picture that was sent with a piece of feedback, while the database holds it."""
        with self.database.reading() as connection:
            return _picture(connection, id)

    def decide(self, id: int, accepted: bool, reviewer: str, reason: str = "") -> Feedback:
        """Accept or reject feedback; a rejected picture is forgotten. Deciding twice alike changes nothing.

        Raises NotKept, and Conflict where it was decided the other way.
        """
        _check_texts(reviewer, reason)
        status: Status = ACCEPTED if accepted else REJECTED
        with self.database.writing() as connection:
            before = _found(connection, id)
            if before.status == PENDING:
                values = {"status": status, "reviewer": reviewer, "reason": reason, "decided": _now()}
                if not accepted:
                    values["picture"] = None
                connection.execute(FEEDBACK.update().where(FEEDBACK.c.id == id).values(values))
            else:
                check_undecided(before, status)
            return _found(connection, id)

    def forget_picture(self, id: int) -> None:
        """Drop the picture of a piece of feedback, once it is kept elsewhere."""
        with self.database.writing() as connection:
            connection.execute(FEEDBACK.update().where(FEEDBACK.c.id == id).values(picture=None))


def check_picture(picture: bytes, answer: str, picture_id: str | None) -> str:
    """The SHA-256 of a picture; raises DataError where it is empty, or not the one that was answered."""
    if not picture:
        raise DataError("the picture is empty: send it, or feedback without one")
    digest = hashlib.sha256(picture).hexdigest()
    if picture_id not in (None, digest):
        raise DataError(f"the picture is not the one of answer {answer}: send the one that was labelled")
    return digest


def check_undecided(found: Feedback, status: Status) -> None:
    """Raise Conflict for feedback that was decided the other way."""
    if found.status not in (PENDING, status):
        raise Conflict(f"feedback {found.id} was {found.status} by {found.reviewer}: it stays so")


def there_already(name: str) -> Conflict:
    """For a class that would be the second of a name."""
    return Conflict(f"a run-time class {name} is there already: remove it first, or use another name")


def _check_texts(*texts: str) -> None:
    for text in texts:
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise DataError(f"{text[:40]!r} holds a character that is none: remove it")


def _now() -> datetime:
    return datetime.now(UTC)


def _later(now: datetime, last: datetime | None) -> datetime:
    """The time of a change, after that of the last one whatever clock gave it: classes are in the order of changes."""
    return now if last is None or last < now else last + timedelta(microseconds=1)


def _count(connection: Connection, table: Table, *where: Any) -> int:
    return connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one()


def _record(connection: Connection, **change: Any) -> int:
    return _number(connection.execute(CHANGES.insert().values(change)))


def _number(inserted: CursorResult[Any]) -> int:
    key = inserted.inserted_primary_key
    assert key is not None
    return int(key[0])


def _runtime_class(row: Row[Any]) -> RuntimeClass:
    content = row.content
    vector = content["vector"]
    return RuntimeClass(
        row.name,
        content["description"],
        tuple(content["synonyms"]),
        content["attributes"],
        None if vector is None else tuple(vector),
        row.caller,
        row.created,
    )


def _found(connection: Connection, id: int) -> Feedback:
    row = connection.execute(_WITHOUT_PICTURE.where(FEEDBACK.c.id == id)).one_or_none()
    if row is None:
        raise NotKept(f"there is no feedback {id}")
    return Feedback(**row._mapping)


def _said_before(connection: Connection, answer: str, caller: str) -> list[Feedback]:
    """What the caller says of an answer, and nobody has decided; the newest first."""
    same = (FEEDBACK.c.status == PENDING, FEEDBACK.c.answer == answer, FEEDBACK.c.caller == caller)
    rows = connection.execute(_WITHOUT_PICTURE.where(*same).order_by(FEEDBACK.c.id.desc()))
    return [Feedback(**row._mapping) for row in rows]


def _picture(connection: Connection, id: int) -> bytes | None:
    return connection.scalar(select(FEEDBACK.c.picture).where(FEEDBACK.c.id == id))
