"""The OpenAPI description: whole, and true of what its examples show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import services
from pydantic import BaseModel
from services import ANIMALS, TestClient

from ayeaye.classifier import explanation
from ayeaye.core.params import Serve
from ayeaye.service import examples, openapi, schemas, uploads
from ayeaye.service.served import Served

OPERATIONS = {
    "post /classify",
    "post /classify_batch",
    "post /classify_among",
    "post /explain",
    "post /embed",
    "get /classes",
    "post /classes",
    "get /classes/{name}",
    "put /classes/{name}",
    "delete /classes/{name}",
    "get /changes",
    "post /feedback",
    "get /model",
    "get /card",
    "get /samples",
    "get /samples/{id}",
    "get /livez",
    "get /healthz",
    "get /readyz",
    "get /metrics",
}
CHANGES = {"post /classes", "put /classes/{name}", "delete /classes/{name}", "get /changes", "post /feedback"}


@pytest.fixture
def described(client: TestClient) -> dict[str, Any]:
    made: dict[str, Any] = client.get("/openapi.json").json()
    return made


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def test_every_route_is_described_with_its_answers_and_faults(described: dict[str, Any]) -> None:
    assert {name for name, _ in operations(described)} == OPERATIONS
    for name, operation in operations(described):
        assert operation["summary"], name
        responses = operation["responses"]
        assert {"200", "201"} & set(responses), name
        if "livez" in name or "healthz" in name or "readyz" in name or "metrics" in name:
            continue
        assert {"429", "500", "503", "504"} <= set(responses), name
        for status, response in responses.items():
            if {"image/jpeg", "text/html"} & set(response["content"]):
                continue
            (reference,) = (content["schema"]["$ref"] for content in response["content"].values())
            assert reference.endswith("/Fault") == (int(status) >= 400), (name, status)


def test_what_changes_the_service_needs_the_token(described: dict[str, Any]) -> None:
    assert {name for name, operation in operations(described) if operation.get("security")} == CHANGES
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)):
        assert name in described["components"]["schemas"]


def test_the_examples_are_what_they_are_examples_of(described: dict[str, Any]) -> None:
    found = 0
    for name, schema in described["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            model: type[BaseModel] = getattr(schemas, name)
            assert set(example) <= set(model.model_validate(example).model_dump())
            found += 1
    assert found >= 10


def test_the_description_says_what_the_service_is_and_how_to_be_let_in(described: dict[str, Any]) -> None:
    assert described["info"]["description"].startswith("Labels pictures with classes")
    for name, operation in operations(described):
        headers = operation["responses"].get("401", {}).get("headers", {})
        assert ("WWW-Authenticate" in headers) == (name in CHANGES)


def test_the_explanation_is_one_as_the_program_words_it() -> None:
    (example,) = example_of(schemas.Explanation)
    assert example["sentence"] == explanation.sentence(example)
    for part in example["parts"]:
        assert part["phrase"] == explanation.phrase(part)
    whole = sum(part["contribution"] for part in example["parts"])
    assert whole + example["hub_correction"] + example["seen_offset"] == pytest.approx(example["difference"])
    assert example["score"] - example["against_score"] == pytest.approx(example["difference"])


def test_every_answer_and_every_fault_has_an_example_of_its_own(described: dict[str, Any]) -> None:
    for name, operation in operations(described):
        for status, response in operation["responses"].items():
            (kind, content), *_ = response["content"].items()
            if kind != "application/json":
                continue
            if int(status) >= 400:
                assert set(content["example"]) <= {"error", "near"}
                assert content["example"] == examples.of(name, int(status))
            else:
                schema = content["schema"]["$ref"].removeprefix("#/components/schemas/")
                assert described["components"]["schemas"][schema]["examples"], name
    assert set(examples.OF) <= {name for name, _ in operations(described)}


def test_what_the_description_gives_as_examples_is_taken(words: TestClient) -> None:
    (new,), (said,) = example_of(schemas.Described), example_of(schemas.Correction)
    form = openapi.AMONG["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    candidates = [{"candidates": json.dumps(each)} for each in form["candidates"]["examples"]]
    picture = {"image": services.saved(services.row(1))}
    for _ in range(2):  # also once the class is there
        for each in candidates:
            assert words.post("/classify_among", files=picture, data=each).status_code == 200
            assert words.post("/explain", files=picture, data=each).status_code == 200
        words.post("/classes", json=new)
    assert new["name"] in {each["name"] for each in words.get("/classes").json()["classes"]}
    assert words.post("/feedback", json=said).status_code == 201
    form = {"data": said, "files": {"image": b"another picture"}}
    assert words.post("/feedback", **form).json()["error"].startswith("the picture is not the one of answer")


PICTURE = {"image": services.saved(services.row(1))}
EMPTY_FORM = {"Content-Type": "multipart/form-data; boundary=x"}
TEXT = {"content": b"x", "headers": {"Content-Type": "text/plain"}}
NO_JSON = {"content": b"", "headers": {"Content-Type": "application/json"}}
FOSSA = {"name": "fossa", "description": "a brown animal with a tail"}
QUUX = {"name": "quux", "description": "sprited animl"}
TWINS = {"candidates": json.dumps(["zebra", {"name": "mine", "description": ANIMALS["zebra"]}])}
PLACES = {"classes/": "{name}", "samples/": "{id}"}
FAULTS: list[tuple[str, int, dict[str, Any]]] = [
    *((f"post {path}", 415, TEXT) for path in ("/classify", "/embed", "/explain", "/feedback", "/classes")),
    *((f"post {path}", 415, TEXT) for path in ("/classify_batch", "/classify_among")),
    *((f"post {path}", 422, {"files": {"picture": b"x"}}) for path in ("/classify", "/embed")),
    ("post /classify_batch", 400, {"content": b"--x--\r\n", "headers": EMPTY_FORM}),
    ("post /classify_batch", 422, {"files": PICTURE}),
    ("post /classify_among", 400, {"files": PICTURE, "data": {"candidates": "red, blue"}}),
    ("post /classify_among", 409, {"files": PICTURE, "data": TWINS}),
    ("post /explain", 409, {"files": PICTURE, "data": TWINS}),
    ("post /classify_among", 422, {"files": PICTURE, "data": {"candidates": json.dumps([QUUX])}}),
    ("post /explain", 422, {"files": PICTURE, "params": {"label": "okpai"}}),
    ("post /classes", 400, NO_JSON),
    ("post /classes", 413, {"json": {"name": "x" * 1_000_001}}),
    ("post /classes", 422, {"json": QUUX}),
    ("get /classes/okpai", 404, {}),
    ("put /classes/fossa", 400, NO_JSON),
    ("put /classes/okapi", 409, {"json": FOSSA | {"name": "okapi"}}),
    ("put /classes/fossa", 413, {"json": {"name": "x" * 1_000_001}}),
    ("put /classes/hyena", 422, {"json": FOSSA}),
    ("put /classes/fossa", 415, TEXT),
    ("get /changes", 422, {"params": {"after": -1}}),
    ("delete /classes/fossa", 404, {}),
    ("delete /classes/okapi", 409, {}),
    ("delete /classes/a%00b", 422, {}),
    ("post /feedback", 400, NO_JSON),
    ("post /feedback", 422, {"json": {"answer": "7", "label": "okapi"}}),
    ("get /card", 404, {}),
    ("get /samples", 422, {"params": {"use": "both"}}),
    ("get /samples/0123456789abcdef", 404, {}),
]


@pytest.mark.parametrize(
    ("asked", "status", "options"), FAULTS, ids=[f"{asked} {status}" for asked, status, _ in FAULTS]
)
def test_faults_are_told_as_their_examples_say(
    words: TestClient, asked: str, status: int, options: dict[str, Any]
) -> None:
    method, path = asked.split()
    response = words.request(method, path, **options)
    assert response.status_code == status, response.text
    operation = re.sub(r"(classes/|samples/)\S+", lambda found: found[1] + PLACES[found[1]], asked)
    assert response.json() == examples.of(operation, status)


def test_the_faults_of_every_route_are_told_as_their_examples_say(
    animals: Path, client: TestClient, tmp_path: Path
) -> None:
    for path in ("/classify", "/embed", "/explain"):
        assert client.post(path, files={"image": b""}).json() == examples.of(f"post {path}", 400)
    served = Served(animals, tmp_path / "state", settings=Serve(rate="20/second"))
    with services.within(served) as (client, _):
        answers = [client.get("/model") for _ in range(30)]
    assert examples.ANY[429] in [each.json() for each in answers if each.status_code == 429]
    with services.within(Served(animals, tmp_path / "state", token="secret")) as (client, _):
        assert client.post("/classes", json=FOSSA).json() == examples.ANY[401]
    with services.within(Served(animals, tmp_path / "state"), client=("192.0.2.1", 5)) as (client, _):
        assert client.post("/classes", json=FOSSA).json() == examples.ANY[403]
        large = {"content": b"x" * 20_100_000, "headers": {"Content-Type": "image/png"}}
        assert client.post("/classify", **large).json() == examples.ANY[413]
    assert uploads.too_slow().detail == examples.ANY[408]["error"]
    with services.within(Served(animals, tmp_path / "state")) as (client, _):
        assert client.post("/classes", json=FOSSA).status_code == 201
        assert client.post("/classes", json=FOSSA).json() == examples.of("post /classes", 409)


def example_of(model: type[BaseModel]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model.model_json_schema()["examples"]
    return found
