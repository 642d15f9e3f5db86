"""Decoding in threads: so many pictures and pixels at a time, and each within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ayeaye.core.errors import PictureError
from ayeaye.service.batching import OverloadError

SMALL = 1_000_000  # pixels
Decoded = TypeVar("Decoded")
Result = TypeVar("Result")


class SlowPicture(PictureError):
    """A picture whose decoding takes longer than it may."""


class Decoders(Generic[Decoded]):
    """Runs `decode` in `threads` threads; what is being decoded has together at most `pixels` pixels, which bounds
    memory. Pictures of up to SMALL pixels are not counted, so that large ones do not keep them waiting.

    A thread cannot be stopped: one whose time is over goes on to its end, which the limits on pixels and bytes
    bring, but its turn goes to another. While as many are overdue as there are turns, nothing more is taken.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Decoded],
        threads: int,
        seconds: float,
        count: Callable[[bytes], int] = lambda content: 0,
        pixels: int = 0,
    ) -> None:
        """`count` gives the pixels of a content, at most `pixels`, without decoding it."""
        self.seconds = seconds
        self._decode, self._threads = decode, threads
        self._count, self._room = count, _Room(pixels)
        self._turns = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(2 * threads, thread_name_prefix="decode")
        self._overdue = 0

    async def __call__(self, content: bytes) -> Decoded:
        """What `decode` makes of the content; raises what it raises, SlowPicture and OverloadError."""
        found = await self._in_turn(self._decode_small, content)
        if not isinstance(found, _Large):
            return found
        await self._room.take(found.pixels)
        return await self._in_turn(self._decode, content, lambda: self._room.give(found.pixels))

    def _decode_small(self, content: bytes) -> Decoded | _Large:
        pixels = self._count(content)
        return _Large(pixels) if pixels > SMALL else self._decode(content)

    async def _in_turn(
        self, run: Callable[[bytes], Result], content: bytes, ended: Callable[[], None] = lambda: None
    ) -> Result:
        """Run in a thread; calls `ended` once nothing of it runs any more."""
        work: asyncio.Future[Result] | None = None
        try:
            async with self._turns:
                if self._overdue >= self._threads:
                    raise OverloadError("pictures that take too long are being decoded")
                work = asyncio.get_running_loop().run_in_executor(self._pool, run, content)
                try:
                    return await asyncio.wait_for(asyncio.shield(work), self.seconds)
                except TimeoutError:
                    raise SlowPicture(f"decoding it takes more than {self.seconds:g} seconds") from None
                finally:
                    if not work.done():
                        self._overdue += 1
                        work.add_done_callback(self._end)
        finally:
            if work is None or work.done():
                ended()
            else:
                work.add_done_callback(lambda _: ended())

    def _end(self, work: asyncio.Future[Any]) -> None:
        self._overdue -= 1
        if not work.cancelled():
            work.exception()  # looked at, so that nobody logs it

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Large:
    pixels: int


class _Room:
    """So many pixels, taken by one after the other."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._next = asyncio.Lock()
        self._given = asyncio.Event()

    async def take(self, pixels: int) -> None:
        async with self._next:
            while self._left < pixels:
                self._given.clear()
                await self._given.wait()
            self._left -= pixels

    def give(self, pixels: int) -> None:
        self._left += pixels
        self._given.set()
