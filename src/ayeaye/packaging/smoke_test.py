"""Smoke tests of Bentos: real requests whose answers are known, before and when a Bento is to serve."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from ayeaye.core.errors import SmokeTestFailed
from ayeaye.core.processes import claimed_folder, remove_unclaimed, stop
from ayeaye.packaging.bento import BentoStore, GoldenRequest
from ayeaye.packaging.server import CLIENT_HEADER, BentoServer

Say = Callable[[str], None]
TOLERANCE = 1e-4  # of scores
TOLERANCE_IN_PLACE = 0.05  # where another engine may stand in for the one of the smoke test
_FOLDER = "ayeaye-smoke-test-"
_ANSWER_SECONDS = 60
_BROKEN = GoldenRequest("a broken file", b"\xff\xd8\xff\xe0 this is not an image", None)


@dataclass(frozen=True)
class SmokeTestResult:
    """A Bento that answered as it should. Latencies are of one request at a time, in milliseconds."""

    tag: str
    latency_ms: float
    latency_p95_ms: float
    ready_seconds: float
    requests: int
    refused: int
    largest_difference: float
    stand_in: str | None = None  # which engine ran instead of the one that was measured, and why


def smoke_test(
    store: BentoStore,
    tag: str,
    golden: Sequence[GoldenRequest],
    *,
    bundle_digest: str | None = None,
    repeats: int = 20,
    say: Say = lambda text: None,
) -> SmokeTestResult:
    """Start a Bento where the checkout cannot be imported, and compare its answers with the known ones.

    A broken file is always sent too. Raises SmokeTestFailed when the service does not start, is not the one that
    was asked for, runs code from outside the Bento, or answers otherwise than `golden` says.
    """
    started = time.monotonic()
    remove_unclaimed(_FOLDER)
    with claimed_folder(_FOLDER) as folder:
        (folder / "tmp").mkdir()
        # It keeps nothing where production does, and answers as often as it is asked.
        environment = {"TMPDIR": str(folder / "tmp"), "AYEAYE_STATE": str(folder / "state")}
        environment |= {"AYEAYE_DATABASE": "", "AYEAYE_RATE": ""}
        server = BentoServer.launch(store, tag, folder / "run", environment, echo=False)
        try:
            with _examined(server, say) as examination:
                ready = time.monotonic() - started
                say(f"{tag} is ready after {ready:.1f} s")
                stand_in = examination.identify(bundle_digest)
                requests = [*golden, _BROKEN]
                differences = [examination.compare_offline(request) for request in requests]
                latencies = sorted(examination.latencies(golden, repeats))
        finally:
            stop(server.process)
    return SmokeTestResult(
        tag=tag,
        latency_ms=latencies[len(latencies) // 2],
        latency_p95_ms=latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))],
        ready_seconds=ready,
        requests=len(requests),
        refused=sum(request.expected is None for request in requests),
        largest_difference=max(differences),
        stand_in=stand_in,
    )


def verify(store: BentoStore, server: BentoServer, bundle_digest: str | None) -> None:
    """Wait until a launched service is ready, is the one that was asked for, and answers golden requests.

    Its answers are not logged as predictions, and count towards no client's rate. Raises SmokeTestFailed.
    """
    with _examined(server) as examination:
        examination.identify(bundle_digest)
        for request in store.golden(server.tag):
            examination.compare_in_place(request)
        examination.compare_offline(_BROKEN)


@contextmanager
def _examined(server: BentoServer, say: Say = lambda text: None) -> Iterator[_Examination]:
    def as_another(request: httpx.Request) -> None:
        request.headers[CLIENT_HEADER] = f"ayeaye serve {secrets.token_hex(4)}"

    client = httpx.Client(
        base_url=server.url, timeout=_ANSWER_SECONDS, trust_env=False, event_hooks={"request": [as_another]}
    )
    with client:
        try:
            server.wait_until_ready(client, say)
            yield _Examination(server.tag, client)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SmokeTestFailed(
                f"{server.tag} does not answer ({error or type(error).__name__}){server.reason()}"
            ) from None


@dataclass(frozen=True)
class _Examination:
    """Requests to a service that is ready; each method raises SmokeTestFailed for a wrong answer."""

    tag: str
    client: httpx.Client

    def identify(self, bundle_digest: str | None) -> str | None:
        """Check that it is the service that was asked for; return the engine that stands in, and why."""
        about = self.client.get("/model").json()
        if about.get("code") != "bento":
            raise SmokeTestFailed(
                f"{self.tag} runs ayeaye from outside the Bento: mend `include` in bentofile.yaml"
            )
        if about.get("bento") != self.tag:
            raise SmokeTestFailed(
                f"asked for {self.tag}, but {about.get('bento')} answers: is the port taken?"
            )
        if bundle_digest and about.get("bundle_digest") != bundle_digest:
            raise SmokeTestFailed(
                f"{self.tag} serves bundle {about.get('bundle_digest')}, expected {bundle_digest}"
            )
        backbone = about.get("backbone") or {}
        if not backbone.get("fallback"):
            return None
        return f"{backbone['running']} runs instead of {backbone['engine']}: {backbone['fallback']}"

    def compare_offline(self, request: GoldenRequest) -> float:
        """Return the largest difference of a score from the offline one."""
        response = self.client.post("/classify", files={"image": ("golden", request.content)})
        if request.expected is not None:
            return self._compare(request.name, response, request.expected, TOLERANCE)
        if not 400 <= response.status_code < 500:
            raise SmokeTestFailed(
                f"{self.tag} answered {request.name} with {response.status_code}, expected a 4xx"
            )
        return 0.0

    def compare_in_place(self, request: GoldenRequest) -> None:
        """Compare an answer among the labels that the smoke test knew."""
        if request.expected is None:
            self.compare_offline(request)
            return
        alternatives = request.expected["alternatives"]
        labels = [each["label"] for each in alternatives] or [request.expected["label"]]
        response = self.client.post(
            "/classify_among",
            params={"top": len(labels)},
            data={"candidates": json.dumps(labels)},
            files={"image": ("golden", request.content)},
        )
        if not alternatives and response.status_code == 200:
            return
        try:
            self._compare(request.name, response, request.expected, TOLERANCE_IN_PLACE)
        except SmokeTestFailed:
            # A class that came at run time may take from the scores of those that were trained.
            if response.status_code != 200 or not self.client.get("/model").json()["run_time_classes"]:
                raise

    def latencies(self, golden: Sequence[GoldenRequest], repeats: int) -> Iterator[float]:
        """Yield the milliseconds of single requests, one after the other, to a service that is warm."""
        sound = [request for request in golden if request.expected is not None]
        if not sound:
            raise SmokeTestFailed("no golden request has an answer: give images with their offline answers")
        for turn in range(max(repeats, len(sound))):
            files = {"image": ("golden", sound[turn % len(sound)].content)}
            before = time.perf_counter()
            self.client.post("/classify", files=files).raise_for_status()
            yield (time.perf_counter() - before) * 1000

    def _compare(
        self, name: str, response: httpx.Response, expected: Mapping[str, Any], tolerance: float
    ) -> float:
        if response.status_code != 200:
            raise SmokeTestFailed(
                f"{self.tag} answered {name} with {response.status_code}: {response.text[:200]}"
            )
        answer = response.json()
        offline = {each["label"]: float(each["score"]) for each in expected["alternatives"]}
        served = {each["label"]: float(each["score"]) for each in answer["alternatives"]}
        if answer["label"] != expected["label"]:
            # Two classes closer than the tolerance may change places.
            ahead = offline[expected["label"]] - offline.get(answer["label"], -math.inf)
            if not ahead <= 2 * tolerance:
                raise SmokeTestFailed(
                    f"{self.tag} labels {name} {answer['label']}, offline it is {expected['label']}"
                )
        common = offline.keys() & served.keys()
        difference = max((abs(offline[label] - served[label]) for label in common), default=math.inf)
        if not difference <= tolerance:
            raise SmokeTestFailed(
                f"{self.tag}: scores of {name} differ by {difference:.2g} from the offline ones"
            )
        return difference
