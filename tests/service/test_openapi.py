"""The OpenAPI description: whole, and true of what its examples show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from services import TestClient

from ayeaye.service import schemas

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
