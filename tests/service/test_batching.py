"""Adaptive batching: batches grow while one runs, and a fault stays with its item."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ayeaye.service.batching import Batcher, OverloadError


class Doubler:
    """Doubles numbers in batches it remembers; waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, items: list[int]) -> list[int | Exception]:
        self.running += 1
        self.go.wait(10)
        self.batches.append(items)
        if 13 in items:
            raise ValueError("13")
        return [KeyError(item) if item < 0 else item * 2 for item in items]

    async def runs(self) -> None:
        """Until a batch is with it."""
        while not self.running:
            await asyncio.sleep(0.01)


def test_a_lone_item_is_not_kept_waiting() -> None:
    doubler = Doubler()
    assert asyncio.run(Batcher(doubler)(4)) == 8
    assert doubler.batches == [[4]]


def test_what_arrives_while_a_batch_runs_goes_together_up_to_the_largest() -> None:
    doubler = Doubler()

    async def many() -> list[int]:
        batcher: Batcher[int, int] = Batcher(doubler, largest=4)
        doubler.go.clear()
        first = asyncio.create_task(batcher(0))
        await doubler.runs()
        rest = [asyncio.create_task(batcher(number)) for number in range(1, 7)]
        await asyncio.sleep(0)  # each is run until it waits
        doubler.go.set()
        return list(await asyncio.gather(first, *rest))

    assert asyncio.run(many()) == [0, 2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6]]


@pytest.mark.parametrize(("bad", "fault"), [(-1, KeyError), (13, ValueError)])
def test_a_fault_stays_with_its_item(bad: int, fault: type[Exception]) -> None:
    async def many() -> list[int | BaseException]:
        batcher: Batcher[int, int] = Batcher(Doubler())
        return list(await asyncio.gather(*(batcher(n) for n in (1, bad, 3)), return_exceptions=True))

    one, two, three = asyncio.run(many())
    assert (one, three) == (2, 6)
    assert isinstance(two, fault)


def test_more_than_may_wait_are_refused_and_the_others_answered() -> None:
    doubler = Doubler()

    async def many() -> list[int | BaseException]:
        batcher: Batcher[int, int] = Batcher(doubler, largest=1, waiting=2)
        doubler.go.clear()
        tasks = [asyncio.create_task(batcher(0))]
        await doubler.runs()
        tasks += [asyncio.create_task(batcher(number)) for number in range(1, 5)]
        await asyncio.sleep(0)  # each is run until it waits
        doubler.go.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    answers = asyncio.run(many())
    assert answers[:3] == [0, 2, 4]
    assert all(isinstance(answer, OverloadError) for answer in answers[3:])


def test_a_request_that_was_given_up_is_not_computed() -> None:
    doubler = Doubler()

    async def give_up() -> int:
        batcher: Batcher[int, int] = Batcher(doubler)
        doubler.go.clear()
        first = asyncio.create_task(batcher(0))
        await doubler.runs()
        given_up, kept = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.sleep(0)  # each is run until it waits
        given_up.cancel()
        await asyncio.sleep(0)
        doubler.go.set()
        await first
        return await kept

    assert asyncio.run(give_up()) == 4
    assert doubler.batches == [[0], [2]]
