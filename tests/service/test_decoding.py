"""Decoding: each picture within its time, and those that are overdue in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import services
from small_bundle import picture

from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import PictureError
from ayeaye.core.params import Serve
from ayeaye.service.batching import OverloadError
from ayeaye.service.decoding import SMALL, Decoders, SlowPicture
from ayeaye.service.served import Served


class Gate:
    """Decodes at once, but for `slow` contents, which wait until the gate opens."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = 0

    def __call__(self, content: bytes) -> int:
        if content.startswith(b"slow"):
            self.waiting += 1
            self.opened.wait(20)
            self.waiting -= 1
        if content == b"bad":
            raise PictureError("bad")
        return len(content)

    async def reached(self) -> None:
        """Until a slow content waits."""
        while not self.waiting:
            await asyncio.sleep(0.01)


async def until_taken(decoders: Decoders[int]) -> None:
    """What is overdue ends, and pictures are taken again."""
    async with asyncio.timeout(10):
        while True:
            try:
                assert await decoders(b"four") == 4
                return
            except OverloadError:
                await asyncio.sleep(0.01)


def test_overdue_pictures_are_given_up_and_do_not_stand_in_the_way() -> None:
    async def many() -> None:
        gate = Gate()
        decoders = Decoders(gate, threads=2, seconds=0.2)
        slow = asyncio.gather(decoders(b"slow"), return_exceptions=True)
        assert await decoders(b"four") == 4
        assert isinstance((await slow)[0], SlowPicture)
        assert await asyncio.gather(decoders(b"one"), decoders(b"three")) == [3, 5]
        with pytest.raises(SlowPicture, match=r"more than 0\.2 seconds"):
            await decoders(b"slow")
        # As many are overdue as there are turns.
        with pytest.raises(OverloadError):
            await decoders(b"four")
        gate.opened.set()
        await until_taken(decoders)
        decoders.close()

    asyncio.run(many())


def test_a_fault_of_a_picture_is_told_and_its_turn_given_back() -> None:
    async def many() -> None:
        decoders = Decoders(Gate(), threads=1, seconds=5)
        for _ in range(3):
            with pytest.raises(PictureError):
                await decoders(b"bad")
        assert await decoders(b"four") == 4

    asyncio.run(many())


def test_a_request_that_is_given_up_keeps_no_turn() -> None:
    async def give_up() -> None:
        gate = Gate()
        decoders = Decoders(gate, threads=1, seconds=5)
        task = asyncio.create_task(decoders(b"slow"))
        await gate.reached()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(OverloadError):
            await decoders(b"four")
        gate.opened.set()
        await until_taken(decoders)

    asyncio.run(give_up())


@pytest.mark.parametrize("given_up", [False, True], ids=["answered", "given up"])
def test_large_pictures_wait_until_there_is_room_and_small_ones_do_not(given_up: bool) -> None:
    gate = Gate()

    async def many() -> None:
        sizes = {b"slow large": 3 * SMALL, b"large": 2 * SMALL, b"small": SMALL}
        decoders = Decoders(gate, 4, seconds=20, count=sizes.__getitem__, pixels=4 * SMALL)
        first = asyncio.create_task(decoders(b"slow large"))
        await gate.reached()
        if given_up:  # its thread goes on, and holds what it holds
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(decoders(b"large"))
        for _ in range(20):
            assert await decoders(b"small") == 5
        assert not second.done()
        gate.opened.set()
        assert await second == 5
        assert (await asyncio.gather(first, return_exceptions=True))[0] == 10 or given_up
        assert await asyncio.gather(*(decoders(b"large") for _ in range(5))) == [5] * 5

    asyncio.run(asyncio.wait_for(many(), 30))


def test_a_picture_that_takes_too_long_is_a_422(colours: Path, tmp_path: Path) -> None:
    large = services.png(5000, 5000, bytes(5001 * 5000))
    settings = Serve(decode_seconds=0.01)
    with services.within(Served(colours, tmp_path, settings=settings)) as (client, _):
        response = client.post("/classify", files={"image": large})
        assert response.status_code == 422
        assert "takes more than 0.01 seconds" in response.json()["error"]
    with services.within(Served(colours, tmp_path)) as (client, _):
        assert client.post("/classify", files={"image": large}).status_code == 200


@pytest.mark.parametrize("size", [(1, 3_000_000), (3_000_000, 1)])
def test_a_picture_that_is_but_a_line_is_a_400_and_refused_with_the_same_words_elsewhere(
    client: services.TestClient, colours: Path, size: tuple[int, int]
) -> None:
    width, height = size
    line = services.png(width, height, bytes((width + 1) * height))
    response = client.post("/classify", files={"image": line})
    assert response.status_code == 400
    said = response.json()["error"]
    assert f"{width} by {height} pixels: too narrow to be looked at" in said
    found, answer = Classifier.load(colours).classify([line, picture("red")])
    assert str(found) in said and isinstance(answer, dict)
    assert client.post("/classify", files={"image": picture("red")}).status_code == 200
