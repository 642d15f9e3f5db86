"""What a fault says: the thing, its value, and what to do."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from services import TestClient
from small_bundle import picture

PNG = {"Content-Type": "image/png"}
PINK = {"name": "pink", "attributes": {"r": 1.0, "g": 0.5, "b": 0.6}}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/classes", "GET, HEAD, POST"),
        ("GET", "/classify", "POST"),
        ("HEAD", "/classify", "POST"),
        ("POST", "/card", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_a_405_names_every_method_of_its_address(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        said = f"{method} is not for this address: use {allowed.replace(', ', ' or ')}"
        assert response.json() == {"error": said}


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/classes", "/model", "/samples", "/openapi.json", "/card"]
)
def test_head_is_answered_as_get_without_the_body(client: TestClient, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.headers) == (whole.status_code, whole.headers)
    assert head.content == b"" != whole.content


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1e39, "purple3 has 1e+39 for r of attributes: give numbers between -3.4e+38 and 3.4e+38"),
        (-(10**400), "the body is not as it should be: attributes.r (Input should be a"),
        ("1", "the body is not as it should be: attributes.r (Input should be a valid number)"),
        (None, "the body is not as it should be: attributes.r (Input should be a valid number)"),
    ],
    ids=str,
)
def test_a_number_that_is_none_is_named(client: TestClient, number: Any, said: str) -> None:
    given = {"name": "purple3", "attributes": PINK["attributes"] | {"r": number}}  # type: ignore[operator]
    response = client.post("/classes", json=given)
    assert response.status_code == 422
    assert response.json()["error"].startswith(said)


def test_a_vector_of_texts_is_none(client: TestClient) -> None:
    response = client.post("/classes", json={"name": "pink", "vector": ["1", "0", "0"]})
    assert response.status_code == 422
    assert "vector.0 (Input should be a valid number)" in response.json()["error"]
    assert client.post("/classes", json={"name": "pink", "vector": [1, 0, 0.5]}).status_code == 201


def test_attributes_that_nothing_is_made_of_are_told(client: TestClient, words: TestClient) -> None:
    given = PINK | {"attributes": PINK["attributes"] | {"gray": 0.5, "attributes/b": 0.6}}  # type: ignore[operator]
    assert client.post("/classes", json=given).json()["unknown"] == {"gray": []}
    given = {"name": "lynx", "description": "a brown animal", "attributes": {"tail": 1.0}}
    assert words.post("/classes", json=given).json()["unknown"] == {"lynx": [], "tail": []}
    given = {"name": "north", "vector": [1, 0, 0], "attributes": {"gray": 1}}  # the vector stands for all
    assert client.post("/classes", json=given).json()["unknown"] == {}


def test_a_class_without_a_description_is_told_what_a_client_can_do(words: TestClient) -> None:
    response = words.post("/classes", json={"name": "q1"})
    assert response.status_code == 422
    assert response.json()["error"] == (
        "no description for q1: give one, as the other classes have, or a vector"
    )


def test_a_class_to_explain_that_there_is_not_is_told_with_near_ones(client: TestClient) -> None:
    def explained(**query: str) -> Any:
        return client.post("/explain", content=picture("red"), headers=PNG, params=query)

    response = explained(label="magneta")
    assert response.status_code == 422
    assert response.json() == {
        "error": "no class magneta: did you mean magenta?",
        "near": {"magneta": ["magenta"]},
    }
    assert explained(against="Rad").json()["near"] == {"Rad": ["red"]}
    for empty in ("", " "):
        assert explained(label=empty).json() == {"error": "label is empty: name a class, or leave it out"}
        assert explained(against=empty).json() == {"error": "against is empty: name a class, or leave it out"}


@pytest.mark.parametrize("path", ["/classes", "/feedback"])
def test_a_body_that_is_no_object_is_told_so(client: TestClient, path: str) -> None:
    response = client.post(path, json=[])
    assert response.status_code == 422
    assert response.json()["error"] == "the body is not as it should be: Input should be an object"


@pytest.mark.parametrize("path", ["/classes", "/classify"])
def test_a_compressed_body_is_told_that_it_is(client: TestClient, path: str) -> None:
    body, headers = gzip.compress(json.dumps(PINK).encode()), {"Content-Type": "application/json"}
    response = client.post(path, content=body, headers=headers | {"Content-Encoding": "gzip"})
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
    assert response.json()["error"].startswith(
        "the body comes as Content-Encoding: gzip, which is not taken here"
    )
    named = client.post("/classes", content=body, headers=headers)
    assert named.status_code == 400
    assert named.json()["error"] == "the body is not JSON: it is compressed with gzip: unpack it with gunzip"
    plain = client.post("/classes", json=PINK, headers={"Content-Encoding": "identity"})
    assert plain.status_code in (201, 409)


def test_a_byte_order_mark_before_json_does_not_matter(client: TestClient) -> None:
    mint = {"name": "mint", "attributes": {"r": 0.6, "g": 1.0, "b": 0.7}}
    body, headers = json.dumps(mint).encode("utf-8-sig"), {"Content-Type": "application/json"}
    assert client.post("/classes", content=body, headers=headers).status_code == 201
    body = json.dumps(mint).encode("utf-16")
    assert "it is UTF-16" in client.post("/classes", content=body, headers=headers).json()["error"]
