"""Memory that decoding took is given back to the machine.

The C library keeps what was freed for the next who asks; after some large pictures in several threads that is
hundreds of megabytes for good.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

SECONDS = 5.0  # between two times; one takes some milliseconds


def _trimmer() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc, whose fault it is
        return None
    return trim


_trim = _trimmer()
_lock = threading.Lock()
_next = 0.0


def give_back() -> None:
    """Give back what is free, unless that was done just now."""
    global _next
    if _trim is None or time.monotonic() < _next or not _lock.acquire(blocking=False):
        return
    try:
        _trim(0)
        _next = time.monotonic() + SECONDS
    finally:
        _lock.release()
