"""Decoding in threads, so many at a time and each within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ayeaye.errors import PictureError
from ayeaye.service.batching import OverloadError

Decoded = TypeVar("Decoded")


class SlowPicture(PictureError):
    """A picture whose decoding takes longer than it may."""


class Decoders(Generic[Decoded]):
    """Runs `decode` in `threads` threads; each may hold one decoded picture, which bounds memory.

    A thread cannot be stopped: one whose time is over goes on to its end, which the limits on pixels and bytes
    bring, but its turn goes to another. While as many are overdue as there are turns, nothing more is taken.
    """

    def __init__(self, decode: Callable[[bytes], Decoded], threads: int, seconds: float) -> None:
        self.seconds = seconds
        self._decode, self._threads = decode, threads
        self._turns = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(2 * threads, thread_name_prefix="decode")
        self._overdue = 0

    async def __call__(self, content: bytes) -> Decoded:
        """What `decode` makes of the content; raises what it raises, SlowPicture and OverloadError."""
        async with self._turns:
            if self._overdue >= self._threads:
                raise OverloadError("pictures that take too long are being decoded")
            work = asyncio.get_running_loop().run_in_executor(self._pool, self._decode, content)
            try:
                return await asyncio.wait_for(asyncio.shield(work), self.seconds)
            except TimeoutError:
                raise SlowPicture(f"decoding it takes more than {self.seconds:g} seconds") from None
            finally:
                if not work.done():
                    self._overdue += 1
                    work.add_done_callback(self._end)

    def _end(self, work: asyncio.Future[Decoded]) -> None:
        self._overdue -= 1
        if not work.cancelled():
            work.exception()  # looked at, so that nobody logs it

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
