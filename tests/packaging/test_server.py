"""Serving a Bento: its address, its environment and its answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bentos import MEGABYTE
from pydantic import SecretStr
from small_bundle import UNSEEN, picture

from ayeaye.core.errors import ReleaseError
from ayeaye.core.params import Serve
from ayeaye.packaging.bento import BentoStore, GoldenRequest, Recipe
from ayeaye.packaging.server import exec_server
from ayeaye.packaging.smoke_test import TOLERANCE

pytestmark = pytest.mark.slow


def classify(service: httpx.Client, content: bytes) -> httpx.Response:
    return service.post("/classify", files={"image": ("p", content)})


def test_an_unseen_class_is_answered_in_the_promised_form(service: httpx.Client, tag: str) -> None:
    response = classify(service, picture(UNSEEN, 3))
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"id", "label", "seen", "known", "confidence", "alternatives", "model"}
    assert answer["model"] == {"version": 3, "bento": tag}
    assert len(answer["alternatives"]) == 5
    assert set(answer["alternatives"][0]) == {"label", "seen", "score", "confidence"}
    assert answer["alternatives"][0]["label"] == answer["label"]
    assert 0 < answer["confidence"] <= 1


def test_the_model_says_where_it_comes_from(service: httpx.Client, tag: str, recipe: Recipe) -> None:
    about = service.get("/model").json()
    expected = {
        "version": 3,
        "bento": tag,
        "bundle_digest": recipe.bundle_digest,
        "data_digest": "d" * 64,
        "metrics": {"H": 0.5},
        "classes": {"seen": 5, "unseen": 1},
        "code": "bento",
    }
    assert {key: about[key] for key in expected} == expected


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs.json"])
def test_the_built_in_routes_answer(service: httpx.Client, path: str) -> None:
    assert service.get(path).status_code == 200


BROKEN = {
    "empty": b"",
    "text": b"this is not a picture",
    "truncated": picture("red")[:400],
    "address": b"http://127.0.0.1:9/picture.png",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_upload_is_a_400_that_says_why(service: httpx.Client, content: bytes) -> None:
    response = classify(service, content)
    assert response.status_code == 400
    assert response.json()["error"].startswith("the picture cannot be read: ")


def test_too_many_pixels_are_a_400_before_they_are_decoded(service: httpx.Client) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    response = classify(service, bomb)
    assert response.status_code == 400
    assert "too many pixels; at most 1,000,000 are allowed" in response.json()["error"]


@pytest.mark.parametrize("size", [MEGABYTE + 1, 3 * MEGABYTE, 60 * MEGABYTE])
def test_an_oversized_upload_is_a_413_that_says_how_much_is_allowed(service: httpx.Client, size: int) -> None:
    response = classify(service, b"\xff" * size)
    assert response.status_code == 413
    assert "at most 1,000,000 bytes" in response.json()["error"]


def test_an_oversized_upload_of_untold_length_is_a_413(service: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n'
        for _ in range(100):
            yield b"\xff" * 100_000
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    response = service.post("/classify", content=parts(), headers=kind)
    assert response.status_code == 413


def test_an_address_in_the_field_is_refused(service: httpx.Client) -> None:
    response = service.post("/classify", files={"image": (None, "http://127.0.0.1:9/picture.png")})
    assert response.status_code == 400
    assert "addresses are not fetched" in response.json()["error"]


REQUESTS: dict[str, tuple[int, dict[str, Any]]] = {
    "no body": (415, {}),
    "json": (415, {"json": {"image": "http://x"}}),
    "no boundary": (400, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    "another field": (422, {"files": {"picture": b"x"}}),
    "two pictures": (400, {"files": [("image", picture("red")), ("image", picture("blue"))]}),
    "many fields": (400, {"files": [(f"f{n}", b"x") for n in range(50)]}),
    "rubbish": (400, {"content": b"\0" * 50, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
}


@pytest.mark.parametrize(("status", "options"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_is_not_one_picture_is_refused(
    service: httpx.Client, status: int, options: dict[str, Any]
) -> None:
    response = service.post("/classify", **options)
    assert response.status_code == status
    assert response.json()["error"]


def test_many_requests_at_once_each_get_their_own_answer(
    service: httpx.Client, golden: list[GoldenRequest]
) -> None:
    """Broken ones among them fail alone, whatever batch they land in."""
    from concurrent.futures import ThreadPoolExecutor

    requests = [*golden, GoldenRequest("broken", picture("red")[:300], None)] * 12
    with ThreadPoolExecutor(24) as threads:
        responses = list(threads.map(lambda request: classify(service, request.content), requests))
    for request, response in zip(requests, responses, strict=True):
        if request.expected is None:
            assert response.status_code == 400
        else:
            answer = response.json()
            assert answer["label"] == request.expected["label"]
            assert answer["alternatives"][0]["score"] == pytest.approx(
                request.expected["alternatives"][0]["score"], abs=TOLERANCE
            )


def test_a_taken_port_raises_meaningful_error(service: httpx.Client, tag: str, home: Path) -> None:
    port = service.base_url.port
    assert port is not None
    with pytest.raises(ReleaseError, match=f"127.0.0.1:{port} cannot be listened on"):
        exec_server(BentoStore(home), tag, Serve(port=port))


def test_a_free_port_is_chosen_before_it_is_announced(
    tag: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, said = list[list[str]](), list[str]()
    monkeypatch.setattr(os, "execve", lambda program, command, environment: commands.append(command))
    monkeypatch.chdir(home)
    exec_server(BentoStore(home), tag, Serve(port=0), said.append)
    port = commands[0][commands[0].index("--port") + 1]
    assert int(port) > 0
    assert said == [f"Serving {tag} on http://127.0.0.1:{port} (POST /classify, field image)."]


def test_a_service_is_told_where_it_keeps_things_and_variables_go_first(
    tag: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = list[dict[str, str]]()
    monkeypatch.setattr(os, "execve", lambda program, command, environment: environments.append(environment))
    monkeypatch.chdir(home)
    database = "postgresql+psycopg://ayeaye:secret@localhost/ayeaye"
    settings = Serve(port=0, state=str(tmp_path), database=SecretStr(database), token_file="/run/token")
    exec_server(BentoStore(home), tag, settings)
    monkeypatch.setenv("AYEAYE_STATE", "/elsewhere")
    monkeypatch.setenv("AYEAYE_TOKEN", "secret")
    monkeypatch.setenv("AYEAYE_PREDICTIONS", "false")
    exec_server(BentoStore(home), tag, settings)
    first, second = environments
    assert (first["AYEAYE_STATE"], second["AYEAYE_STATE"]) == (str(tmp_path), "/elsewhere")
    assert first["AYEAYE_DATABASE"] == second["AYEAYE_DATABASE"] == database
    assert first["AYEAYE_TOKEN_FILE"] == "/run/token"
    assert ("AYEAYE_TOKEN" in first, second["AYEAYE_TOKEN"]) == (False, "secret")
    assert ("AYEAYE_PREDICTIONS" in first, second["AYEAYE_PREDICTIONS"]) == (False, "false")
