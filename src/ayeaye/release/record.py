"""The promotion record: append-only lines of JSON from which champion, previous and pending follow.

One line per entry, each carrying the digest of the one before and its own:

    time      UTC, ISO 8601              to        the version it is about
    actor     who or what asked          why       reasons, a list
    action    see below                  digests   bundle, data, params, bento, decision, …
    from      the champion before        figures   of the version, at that time
    previous, digest

    promote   `to` is champion           refuse    `to` is not to be champion
    rollback  `to` is champion again     pending   `to` passed the gate and waits for a person's word
    restore   `to` is champion again, since what was promoted after it could not be served

Entries follow each other as they were written: clocks may jump, lines do not. A last line that a kill tore
never took effect: reading passes over it, and the next append removes it; one that lacks only its newline counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ayeaye.core.errors import ReleaseError
from ayeaye.core.files import sync_folder

Action = Literal["promote", "rollback", "restore", "refuse", "pending"]
MOVES = ("promote", "rollback", "restore")  # after which another version, or another Bento, is champion
START = "0" * 64


@dataclass(frozen=True)
class Entry:
    time: str
    actor: str
    action: Action
    from_: int | None
    to: int
    why: tuple[str, ...]
    digests: dict[str, str]
    figures: dict[str, float]
    previous: str
    digest: str

    def as_dict(self) -> dict[str, Any]:
        return {**self._signed(), "digest": self.digest}

    def _signed(self) -> dict[str, Any]:
        return {
            "time": self.time,
            "actor": self.actor,
            "action": self.action,
            "from": self.from_,
            "to": self.to,
            "why": list(self.why),
            "digests": self.digests,
            # Entries of an ayeaye that kept none were signed without them.
            **({"figures": self.figures} if self.figures else {}),
            "previous": self.previous,
        }

    def expected_digest(self) -> str:
        text = json.dumps(self._signed(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class State:
    """What the record says should be: version numbers, the entry that made the champion, and the one that waits."""

    champion: int | None = None
    previous: int | None = None
    entry: Entry | None = None
    pending: Entry | None = None

    @property
    def bento(self) -> str | None:
        return self.entry.digests.get("bento") if self.entry else None


class Record:
    """The record in one file; raises ReleaseError when a line of it was changed or lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Every entry, oldest first, the chain of digests checked."""
        if not self.path.exists():
            return []
        return self._parse(self.path.read_bytes())[0]

    def state(self) -> State:
        return derive(self.entries())

    def last(self, version: int, action: Action | None = None) -> Entry | None:
        """The newest entry about a version."""
        about = [e for e in self.entries() if e.to == version and action in (None, e.action)]
        return about[-1] if about else None

    def bento(self, version: int) -> str | None:
        """The Bento a version was last promoted with."""
        tags = [e.digests["bento"] for e in self.entries() if e.to == version and e.digests.get("bento")]
        return tags[-1] if tags else None

    def head(self) -> tuple[int, str]:
        """How many entries there are, and the digest of the newest: an anchor to be kept elsewhere."""
        entries = self.entries()
        return len(entries), entries[-1].digest if entries else START

    def append(
        self,
        action: Action,
        to: int,
        *,
        actor: str,
        why: Sequence[str] = (),
        digests: Mapping[str, str] | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> Entry:
        """Add an entry, on disk when this returns. `from` is the champion that the record gives."""
        if action not in get_args(Action):
            raise ReleaseError(f"{action!r} is not an action of the record: {', '.join(get_args(Action))}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as descriptor:
            entries, whole = self._parse(_read(descriptor))
            entry = _chained(entries, action, to, actor, tuple(why), dict(digests or {}), dict(figures or {}))
            line = json.dumps(entry.as_dict(), ensure_ascii=False) + "\n"
            # A last entry that lacks only its newline counts: it is completed, not cut.
            lacks_newline = whole > 0 and os.pread(descriptor, 1, whole - 1) != b"\n"
            os.ftruncate(descriptor, whole)
            _write(descriptor, (("\n" if lacks_newline else "") + line).encode(), whole)
            os.fsync(descriptor)
        sync_folder(self.path.parent)
        return entry

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Goes with the process, so none is ever stale.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _parse(self, content: bytes) -> tuple[list[Entry], int]:
        """The entries, and how many bytes of the content they take up."""
        entries: list[Entry] = []
        whole = 0
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            torn = not line.endswith(b"\n")
            try:
                entry = _entry(json.loads(line))
            except (ValueError, KeyError, TypeError):
                if torn:
                    break
                raise self._damaged(number, "is not an entry") from None
            if entry.digest != entry.expected_digest():
                raise self._damaged(number, "was changed after it was written")
            if entry.previous != (entries[-1].digest if entries else START):
                raise self._damaged(number, "does not follow the line before: one was removed or added")
            entries.append(entry)
            whole += len(line)
        return entries, whole

    def _damaged(self, number: int, what: str) -> ReleaseError:
        return ReleaseError(f"{self.path} line {number} {what}: restore it from a backup of the workspace")


def derive(entries: Sequence[Entry]) -> State:
    """What is so after these entries; a rollback is a promotion of what was there before."""
    state, past = State(), list[State]()
    for entry in entries:
        if entry.action == "pending":
            state = replace(state, pending=entry)
            continue
        moved = entry.action in MOVES and entry.to != state.champion
        if state.pending and (moved or entry.to == state.pending.to):
            state = replace(state, pending=None)  # it was compared with the champion of its time
        if entry.action in MOVES:
            previous = state.previous if entry.to == state.champion else state.champion
            if entry.action == "restore":
                # What could not be served is nothing to go back to.
                previous = next((each.previous for each in reversed(past) if each.champion == entry.to), None)
            state = State(entry.to, previous, entry, state.pending)
            past.append(state)
    return state


def _chained(
    entries: Sequence[Entry],
    action: Action,
    to: int,
    actor: str,
    why: tuple[str, ...],
    digests: dict[str, str],
    figures: dict[str, float],
) -> Entry:
    entry = Entry(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        actor=actor,
        action=action,
        from_=derive(entries).champion,
        to=to,
        why=why,
        digests=digests,
        figures=figures,
        previous=entries[-1].digest if entries else START,
        digest="",
    )
    return Entry(**{**entry.__dict__, "digest": entry.expected_digest()})


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        time=raw["time"],
        actor=raw["actor"],
        action=raw["action"],
        from_=raw["from"],
        to=raw["to"],
        why=tuple(raw["why"]),
        digests=dict(raw["digests"]),
        figures=dict(raw.get("figures", {})),
        previous=raw["previous"],
        digest=raw["digest"],
    )


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
