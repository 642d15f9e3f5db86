"""Decoding: each picture within its time, and those that are overdue in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import services
from small_bundle import picture

from ayeaye.errors import PictureError
from ayeaye.params import Serve
from ayeaye.service.batching import OverloadError
from ayeaye.service.decoding import Decoders, SlowPicture
from ayeaye.service.served import Served


class Gate:
    """Decodes at once, but for `slow` contents, which wait until the gate opens."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, content: bytes) -> int:
        if content == b"slow":
            self.opened.wait(20)
        if content == b"bad":
            raise PictureError("bad")
        return len(content)


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
        await asyncio.sleep(0.1)
        assert await decoders(b"four") == 4
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
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(OverloadError):
            await decoders(b"four")
        gate.opened.set()
        await asyncio.sleep(0.05)
        assert await decoders(b"four") == 4

    asyncio.run(give_up())


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
def test_a_picture_that_resizing_would_blow_up_is_a_400(
    client: services.TestClient, size: tuple[int, int]
) -> None:
    width, height = size
    response = client.post(
        "/classify", files={"image": services.png(width, height, bytes((width + 1) * height))}
    )
    assert response.status_code == 400
    assert "too narrow" in response.json()["error"]
    assert client.post("/classify", files={"image": picture("red")}).status_code == 200
