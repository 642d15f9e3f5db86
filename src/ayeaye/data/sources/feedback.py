"""Pictures that reviewers accepted, beside those of any source of pictures.

<folder>/<class>/<SHA-256>     `/`, `%` and a leading `.` of a class name are written as in a URL
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from ayeaye.core.errors import PictureError
from ayeaye.core.files import write_atomic
from ayeaye.data.sources.base import Entry, Source
from ayeaye.data.sources.pictures import pictures, reader

PREFIX = "feedback/"  # of their names in the manifest


def keep(folder: Path, label: str, content: bytes) -> Path:
    """Put a picture of a class into the folder; again is as once."""
    name = label.replace("%", "%25").replace("/", "%2F")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    path = folder / name / hashlib.sha256(content).hexdigest()
    if not path.is_file():
        write_atomic(path, content)
    return path


def kept(folder: Path) -> dict[str, str]:
    """The class of each picture in the folder, by SHA-256."""
    return {Path(entry.source).name: entry.label for entry in _entries(folder)}


def with_feedback(source: Source, folder: Path, max_bytes: int) -> Source:
    """The source with the folder's pictures after its own; one of features takes none.

    A picture of a class that the source does not know, any more or yet, is not read: it is rejected like one
    that cannot be.
    """
    entries = _entries(folder) if source.kind == "images" else []
    if not entries:
        return source
    read_kept = reader(folder, max_bytes)
    # Rejections are remembered by stamp: it says whether the class was known.
    ours = {}
    for entry in entries:
        known = source.classes.find(entry.label)
        stamp = entry.stamp if known else f"{entry.stamp} unknown class"
        ours[f"{PREFIX}{entry.source}"] = replace(entry, label=known or entry.label, stamp=stamp)

    def read(entry: Entry) -> bytes:
        if entry.source not in ours:
            return source.read(entry)
        if entry.label and not source.classes.find(entry.label):
            raise PictureError(f"accepted feedback of a class that is not in the class table: {entry.label}")
        return read_kept(ours[entry.source])

    added = [replace(entry, source=name) for name, entry in ours.items()]
    return replace(source, entries=[*source.entries, *added], read=read)


def _entries(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        return []
    return [replace(entry, label=unquote(entry.label)) for entry in pictures(folder.resolve())]
