"""Adaptive batching inside one process.

A batch is whatever arrived while the one before was running: no timer adds to the latency of a lone
request, and under load batches grow by themselves up to `largest`. BentoML's own batching is reached over
HTTP only, and answers 503 when a batch is late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class OverloadError(Exception):
    """More items wait than were allowed to."""


class Batcher(Generic[Item, Answer]):
    """Runs `run` on lists of up to `largest` items in a thread of its own, one list at a time.

    `run` gives one answer per item; an answer that is an exception is raised for that item alone. When `run`
    itself raises, its items are run one by one, so that one of them cannot fail the others.
    """

    def __init__(
        self, run: Callable[[list[Item]], Sequence[Answer | Exception]], largest: int = 32, waiting: int = 256
    ) -> None:
        self.largest, self.waiting = largest, waiting
        self._run = run
        self._queue: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        if len(self._queue) >= self.waiting:
            raise OverloadError(f"{self.waiting} requests wait already")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            items = [item for item, _ in batch]
            answers = await loop.run_in_executor(self._thread, self._answer, items)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._queue and len(batch) < self.largest:
            item, future = self._queue.popleft()
            # A client that went away needs no answer.
            if not future.done():
                batch.append((item, future))
        return batch

    def _answer(self, items: list[Item]) -> list[Answer | Exception]:
        try:
            answers = list(self._run(items))
            if len(answers) != len(items):
                raise RuntimeError(f"{len(answers)} answers for {len(items)} items")
            return answers
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [self._answer([item])[0] for item in items]
