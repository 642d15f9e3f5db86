"""Answers among candidates: a fixed request means the same whatever classes others add."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import services
from services import ANIMALS, TestClient
from small_bundle import COLOURS, picture

from ayeaye.classifier import hubs
from ayeaye.classifier.model import Classifier
from ayeaye.service import openapi, schemas
from ayeaye.service.served import Served

ROW = services.saved(services.row(1))
FOSSA = schemas.Described.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]
EXAMPLE = openapi.AMONG["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]["candidates"]


@pytest.fixture(scope="module")
def corrected(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The animals, with hubs corrected by a bank and a threshold: both depend on what classes there are."""
    folder = tmp_path_factory.mktemp("corrected") / "classifier"
    classifier = Classifier.load(animals)
    X, y = np.stack([services.row(number) for number in range(50, 70)]), np.arange(20) % 5
    correction = hubs.fit_on(
        "csls", {"k": 5}, hubs.Bank.of(classifier.mapper, X, y), classifier.space.vectors
    )
    replace(classifier, correction=correction, threshold=0.3).save(folder)
    return folder


@pytest.fixture
def asked(corrected: Path, tmp_path: Path) -> Iterator[TestClient]:
    with services.within(Served(corrected, tmp_path / "state")) as (client, _):
        yield client


def post(client: TestClient, candidates: Any, path: str = "/classify_among", **query: Any) -> Any:
    form = {"candidates": json.dumps(candidates)}
    return client.post(path, files={"image": ROW}, data=form, params=query)


def among(client: TestClient, candidates: Any, **query: Any) -> Any:
    response = post(client, candidates, **query)
    assert response.status_code == 200, response.text
    return response.json()


def content(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "id"}


def labels(answer: dict[str, Any]) -> set[str]:
    return {each["label"] for each in answer["alternatives"]}


@pytest.mark.parametrize(
    "candidates",
    [
        EXAMPLE["examples"][0],
        ["okapi", {"name": "Fossa", "description": "a brown animal with a tail"}],
        ["otter", {"name": "mine", "description": FOSSA["description"]}],
        ["heron", "fox"],
    ],
)
def test_what_others_add_changes_nothing(asked: TestClient, candidates: Any) -> None:
    before = among(asked, candidates)
    assert asked.post("/classes", json=FOSSA).status_code == 201
    assert asked.post("/classes", json={"name": "ibis", "description": "a grey bird"}).status_code == 201
    assert content(among(asked, candidates)) == content(before)


@pytest.mark.parametrize("given", ["OKAPI", " okapi", {"name": "Okapi"}, {"name": "okapi", "synonyms": []}])
def test_a_name_alone_is_the_class_however_it_is_written(words: TestClient, given: Any) -> None:
    assert words.post("/classes", json=FOSSA).status_code == 201
    assert labels(among(words, [given, "fox"])) == {"okapi", "fox"}
    assert labels(among(words, [given, {"name": "FOSSA"}])) == {"okapi", "fossa"}


def test_what_is_said_of_a_candidate_stands_where_a_class_has_its_name(words: TestClient) -> None:
    trained = among(words, ["okapi", "fox"])
    answer = among(words, [{"name": "Okapi", "description": "a grey bird of rivers"}, "fox"])
    assert labels(answer) == {"Okapi", "fox"}
    scores = [{each["label"].lower(): each["score"] for each in a["alternatives"]} for a in (trained, answer)]
    assert scores[0]["fox"] == pytest.approx(scores[1]["fox"], abs=1e-6)
    assert scores[0]["okapi"] != pytest.approx(scores[1]["okapi"], abs=1e-3)


def test_one_may_be_like_a_class_that_is_no_candidate(words: TestClient) -> None:
    twin = {"name": "my animal", "description": ANIMALS["zebra"]}
    assert labels(among(words, ["okapi", twin])) == {"okapi", "my animal"}
    assert words.post("/classes", json=FOSSA).status_code == 201
    assert labels(among(words, ["okapi", FOSSA | {"name": "cat"}])) == {"okapi", "cat"}


@pytest.mark.parametrize(
    "candidates",
    [
        ["zebra", {"name": "mine", "description": ANIMALS["zebra"]}],
        [{"name": "zebra"}, {"name": "mine", "description": ANIMALS["zebra"]}],
        [{"name": "mine", "description": "a bird"}, "okapi", {"name": "zebra", "description": "a bird"}],
    ],
)
def test_two_candidates_that_are_not_told_apart_are_named(words: TestClient, candidates: Any) -> None:
    response = post(words, candidates)
    assert response.status_code == 409
    assert "mine" in response.json()["error"] and "zebra" in response.json()["error"]


def test_what_nothing_was_made_of_is_told(words: TestClient) -> None:
    assert among(words, ["okapi", "a striped animal"])["left_out"] == []
    described = {"name": "bird", "description": "a grey frobnicating bird", "attributes": {"beak": 1}}
    assert among(words, ["okapi", described])["left_out"] == ["frobnicating", "beak"]


def test_an_answer_among_candidates_is_explained_among_them(asked: TestClient) -> None:
    assert asked.post("/classes", json=FOSSA).status_code == 201
    candidates = ["fox", {"name": "okapi", "description": "a grey bird of rivers"}, {"name": "FOSSA"}]
    answer = among(asked, candidates)
    explained = post(asked, candidates, "/explain").json()
    best, second = answer["alternatives"][:2]
    assert (explained["label"], explained["against"]) == (best["label"], second["label"])
    assert explained["score"] == pytest.approx(best["score"], abs=1e-5)
    assert explained["against_score"] == pytest.approx(second["score"], abs=1e-5)
    named = post(asked, candidates, "/explain", label="OKAPI", against="fossa").json()
    assert (named["label"], named["against"], named["seen"]) == ("okapi", "fossa", False)
    strange = post(asked, candidates, "/explain", label="zebra")
    assert (strange.status_code, set(strange.json())) == (422, {"error", "near"})
    assert post(asked, [], "/explain").status_code == 422


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (1, "candidate 2 is no candidate: give the name of a class"),
        ({"name": "pink", "colour": 1}, "candidate 2 is not as it should be: colour (Extra inputs"),
        ({}, "candidate 2 is not as it should be: name (Field required)"),
        ("", "candidate 2 is not as it should be: String should have at least 1 character"),
        (
            {"name": "pink", "vector": ["1", 0, 0]},
            "candidate 2 is not as it should be: vector.0 (Input should be",
        ),
        (
            {"name": "pink", "vector": [True, 0, 0]},
            "candidate 2 is not as it should be: vector.0 (Input should be",
        ),
        (
            {"name": "pink", "attributes": {"r": "1"}},
            "candidate 2 is not as it should be: attributes.r (Input",
        ),
    ],
)
def test_a_candidate_that_cannot_be_is_named_by_its_place(client: TestClient, given: Any, said: str) -> None:
    form = {"candidates": json.dumps(["red", given])}
    response = client.post("/classify_among", files={"image": picture("red")}, data=form)
    assert response.status_code == 422
    assert response.json()["error"].startswith(said)


def test_candidates_have_the_confidence_they_have_beside_the_trained_classes(client: TestClient) -> None:
    def asked(path: str, **options: Any) -> dict[str, float]:
        answer = client.post(path, files={"image": picture("red")}, **options).json()
        assert answer["confidence"] == answer["alternatives"][0]["confidence"]
        return {each["label"]: each["confidence"] for each in answer["alternatives"]}

    whole = asked("/classify?top=6")
    assert sum(whole.values()) == pytest.approx(1, abs=1e-4)
    some = asked("/classify_among", data={"candidates": '["green", "blue"]'})
    assert some == pytest.approx({name: whole[name] for name in ("green", "blue")}, abs=1e-5)
    assert set(whole) == set(COLOURS)
