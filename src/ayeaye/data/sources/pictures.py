"""Picture files below a folder: found, and read within limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ayeaye import params
from ayeaye.data.sources.base import Entry
from ayeaye.errors import PictureError
from ayeaye.texts import composed

IGNORED_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db")
MAX_BYTES = params.Prepare().max_bytes


def reader(images: Path, max_bytes: int) -> Callable[[Entry], bytes]:
    """Reads the file that an entry names below `images`; raises PictureError."""

    def read(entry: Entry) -> bytes:
        if not entry.label:
            raise PictureError("lies in no class folder: expected images/<class>/*")
        file = images / entry.source
        try:
            length = file.stat().st_size
            if length > max_bytes:
                raise PictureError(f"{length:,} bytes; at most {max_bytes:,} are allowed")
            return file.read_bytes()
        except OSError as error:
            raise PictureError(f"cannot be read ({error.strerror or error})") from None

    return read


def pictures(images: Path) -> Iterator[Entry]:
    """All files below `images`, sorted; a file beside the class folders has no label."""
    folders = [images]
    found = []
    while folders:
        with os.scandir(folders.pop()) as items:
            for item in items:
                if item.name.startswith(".") or item.name.lower() in IGNORED_FILES:
                    continue
                if item.is_symlink() and not _inside(Path(item.path), images):
                    continue
                if item.is_dir(follow_symlinks=False):
                    folders.append(Path(item.path))
                elif item.is_file():
                    # A name that is not UTF-8 cannot be written down: its file is not found, and rejected.
                    name = os.fsencode(Path(item.path).relative_to(images)).decode(
                        "utf-8", "backslashreplace"
                    )
                    found.append((name, item.stat()))
    for source, stat in sorted(found, key=lambda pair: pair[0]):
        label = composed(source.partition("/")[0]) if "/" in source else ""
        yield Entry(source, label, f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")


def _inside(link: Path, images: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_relative_to(images) and target.is_file()
