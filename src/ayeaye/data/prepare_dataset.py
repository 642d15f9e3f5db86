"""From a source to a checked dataset: only new pictures are read, and the manifest changes last."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ayeaye.core import params
from ayeaye.core.errors import DataError, PictureError, SourceError
from ayeaye.core.files import remove_parts, replacing, write_atomic
from ayeaye.data import checks, decode, repeats, shards, splits
from ayeaye.data.repeats import Repeats
from ayeaye.data.sources import LISTED, Entry, Source, check_counts, open_source
from ayeaye.data.sources.base import doubtful
from ayeaye.data.table import MANIFEST, QUARANTINE, ClassTable, Dataset, read_frame

Progress = Callable[[int, int], None]
WORKERS = min(8, os.cpu_count() or 1)
# Published in this order: what a reader looks at first comes last.
FILES = ("classes.parquet", "quarantine.parquet", "manifest.parquet", "dataset.json")
INDEX_FORMAT = 2


@dataclass(frozen=True)
class Summary:
    """What a dataset holds now and what has changed; `new` and `removed` count pictures.

    `withheld` are files of the source whose pictures were removed for good; `warnings` are no reason to stop.
    """

    kind: str
    pictures: int
    classes: int
    seen: int
    unseen: int
    new: int
    removed: int
    decoded: int
    rejected: int
    duplicates: int
    shards: int
    new_shards: int
    changed: bool
    digest: str
    splits: dict[str, int] = field(default_factory=dict)
    withheld: int = 0
    warnings: list[str] = field(default_factory=list)


def prepare(
    params: params.Prepare,
    folder: Path,
    resolve: Callable[[str], Path],
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    cache: Path | None = None,
    docs: Path | None = None,
    feedback: Path | None = None,
    removed: frozenset[str] = frozenset(),
    examine: Callable[[ClassTable, str], None] | None = None,
) -> Summary:
    """Brings the dataset in `folder` up to its source.

    `resolve` makes `prepare.path` absolute; `cache` is a file that remembers which files were read already;
    `docs` is the folder for Data Docs; `feedback` is a folder of accepted pictures, read beside the source;
    `removed` are ids of pictures that are not taken in, wherever they lie; `examine` is called with the class table
    and the kind of the dataset before a picture is read.
    With `dry_run` everything is read and checked and nothing written.
    The caller holds the lock of the workspace. Killed anywhere, the manifest is the old or the new one, and
    the next call completes what is missing.
    Raises SourceError, CheckFailed, ParamsError, and DataError when it cannot be written.
    """
    try:
        source = open_source(params, resolve, feedback)
    except OSError as error:
        raise SourceError(f"{error.filename or params.path} cannot be read ({error.strerror})") from error
    if examine:
        examine(_with_pretend_unseen(source.classes, params), source.kind)
    try:
        index = _Index.load(cache, params, source)
        before = _previous(folder)
        places = shards.places_on_disk(folder / "shards", set(before.manifest["shard"]) if before else set())
        collected = _collect(source, index, places, params, None if dry_run else folder, progress, removed)
        candidate = _candidate(source, collected, before, params, folder)
        contents = _contents(candidate, collected)
        stale = [name for name in FILES if not _same(folder / name, contents[name])]
        if dry_run:
            # Its shards are not there to be looked at.
            checks.check_dataset(candidate, None, shards=False)
        elif stale or not _docs_show(docs, candidate):
            checks.check_dataset(candidate, docs)
            _mark_docs(docs, candidate)
        if not dry_run:
            _publish(folder, {name: contents[name] for name in stale}, set(candidate.shards()))
            index.save(collected)
        return _summary(candidate, collected, before, bool(stale))
    except OSError as error:
        raise DataError(
            f"the dataset could not be written ({error.strerror or error}: {error.filename or folder}); "
            "it is as it was before"
        ) from error


# ---- reading what is new ----


@dataclass
class _Collected:
    """What became of the entries: an id or a reason for each, and the place of each id.

    `ids` and `reasons` are of each entry by itself; `repeats` adds what follows from one with another.
    """

    ids: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=Repeats)
    entries: list[Entry] = field(default_factory=list)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    new_shards: int = 0
    decoded: int = 0
    withheld: dict[str, str] = field(default_factory=dict)

    def rejected(self) -> dict[str, str]:
        """The reason by source, in the order of the entries."""
        reasons = self.reasons | self.repeats.rejected
        return {entry.source: reasons[entry.source] for entry in self.entries if entry.source in reasons}

    def accepted(self) -> dict[str, Entry]:
        """By id the first entry that has it."""
        unique: dict[str, Entry] = {}
        for entry in self.entries:
            if id := self._id(entry):
                unique.setdefault(id, entry)
        return unique

    def duplicates(self) -> int:
        return sum(bool(self._id(entry)) for entry in self.entries) - len(self.accepted())

    def _id(self, entry: Entry) -> str:
        if entry.source in self.withheld or entry.source in self.repeats.rejected:
            return ""
        return self.repeats.copies.get(entry.source) or self.ids.get(entry.source, "")


def _collect(
    source: Source,
    index: _Index,
    places: dict[str, tuple[str, int]],
    params: params.Prepare,
    folder: Path | None,
    progress: Progress | None,
    removed: frozenset[str],
) -> _Collected:
    found = _Collected(entries=source.entries, places=places)
    writer = shards.ShardWriter(folder / "shards" if folder else None, params.shard_bytes)
    waiting = []
    for entry in source.entries:
        id, reason = index.answer(entry)
        if id in removed:
            found.withheld[entry.source] = id
        elif reason:
            found.reasons[entry.source] = reason
        elif id in found.places:
            found.ids[entry.source] = id
        else:
            waiting.append(entry)
    # One bad picture of a few is soon a large share; 0 is meant as it stands.
    allowed = max(1.0, params.max_rejected * len(source.entries)) if params.max_rejected else 0.0
    _check_rejected(source, found, allowed)
    reader = _reader(source, decode.Limits.of(params), removed.union(found.places))
    for done, (entry, result) in enumerate(_in_threads(reader, waiting), start=1):
        if isinstance(result, PictureError):
            found.reasons[entry.source] = str(result)
            _check_rejected(source, found, allowed)
        elif result.id in removed:
            found.withheld[entry.source] = result.id
        else:
            found.ids[entry.source] = result.id
            if result.id not in found.places:
                found.decoded += writer.add(result)
        if progress:
            progress(done, len(waiting))
    found.repeats = repeats.settle(source, source.entries, found.ids, params.duplicates)
    _check_rejected(source, found, allowed)
    _add_copies(source, found, writer, decode.Limits.of(params), removed)
    writer.flush()
    found.places.update(writer.places)
    found.new_shards = len(writer.names)
    pictures = Counter(entry.label for entry in found.accepted().values())
    gone = found.rejected()
    rejected = Counter(entry.label for entry in source.entries if entry.source in gone)
    check_counts(source.classes, pictures, source.origin, rejected)
    return found


def _add_copies(
    source: Source,
    found: _Collected,
    writer: shards.ShardWriter,
    limits: decode.Limits,
    removed: frozenset[str],
) -> None:
    """Pictures that are kept a second time are stored a second time: an id has one place."""
    read = _reader(source, limits, frozenset())
    for entry in source.entries:
        id = found.repeats.copies.get(entry.source)
        if id in removed:
            found.withheld[entry.source] = id
        elif id and id not in found.places:
            result = read(entry)
            if isinstance(result, PictureError):
                raise SourceError(f"{source.origin}: {entry.source} changed while it was read: prepare again")
            writer.add(replace(result, id=id))


def _reader(
    source: Source, limits: decode.Limits, known: Set[str]
) -> Callable[[Entry], shards.Picture | PictureError]:
    def read(entry: Entry) -> shards.Picture | PictureError:
        try:
            content = source.read(entry)
            id = hashlib.sha256(content).hexdigest()
            if source.kind == "features":
                return shards.Picture(id, content, source.width, 1)
            if id in known:
                decode.size(content, limits)  # they may be narrower than when it was taken
                return shards.Picture(id, b"", 0, 0)
            # Whole, not the header alone: a truncated picture shows only at its end.
            picture = decode.decode(content, limits)
            return shards.Picture(id, content, *picture.size)
        except PictureError as error:
            return error

    return read


def _in_threads(
    read: Callable[[Entry], shards.Picture | PictureError], entries: list[Entry]
) -> Iterator[tuple[Entry, shards.Picture | PictureError]]:
    """Results in order, with only a few pictures in memory at a time."""
    ahead: deque[tuple[Entry, Future[shards.Picture | PictureError]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool, ExitStack() as stack:
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for entry in entries:
            ahead.append((entry, pool.submit(read, entry)))
            if len(ahead) > 4 * WORKERS:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _check_rejected(source: Source, found: _Collected, allowed: float) -> None:
    if len(found.reasons) + len(found.repeats.rejected) <= allowed:
        return
    lines = [f"{name}: {reason}" for name, reason in found.rejected().items()]
    keep = ", or set prepare.duplicates to keep" if found.repeats.rejected else ""
    raise SourceError(
        f"{source.origin}: more than {int(allowed)} of {len(source.entries)} pictures cannot be used "
        f"({'; '.join(lines[:LISTED])}); mend or remove them, or raise prepare.max_rejected{keep}",
        lines,
    )


# ---- the candidate ----


@dataclass(frozen=True)
class _Before:
    manifest: pd.DataFrame
    about: dict[str, Any]


def _previous(folder: Path) -> _Before | None:
    """The manifest as it was, or None where there is none; a class table half published does not matter."""
    try:
        about = json.loads((folder / "dataset.json").read_bytes())
        manifest = read_frame(folder / "manifest.parquet", MANIFEST)
        return _Before(manifest, dict(about))
    except (DataError, OSError, ValueError, TypeError):
        return None


def _candidate(
    source: Source, found: _Collected, before: _Before | None, params: params.Prepare, folder: Path
) -> Dataset:
    unique = found.accepted()
    about = {
        "format": 1,
        "kind": source.kind,
        "dtype": source.dtype or None,
        "width": source.width or None,
        "source": params.source,
        "seed": params.seed,
        "test_share": params.test_share,
        "validation_share": params.validation_share,
        "duplicates": found.duplicates(),
        "checks": checks.VERSION,
        **found.repeats.about(),
    }
    classes = _with_pretend_unseen(source.classes, params)
    chosen = splits.assign(
        {id: entry.label for id, entry in unique.items()},
        set(classes.frame.loc[classes.seen, "name"]),
        seed=params.seed,
        test_share=params.test_share,
        validation_share=params.validation_share,
        before=_kept_splits(before, about),
        given={id: entry.split for id, entry in unique.items() if entry.split},
    )
    manifest = pd.DataFrame(
        [(id, *found.places[id], entry.label, chosen[id], entry.source) for id, entry in unique.items()],
        columns=list(MANIFEST),
    )
    return Dataset(folder, manifest, classes, source.kind, about)


def _with_pretend_unseen(classes: ClassTable, params: params.Prepare) -> ClassTable:
    if classes.pretend_unseen.any():
        return classes  # the source's own
    chosen = splits.pretend_unseen(
        classes.names, classes.seen.tolist(), params.validation_classes, params.seed
    )
    return ClassTable(classes.frame.assign(pretend_unseen=chosen), classes.matrices)


def _kept_splits(before: _Before | None, about: dict[str, Any]) -> dict[str, str]:
    """Splits of the earlier dataset, unless they were made with another seed or other shares."""
    made_with = ("seed", "test_share", "validation_share", "kind")
    if before is None or any(before.about.get(key) != about[key] for key in made_with):
        return {}
    return dict(zip(before.manifest["id"], before.manifest["split"], strict=True))


def _contents(candidate: Dataset, found: _Collected) -> dict[str, bytes]:
    labels = {entry.source: entry.label for entry in found.entries}
    quarantine = [(name, labels[name], reason) for name, reason in found.rejected().items()]
    rows = {name: [row[column] for row in quarantine] for column, name in enumerate(QUARANTINE)}
    return {
        "classes.parquet": _parquet(candidate.classes.to_arrow()),
        "quarantine.parquet": _parquet(pa.table({name: pa.array(rows[name], pa.string()) for name in rows})),
        "manifest.parquet": manifest_bytes(candidate.manifest),
        "dataset.json": json.dumps(candidate.about, indent=2).encode() + b"\n",
    }


def manifest_bytes(manifest: pd.DataFrame) -> bytes:
    """A manifest as its file holds it."""
    kinds = {"row": pa.int32()}
    columns = {name: pa.array(manifest[name].tolist(), kinds.get(name, pa.string())) for name in MANIFEST}
    return _parquet(pa.table(columns))


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def _docs_show(docs: Path | None, candidate: Dataset) -> bool:
    """Whether the Data Docs are of this dataset: they may be gone, or of another that failed since."""
    mark = docs / "dataset" / ".digest" if docs else None
    return mark is None or (mark.is_file() and mark.read_text() == candidate.digest())


def _mark_docs(docs: Path | None, candidate: Dataset) -> None:
    if docs:
        write_atomic(docs / "dataset" / ".digest", candidate.digest().encode())


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


# ---- publishing ----


def _publish(folder: Path, contents: dict[str, bytes], used: set[str]) -> None:
    """Everything is written beside its place before the first file takes it; renaming needs no space."""
    with ExitStack() as stack:
        for name in reversed(FILES):
            if name in contents:
                stack.enter_context(replacing(folder / name)).write_bytes(contents[name])
    shards.drop_unused(folder / "shards", used)
    remove_parts(folder)


def quarantine(folder: Path) -> pd.DataFrame:
    """The pictures that were not taken in: source, label, reason."""
    return read_frame(folder / "quarantine.parquet", QUARANTINE)


def _summary(candidate: Dataset, found: _Collected, before: _Before | None, changed: bool) -> Summary:
    ids, old = set(candidate.manifest["id"]), set(before.manifest["id"]) if before else set()
    seen = int(np.count_nonzero(candidate.classes.seen))
    return Summary(
        kind=candidate.kind,
        pictures=len(ids),
        classes=len(candidate.classes.names),
        seen=seen,
        unseen=len(candidate.classes.names) - seen,
        new=len(ids - old),
        removed=len(old - ids),
        decoded=found.decoded,
        rejected=len(found.rejected()),
        duplicates=int(candidate.about["duplicates"]),
        shards=len(candidate.shards()),
        new_shards=found.new_shards,
        changed=changed,
        digest=candidate.digest(),
        splits={str(name): int(count) for name, count in candidate.manifest["split"].value_counts().items()},
        withheld=len(found.withheld),
        warnings=doubtful(candidate.classes.names, candidate.classes.frame["synonyms"].tolist()),
    )


# ---- what was read already ----


@dataclass
class _Index:
    """Stamp, and id or reason, of every entry that was read under the same limits."""

    path: Path | None
    key: dict[str, Any]
    known: dict[str, list[str]] = field(default_factory=dict)
    rejected: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None, params: params.Prepare, source: Source) -> _Index:
        key = {
            "format": INDEX_FORMAT,
            "origin": source.origin,
            "max_bytes": params.max_bytes,
            "max_pixels": params.max_pixels,
        }
        try:
            stored = json.loads(path.read_bytes()) if path else {}
            if stored.get("key") == key:
                return cls(path, key, stored["known"], stored["rejected"])
        # It only saves time: whatever is wrong with it, the pictures are read again.
        except (OSError, ValueError, KeyError, AttributeError):
            pass
        return cls(path, key)

    def answer(self, entry: Entry) -> tuple[str, str]:
        """The id and the reason that are known of an entry, empty where they are not."""
        for column, table in enumerate((self.known, self.rejected)):
            stamp, value = table.get(entry.source, ("", ""))
            if stamp == entry.stamp:
                return ("", value) if column else (value, "")
        return "", ""

    def save(self, found: _Collected) -> None:
        # A removed one is remembered too: so as not to be read again each time.
        ids = found.withheld | found.ids
        known = {
            entry.source: [entry.stamp, ids[entry.source]] for entry in found.entries if entry.source in ids
        }
        rejected = {
            entry.source: [entry.stamp, found.reasons[entry.source]]
            for entry in found.entries
            if entry.source in found.reasons
        }
        if self.path and (known, rejected) != (self.known, self.rejected):
            content = json.dumps({"key": self.key, "known": known, "rejected": rejected}, ensure_ascii=False)
            write_atomic(self.path, content.encode())
