"""Picture files below a folder: found, and read within limits."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ayeaye.core import params
from ayeaye.core.errors import PictureError, SourceError
from ayeaye.core.unicode_checks import composed
from ayeaye.data.sources.base import Entry

IGNORED_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db")
MAX_BYTES = params.Prepare().max_bytes


@dataclass(frozen=True, order=True)
class Found:
    """A file by its name below a folder; or what cannot be read as one, with the reason."""

    name: str
    path: Path
    stamp: str
    reason: str = ""


def reader(images: Path, max_bytes: int) -> Callable[[Entry], bytes]:
    """Reads the file that an entry names below `images`; raises PictureError."""

    def read(entry: Entry) -> bytes:
        if entry.reason:
            raise PictureError(entry.reason)
        if not entry.label:
            raise PictureError("lies in no class folder: expected images/<class>/*")
        file = images / entry.source
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise PictureError(_IRREGULAR)
            if status.st_size > max_bytes:
                raise PictureError(f"{status.st_size:,} bytes; at most {max_bytes:,} are allowed")
            return file.read_bytes()
        except OSError as error:
            raise PictureError(_unreadable(file, error)) from None

    return read


def pictures(images: Path) -> Iterator[Entry]:
    """All files below `images`, as `below` finds them; a file beside the class folders has no label."""
    for found in below(images):
        label = composed(found.name.partition("/")[0]) if "/" in found.name else ""
        yield Entry(found.name, label, found.stamp, reason=found.reason)


def below(folder: Path) -> list[Found]:
    """All files below a folder, sorted by name, but for hidden ones and what file managers leave behind.

    Links are followed wherever they lead. Each folder is read once, rather under its own name than under that of a
    link; a link to one that is read already, or that holds this one, is among the files with its reason. So are
    broken links, pipes and devices, folders that cannot be opened and names that cannot be written down. Raises
    SourceError where the folder itself cannot be read.
    """
    found: list[Found] = []
    inside, links = [folder], list[Path]()
    read: dict[tuple[int, int], Path] = {}
    above = set(folder.resolve().parents)
    while inside or links:
        # A link waits until all that lies here itself is read.
        here = inside.pop() if inside else heapq.heappop(links)
        try:
            status = here.stat()
            first = read.setdefault((status.st_dev, status.st_ino), here)
            if first is not here or (here.is_symlink() and here.resolve() in above):
                where = _written(first.relative_to(folder)) if first is not here else "above this one"
                found.append(
                    _found(folder, here, f"a link to a folder that is read already, or holds it ({where})")
                )
                continue
            with os.scandir(here) as items:
                for item in items:
                    if item.name.startswith(".") or item.name.lower() in IGNORED_FILES:
                        continue
                    path = Path(item.path)
                    if path.is_dir() if item.is_symlink() else item.is_dir():
                        if item.is_symlink():
                            heapq.heappush(links, path)
                        else:
                            inside.append(path)
                    else:
                        found.append(_found(folder, path))
        except OSError as error:
            if here == folder:
                raise SourceError(f"{folder} cannot be read ({error.strerror})") from error
            found.append(_found(folder, here, _unreadable(here, error)))
    return sorted(found)


_IRREGULAR = "is no regular file, but a pipe, a socket or a device"


def _found(folder: Path, path: Path, reason: str = "") -> Found:
    name = _written(path.relative_to(folder))
    try:
        status = path.stat()
        if not reason and not stat.S_ISREG(status.st_mode):
            reason = _IRREGULAR
    except OSError as error:
        reason = reason or _unreadable(path, error)
    if not reason and name != str(path.relative_to(folder)):
        reason = "its name is not UTF-8: rename it"
    # A reason is remembered like a content: it is asked for anew when it is another one.
    return Found(name, path, reason or f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}", reason)


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"a link to {_written(path.readlink())}, which is not there"
    return f"cannot be read ({error.strerror or error})"


def _written(path: Path) -> str:
    """A path as text that can be written down."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
