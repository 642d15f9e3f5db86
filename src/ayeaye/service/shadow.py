"""The shadow: a share of what is classified also goes to a challenger, whose answers are compared, never returned.

The service has answered by then. What it sends on waits in a short queue for a thread of its own; what does not fit
is not sent, and a challenger that is away or slow is left alone for a while.
"""

from __future__ import annotations

import atexit
import logging
import queue
import random
import threading
import time
from typing import Any

import httpx

from ayeaye.service.answer_log import AnswerLog
from ayeaye.service.tables import COMPARISONS

WAITING, WAITING_BYTES = 32, 64_000_000
PATIENCE, PAUSE = 5.0, 5.0  # seconds for an answer; seconds that a challenger which has none is left alone
_NOT_NOW = (429, 502, 503, 504)
_Copy = tuple[bytes, str, dict[str, Any]]
_log = logging.getLogger(__name__)


class Shadow:
    """Sends copies of a `share` of the images to the service at an address, and logs how it answered.

    `dropped` counts the copies that were not sent or not answered.
    """

    def __init__(self, address: str, share: float, log: AnswerLog) -> None:
        self.share, self.dropped = share, 0
        self._answers = log
        self._client = httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)
        self._queue: queue.Queue[_Copy | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._bytes = 0  # that wait
        self._away_until = 0.0  # monotonic
        self._closing = False
        self._thread = threading.Thread(target=self._send_on, name="shadow", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def offer(self, content: bytes, picture_id: str, answer: dict[str, Any]) -> None:
        """Perhaps send a picture on, with the `answer` (of POST /classify) that it got; never waits."""
        if random.random() >= self.share:  # noqa: S311
            return
        with self._lock:
            late = self._closing or time.monotonic() < self._away_until
            if late or self._bytes + len(content) > WAITING_BYTES or self._queue.full():
                self.dropped += 1
                return
            self._queue.put_nowait((content, picture_id, answer))
            self._bytes += len(content)

    def close(self) -> None:
        """Send nothing more."""
        with self._lock:
            closed, self._closing = self._closing, True
        if closed:
            return
        atexit.unregister(self.close)
        self._client.close()  # also ends a question that waits
        self._queue.put(None)  # what waits is thrown away before it
        self._thread.join(PATIENCE)

    def _send_on(self) -> None:
        while (copy := self._queue.get()) is not None:
            with self._lock:
                self._bytes -= len(copy[0])
                late = self._closing or time.monotonic() < self._away_until
            try:
                kept = not late and self._compare(*copy)
            except Exception as error:  # whatever it is, the next picture may fare better
                kept = False
                _log.error("a copy for the challenger: %s: %s", type(error).__name__, error)
            if not kept:
                with self._lock:
                    self.dropped += 1

    def _compare(self, content: bytes, picture_id: str, answer: dict[str, Any]) -> bool:
        before = time.perf_counter()
        try:
            response = self._client.post(
                "/classify",
                params={"top": 2},
                content=content,
                headers={"Content-Type": "application/octet-stream"},
            )
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: of a client that was closed
            return self._away(type(error).__name__)
        if response.status_code in _NOT_NOW:
            return self._away(str(response.status_code))
        said = response.json() if response.status_code == 200 else {}
        return self._answers.add(
            COMPARISONS,
            answer=answer["id"],
            picture_id=picture_id,
            bento=answer["model"]["bento"],
            label=answer["label"],
            known=answer["known"],
            confidence=answer["confidence"],
            shadow_bento=said.get("model", {}).get("bento"),
            shadow_status=response.status_code,
            shadow_label=said.get("label"),
            shadow_known=said.get("known"),
            shadow_confidence=said.get("confidence"),
            shadow_ms=1000 * (time.perf_counter() - before),
        )

    def _away(self, why: str) -> bool:
        if not self._closing:
            _log.info("the challenger does not answer (%s); it is left alone for %g s", why, PAUSE)
        self._away_until = time.monotonic() + PAUSE
        return False
