"""Where a message names the first few of many faults, a file that holds all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ayeaye.core.errors import AyeayeError
from ayeaye.core.files import write_atomic
from ayeaye.data.sources import LISTED


@contextmanager
def listed_in(path: Path) -> Iterator[None]:
    """Write an error's details to a file, if they are more than its message holds, and name it there."""
    path.unlink(missing_ok=True)  # of an earlier run
    try:
        yield
    except AyeayeError as error:
        if len(error.details) > LISTED:
            write_atomic(path, "".join(f"{line}\n" for line in error.details).encode(errors="replace"))
            error.args = (f"{error}; all {len(error.details):,} are listed in {path}",)
            error.details = ()
        raise
