"""Requests that nobody meant: the description driven by Schemathesis, and pictures damaged in every way.

No answer is a 5xx, none has a status that is not described, and the memory they took is given back.
"""

from __future__ import annotations

import io
import time
from typing import Any

import hypothesis
import numpy as np
import pytest
import schemathesis
import services
from hypothesis import strategies as st
from PIL import Image
from schemathesis import checks
from small_bundle import COLOURS, picture

from ayeaye.service import app as http
from ayeaye.service import openapi
from ayeaye.service.memory import SECONDS

pytestmark = pytest.mark.slow

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = [
    (path, method.upper())
    for path, methods in http.create(lambda: pytest.fail("asked")).openapi()["paths"].items()
    if path not in openapi.BENTOML
    for method in methods
]
SOAK_SECONDS = 600

_pictures = st.one_of(
    st.builds(picture, st.sampled_from(sorted(COLOURS)), st.integers(0, 50)), st.binary(max_size=200)
)
schemathesis.openapi.media_type("image/*", _pictures, aliases=["application/octet-stream"])


@pytest.fixture(scope="module")
def described(server: services.Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda part: part)
def test_the_description_holds_whatever_is_sent(
    described: schemathesis.BaseSchema, path: str, method: str
) -> None:
    drive(described[path][method], seed=0, examples=50)


@pytest.mark.soak
def test_the_description_holds_for_ten_minutes(described: schemathesis.BaseSchema) -> None:
    until, rounds = time.monotonic() + SOAK_SECONDS, 0
    while time.monotonic() < until:
        rounds += 1
        for path, method in OPERATIONS:
            drive(described[path][method], seed=rounds, examples=200)


def drive(operation: Any, seed: int, examples: int) -> None:
    """Send what fits the description, and what does not."""
    both = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode))

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=both)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    send()


# Pictures


def encoded(kind: str, chance: np.random.Generator) -> bytes:
    file = io.BytesIO()
    pixels = chance.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def flipped(content: bytes, chance: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in chance.integers(0, len(changed), chance.integers(1, 12)):
        changed[place] ^= 1 << int(chance.integers(8))
    return bytes(changed)


def mutated(number: int) -> bytes:
    """One of five ways to damage a picture of one of the formats."""
    chance = np.random.default_rng(number)
    content = encoded(str(chance.choice(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])), chance)
    match number % 5:
        case 0:
            return flipped(content, chance)
        case 1:
            return content[: int(chance.integers(len(content)))]
        case 2:
            return content + chance.bytes(int(chance.integers(1, 5000)))
        case 3:
            # A bomb: within what is allowed, beyond it, and with less in it than it says.
            width, height = (int(2**power) for power in chance.uniform(0, 16, 2))
            there = min(height, int(chance.integers(1, 2000)))
            return services.png(width, height, bytes((width + 1) * there))
        case _:
            wrong = (b"", chance.bytes(500), b"<svg/>", b"%PDF-1.7", b"PK\x03\x04", b"GIF89a", content[::-1])
            return wrong[int(chance.integers(len(wrong)))]


def settled(server: services.Server) -> int:
    """What it holds after each worker had the time to give back what is free."""
    time.sleep(SECONDS)
    with server.of_every_worker() as clients:
        for client in clients:
            client.post("/classify", files={"image": picture("red")}).raise_for_status()
    return server.memory()


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_damaged_pictures_are_answered_or_refused_and_leave_no_memory(
    server: services.Server, count: int
) -> None:
    def send(client: Any, number: int) -> int:
        path = ("/classify", "/embed")[number % 2]
        return int(
            client.post(path, content=mutated(number), headers={"Content-Type": "image/png"}).status_code
        )

    with server.client() as client:
        # What the decoders need for good they take once.
        for number in range(100):
            send(client, number + 1_000_000)
        before = settled(server)
        statuses = {send(client, number) for number in range(count)}
        assert {200, 400} <= statuses <= {200, 400, 413, 422}
        more = settled(server) - before
        assert more < 60_000_000, f"{more / 1e6:.0f} MB more"
        assert client.post("/classify", files={"image": picture("red")}).json()["label"] == "red"
