"""Files written whole or not at all, and digests of what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced to disk, when the block succeeds.

    Raises OSError with the name of the file, also where a library that writes it has an error of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
        sync_folder(path.parent)
    except Exception as error:
        _name_file(error, path)
        raise
    finally:
        part.unlink(missing_ok=True)


def _name_file(error: Exception, path: Path) -> None:
    if isinstance(error, OSError):
        if error.errno is None:  # NumPy's: so many items requested, so many written
            raise OSError(errno.EIO, f"Cannot be written whole ({error})", str(path)) from error
        error.filename = error.filename or str(path)
    elif found := re.search(r"os error (\d+)", str(error)):  # as Rust says it
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def write_atomic(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Remove what a killed writer left; call only while no other writer can be at work there."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, pattern: str = "**/*") -> str:
    """SHA-256 over the relative names and contents of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return whole.hexdigest()
