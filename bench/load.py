"""Load on an address: requests over kept-alive connections, closed loop or open; prints JSON.

python bench/load.py URL FILE... [--field image] [--seconds 10] [--connections 8 | --rate 50] [--seed 0]

In the closed loop each connection asks again as soon as it is answered: what can be answered at most. In the open
loop requests come at random moments of a given mean rate, whether those before are answered or not, and a
latency counts from when its request was due: what a person waits at that load.

A program of its own, since a client that shares its server's process, or spends as much as the server, measures
itself. The client is small for the same reason: HTTP/1.1 over a socket, with requests that are made beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds for an answer; a request that has none then is lost
# Servers close connections that were idle for some seconds, perhaps while a request is on its way: that would look
# like one that was lost.
IDLE = 2.0
_BOUNDARY = "ayeaye-boundary"


@dataclass
class Seen:
    """What came of a load: latencies in milliseconds, statuses, requests that were lost with the reason."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def answered(self) -> int:
        return self.statuses[200]

    def quantile(self, share: float) -> float:
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else float("nan")

    def summary(self) -> dict[str, Any]:
        return {
            "requests": len(self.latencies) + len(self.lost),
            "answered": self.answered,
            "lost": len(self.lost),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "seconds": round(self.seconds, 2),
            "requests a second": round(self.answered / self.seconds, 1) if self.seconds else 0.0,
            **{
                name: round(self.quantile(share), 1)
                for name, share in (("p50 ms", 0.5), ("p95 ms", 0.95), ("p99 ms", 0.99))
            },
            "client's CPU ms a request": round(1000 * self.cpu_seconds / max(1, len(self.latencies)), 2),
        }


Answered = Callable[[int, int, bytes], None]  # number of the content, status, body


class Load:
    """Requests with these contents, in turn, to one address.

    `answered` is told of every answer. Not for several loads at once.
    """

    def __init__(
        self, url: str, contents: Sequence[bytes], field: str = "image", answered: Answered | None = None
    ) -> None:
        split = urlsplit(url)
        self._host, self._port = split.hostname or "127.0.0.1", split.port or 80
        path = f"{split.path or '/'}{f'?{split.query}' if split.query else ''}"
        self._requests = [_request(path, split.netloc, field, content) for content in contents]
        self._answered = answered
        self._next = 0
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def closed(self, connections: int, seconds: float) -> Seen:
        """So many connections, each with one request at a time."""
        seen = Seen()
        until = time.perf_counter() + seconds

        async def one() -> None:
            while (now := time.perf_counter()) < until:
                await self._ask(seen, now)

        await self._measured(seen, [one() for _ in range(connections)])
        return seen

    async def open(
        self, rate: float, seconds: float, seed: int = 0, enough: Callable[[], bool] = lambda: False
    ) -> Seen:
        """So many requests a second on average, at the moments of a Poisson process, until it is enough."""
        seen, chance = Seen(), random.Random(seed)

        async def all() -> None:
            start = time.perf_counter()
            due = start
            async with asyncio.TaskGroup() as asking:
                while (due := due + chance.expovariate(rate)) < start + seconds and not enough():
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    asking.create_task(self._ask(seen, due))

        await self._measured(seen, [all()])
        return seen

    async def _measured(self, seen: Seen, work: Sequence[Any]) -> None:
        before, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*work)
        seen.seconds, seen.cpu_seconds = time.perf_counter() - before, time.process_time() - cpu
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, seen: Seen, due: float) -> None:
        number = self._next % len(self._requests)
        self._next += 1
        try:
            status, body = await asyncio.wait_for(self._exchange(self._requests[number]), PATIENCE)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            seen.lost.append(f"{type(error).__name__}: {error}")
            return
        seen.latencies.append(1000 * (time.perf_counter() - due))
        seen.statuses[status] += 1
        if self._answered:
            self._answered(number, status, body)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.perf_counter() < since + IDLE and not reader.at_eof():
                return await self._over(reader, writer, request)
            writer.close()
        return await self._over(*await asyncio.open_connection(self._host, self._port), request)

    async def _over(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, bytes]:
        kept = False
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(None, 2)[1])
            _, found, length = head.partition(b"content-length:")
            if not found:
                raise ValueError("an answer without a length")
            body = await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
            kept = b"connection: close" not in head
        finally:
            if kept:
                self._idle.append((time.perf_counter(), reader, writer))
            else:
                writer.close()
        return status, body


def _request(path: str, host: str, name: str, content: bytes) -> bytes:
    """A form with one file, as curl -F sends it."""
    part = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="picture"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = part.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--field", default="image")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, help="requests a second: the open loop")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    load = Load(chosen.url, [path.read_bytes() for path in chosen.files], chosen.field)
    work = (
        load.open(chosen.rate, chosen.seconds, chosen.seed)
        if chosen.rate
        else load.closed(chosen.connections, chosen.seconds)
    )
    seen = asyncio.run(work)
    print(json.dumps({**seen.summary(), "reasons": seen.lost[:5]}))


if __name__ == "__main__":
    main()
