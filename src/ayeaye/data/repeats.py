"""One picture under two classes, or in two published splits: refused, set aside, or kept under ids of their own.

A picture's id is the SHA-256 of its bytes. Where a picture is kept more than once, the first entry keeps that id and
each other has the SHA-256 of `<id>\\0<class>\\0<split>`. So ids are unique, and depend on no order but the source's.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ayeaye.core.errors import SourceError
from ayeaye.data.sources import LISTED, Entry, Source

Group = list[Entry]
COUNTS = ("in_two_classes", "in_two_splits")  # in dataset.json, where there are any
GIVEN = (None, "train", "test_seen", "test_unseen")


@dataclass(frozen=True)
class Repeats:
    """What becomes of pictures that stand there more than once, by the entry's source.

    `rejected` are reasons; `copies` are ids of the entries kept beside the first of their picture.
    `in_classes` and `in_splits` count the pictures that are kept in more than one.
    """

    rejected: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    in_classes: int = 0
    in_splits: int = 0

    def about(self) -> dict[str, int]:
        """What dataset.json holds of them: nothing where no picture is kept twice."""
        return {name: n for name, n in zip(COUNTS, (self.in_classes, self.in_splits), strict=True) if n}


def settle(source: Source, entries: Sequence[Entry], ids: Mapping[str, str], wanted: str) -> Repeats:
    """Apply `prepare.duplicates` to the entries that were read; `ids` are theirs by source.

    `quarantine` rejects both of a pair that contradict each other, but keeps published splits as they are. `keep`
    keeps one of each class and split. `error` raises SourceError with all of the pairs.
    """
    groups = _repeated(entries, ids)
    contradicting = {id: group for id, group in groups.items() if len({entry.label for entry in group}) > 1}
    if wanted == "error" and contradicting:
        raise _contradiction(source, list(contradicting.values()))
    if wanted == "quarantine" and not source.published:
        return Repeats(
            {
                entry.source: f"the same picture as {_others(source, entry, group)}"
                for group in contradicting.values()
                for entry in group
            }
        )
    copies = {source: id for id, group in groups.items() for source, id in _copies(id, group)}
    in_splits = sum(len({entry.split for entry in group}) > 1 for group in groups.values())
    return Repeats({}, copies, len(contradicting), in_splits)


def copy_id(id: str, label: str, split: str | None) -> str:
    """The id of a picture kept once more, under this class and published split."""
    return hashlib.sha256(f"{id}\0{label}\0{split or ''}".encode()).hexdigest()


def copies_of(ids: Iterable[str], labels: Iterable[str]) -> set[str]:
    """Every id that copies of these pictures may have."""
    labels = list(labels)
    return {copy_id(id, label, split) for id in ids for label in labels for split in GIVEN}


def _repeated(entries: Sequence[Entry], ids: Mapping[str, str]) -> dict[str, Group]:
    """By id the entries of a picture in more than one class or published split."""
    groups: dict[str, Group] = defaultdict(list)
    for entry in entries:
        if entry.source in ids:
            groups[ids[entry.source]].append(entry)
    return {id: group for id, group in groups.items() if len({_place(entry) for entry in group}) > 1}


def _copies(id: str, group: Group) -> Iterable[tuple[str, str]]:
    first = _place(group[0])
    for entry in group:
        if _place(entry) != first:
            yield entry.source, copy_id(id, *_place(entry))


def _place(entry: Entry) -> tuple[str, str | None]:
    return entry.label, entry.split


def _contradiction(source: Source, groups: list[Group]) -> SourceError:
    lines = [" and ".join(_named(source, entry) for entry in group) for group in groups]
    more = f"; {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    what = "1 picture is" if len(lines) == 1 else f"{len(lines)} pictures are"
    return SourceError(
        f"{source.origin}: {what} under two classes: {'; '.join(lines[:LISTED])}{more}; remove one of each, or set "
        "prepare.duplicates to quarantine or keep",
        lines,
    )


def _others(source: Source, entry: Entry, group: Group) -> str:
    return " and ".join(_named(source, other) for other in group if other.label != entry.label)


def _named(source: Source, entry: Entry) -> str:
    return f"{'row ' * (source.kind == 'features')}{entry.source} ({entry.label})"
