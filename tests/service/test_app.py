"""The routes: what each answers, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import services
from services import TestClient
from small_bundle import COLOURS, picture

from ayeaye.backbones import engines
from ayeaye.backbones.engines import Engine
from ayeaye.classifier.model import Classifier
from ayeaye.core.params import Serve
from ayeaye.service.database import locate
from ayeaye.service.inference import name_answer
from ayeaye.service.labeller import Labeller
from ayeaye.service.served import Served
from ayeaye.service.store import RuntimeClass

PNG = {"Content-Type": "image/png"}
PINK = {"name": "pink", "attributes": {"r": 1.0, "g": 0.5, "b": 0.6}}
ROSE = {"name": "rose", "attributes": {"r": 1.0, "g": 0.1, "b": 0.5}}
RED = dict(zip("rgb", (value / 255 for value in COLOURS["red"]), strict=True))


def classify(client: TestClient, content: bytes, **query: Any) -> Any:
    response = client.post("/classify", content=content, headers=PNG, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def among(client: TestClient, candidates: Any, **query: Any) -> Any:
    form = {"candidates": json.dumps(candidates)}
    return client.post("/classify_among", files={"image": picture("red")}, data=form, params=query)


@pytest.mark.parametrize("kind", ["form", "image/png", "image/*", "application/octet-stream"])
@pytest.mark.parametrize("path", ["/classify", "/embed", "/explain"])
def test_a_picture_comes_as_a_form_or_as_it_is(client: TestClient, path: str, kind: str) -> None:
    if kind == "form":
        response = client.post(path, files={"image": picture("red")})
    else:
        response = client.post(path, content=picture("red"), headers={"Content-Type": kind})
    assert response.status_code == 200
    assert response.json()["model"] == {"version": 3, "bento": None}


def test_an_answer_has_an_id_of_its_own_and_as_many_alternatives_as_asked_for(client: TestClient) -> None:
    first, second = classify(client, picture("red"), top=6), classify(client, picture("red"), top=1)
    assert first["id"] != second["id"]
    assert {each["label"] for each in first["alternatives"]} == set(COLOURS)
    assert [each["label"] for each in second["alternatives"]] == [first["label"]]
    assert len(classify(client, picture("red"))["alternatives"]) == 5


@pytest.mark.parametrize("top", ["0", "7", "-1", "many", "1e3"])
def test_more_or_fewer_alternatives_than_there_are_is_a_422(client: TestClient, top: str) -> None:
    response = client.post("/classify", content=picture("red"), headers=PNG, params={"top": top})
    assert response.status_code == 422
    assert "top" in response.json()["error"]


@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/classify_among"])
def test_too_many_alternatives_are_refused_before_anything_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(Labeller, "_prepared", lambda *_: pytest.fail("decoded"))
    name = "images" if path == "/classify_batch" else "image"
    sent = {"data": {"candidates": '["red", "blue"]'}, "files": {name: picture("red")}}
    response = client.post(path, params={"top": 9999}, **sent)
    assert response.status_code == 422
    assert "top is 9999" in response.json()["error"]


def test_a_run_time_class_is_one_of_the_alternatives(client: TestClient) -> None:
    assert client.post("/classes", json=PINK).status_code == 201
    response = client.post("/classify_batch", params={"top": 7}, files={"images": picture("red")})
    assert len(response.json()["answers"][0]["alternatives"]) == 7
    assert client.post("/classify_batch?top=8", files={"images": picture("red")}).status_code == 422


def test_a_fault_nobody_thought_of_is_that_of_one_picture(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare, broken = Labeller._prepared, picture("green")

    def prepared(labeller: Labeller, content: bytes) -> Any:
        if content == broken:
            raise ZeroDivisionError("secret")
        return prepare(labeller, content)

    monkeypatch.setattr(Labeller, "_prepared", prepared)
    sent = [("images", each) for each in (picture("red"), broken, picture("blue"))]
    red, fault, blue = client.post("/classify_batch", files=sent).json()["answers"]
    assert (red["label"], blue["label"]) == ("red", "blue")
    assert fault == {"error": "a fault of the service: see its log", "status": 500}
    assert "Traceback" in caplog.text


def test_one_picture_of_a_batch_fails_alone(client: TestClient) -> None:
    sent = [picture("red"), b"not a picture", picture("blue"), b""]
    response = client.post("/classify_batch", files=[("images", each) for each in sent])
    red, broken, blue, empty = response.json()["answers"]
    assert (red["label"], blue["label"]) == ("red", "blue")
    assert broken == {
        "error": "the picture cannot be read: not a picture of a known format (JPEG, PNG, WEBP, BMP, GIF, TIFF)",
        "status": 400,
    }
    assert empty["status"] == 400


def test_a_batch_has_bounds_of_its_own(colours: Path, tmp_path: Path) -> None:
    settings = Serve(max_batch=3, max_batch_bytes=200_000, max_bytes=100_000)
    with services.within(Served(colours, tmp_path, settings=settings)) as (client, _):

        def sent(*pictures: bytes) -> Any:
            return client.post("/classify_batch", files=[("images", each) for each in pictures])

        assert sent(*[picture("red")] * 3).status_code == 200
        assert sent(*[picture("red")] * 4).status_code == 400
        assert client.post("/classify_batch", files={"image": picture("red")}).status_code == 422
        large = sent(picture("red"), b"x" * 100_001).json()["answers"]
        assert (large[0]["label"], large[1]["status"]) == ("red", 413)
        assert sent(b"x" * 300_000).status_code == 413


def test_two_pictures_where_one_is_meant_are_a_400(client: TestClient) -> None:
    response = client.post("/classify", files=[("image", picture("red"))] * 2)
    assert response.status_code == 400
    assert response.json()["error"]


def test_candidates_are_known_classes_or_described_ones(client: TestClient) -> None:
    answer = among(client, ["Blue", PINK]).json()
    assert answer["label"] == "pink"
    assert {each["label"] for each in answer["alternatives"]} == {"blue", "pink"}
    assert len(client.get("/classes").json()["classes"]) == len(COLOURS)  # it is not one for others


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "zlib_codec", "no-such", "utf-16"])
@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/classify_among", "/feedback"])
def test_no_charset_of_a_form_is_a_fault_of_the_service(client: TestClient, path: str, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="\xff"\r\n\r\nx\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    response = client.post(path, content=body, headers={"Content-Type": kind})
    assert response.status_code in (400, 422)
    assert response.json()["error"]


def test_free_texts_are_candidates_where_words_make_the_classes(words: TestClient) -> None:
    row = services.saved(services.row(1))
    form = {"candidates": json.dumps(["otter", "a striped bird"])}
    response = words.post("/classify_among", files={"image": row}, data=form)
    assert {each["label"] for each in response.json()["alternatives"]} == {"otter", "a striped bird"}
    form = {"candidates": json.dumps(["otter", "quux frobnicate"])}
    response = words.post("/classify_among", files={"image": row}, data=form)
    assert response.status_code == 422
    assert "frobnicate" in response.json()["near"]


@pytest.mark.parametrize(
    ("status", "candidates"),
    [
        (422, []),
        (422, ["red"] * 2),
        (422, ["red", "Red "]),
        (422, {"red": 1}),
        (422, [1]),
        (422, ["red", "unheard of"]),
        (422, [{"name": "pink", "colour": "pink"}]),
        (409, [PINK, PINK | {"name": "rose"}]),
        (409, ["red", {"name": "crimson", "attributes": RED}]),
        (422, ["red"] + [f"x{n}" for n in range(100)]),
    ],
)
def test_candidates_that_cannot_be_are_refused(client: TestClient, status: int, candidates: Any) -> None:
    response = among(client, candidates)
    assert response.status_code == status
    assert response.json()["error"]


def test_candidates_that_are_no_json_are_a_400(client: TestClient) -> None:
    response = client.post(
        "/classify_among", files={"image": picture("red")}, data={"candidates": "red, blue"}
    )
    assert response.status_code == 400
    assert response.json()["error"].startswith("candidates is not JSON")


def test_an_embedding_is_that_of_the_classifier(client: TestClient, colours: Path) -> None:
    classifier = Classifier.load(colours)
    (expected,) = classifier.read([picture("cyan")])
    response = client.post("/embed", content=picture("cyan"), headers=PNG).json()
    np.testing.assert_allclose(response["embedding"], expected, atol=1e-5)
    assert isinstance(expected, np.ndarray)
    projected = classifier.mapper.map_images(expected[None])[0]
    np.testing.assert_allclose(response["projection"], projected, atol=1e-4)


def test_an_explanation_is_of_the_classes_that_were_named(client: TestClient, colours: Path) -> None:
    assert client.post("/classes", json=PINK).status_code == 201

    def explained(**query: str) -> Any:
        return client.post("/explain", content=picture("red"), headers=PNG, params=query)

    best = explained().json()
    assert (best["label"], best["against"]) == ("red", "pink")
    other = explained(label="Pink", against="BLUE").json()
    assert (other["label"], other["against"]) == ("pink", "blue")
    whole = sum(part["contribution"] for part in other["parts"])
    assert whole + other["hub_correction"] + other["seen_offset"] == pytest.approx(
        other["difference"], abs=1e-4
    )
    for query in ({"label": "rad"}, {"against": "rad"}, {"label": "red", "against": "red"}):
        assert explained(**query).status_code == 422
    assert "did you mean red" in explained(label="rad").json()["error"]


def test_features_are_answered_as_the_classifier_does(words: TestClient, animals: Path) -> None:
    classifier = Classifier.load(animals)
    for number in range(20):
        expected = classifier.answers(classifier.scores(services.row(number)[None]))[0]
        answer = classify(words, services.saved(services.row(number)))
        assert answer["label"] == expected["label"]
        for mine, theirs in zip(answer["alternatives"], expected["alternatives"], strict=True):
            assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)


BROKEN_ROWS = {
    "short": services.saved(services.row(0)[:-1]),
    "two rows": services.saved(np.ones((2, 3), np.float32)),
    "not finite": services.saved(services.row(0) * np.inf),
    "too large for float32": services.saved(np.full(services.FEATURES, 1e300)),
    "text": services.saved(np.array(["x"])),
    "objects": b"\x93NUMPY\x01\x00\x16\x00{'descr': '|O', 'fort",
    "header alone": services.saved(services.row(0))[:40],
    "a picture": picture("red"),
}


@pytest.mark.parametrize("content", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_what_is_no_row_of_features_is_a_400(words: TestClient, content: bytes) -> None:
    response = words.post("/classify", content=content, headers={"Content-Type": "application/octet-stream"})
    assert response.status_code == 400
    assert response.json()["error"].startswith("the picture cannot be read: ")


# Run-time classes


def test_a_described_class_is_one_at_once_and_goes_again(client: TestClient) -> None:
    response = client.post("/classes", json=PINK)
    assert (response.status_code, response.json()) == (201, {"name": "pink", "revision": 1, "unknown": {}})
    assert "pink" in {each["label"] for each in classify(client, picture("red"), top=7)["alternatives"]}
    listed = client.get("/classes").json()
    assert listed["classes"][-1]["origin"] == "run-time"
    assert listed["classes"][-1]["created"]
    assert client.get("/model").json()["run_time_classes"] == 1
    assert client.delete("/classes/pink").json() == {"name": "pink", "revision": 2}
    assert "pink" not in {each["label"] for each in classify(client, picture("red"))["alternatives"]}
    assert client.delete("/classes/pink").status_code == 404


def test_a_name_with_a_slash_can_be_removed(client: TestClient) -> None:
    assert client.post("/classes", json=PINK | {"name": "pink/rose 50%"}).status_code == 201
    assert client.delete("/classes/pink%2Frose%2050%25").status_code == 200


@pytest.mark.parametrize("name", ["red", "RED", " red "])
def test_a_trained_class_is_neither_replaced_nor_removed(client: TestClient, name: str) -> None:
    assert client.post("/classes", json=PINK | {"name": name}).status_code == 409
    response = client.delete(f"/classes/{name}")
    assert response.status_code == 409
    assert "only run-time classes can be removed" in response.json()["error"]


def test_a_class_that_is_like_another_is_a_409(client: TestClient) -> None:
    assert client.post("/classes", json=PINK).status_code == 201
    for other in (PINK, PINK | {"name": "Pink"}, PINK | {"name": "rose"}):
        assert client.post("/classes", json=other).status_code == 409
    assert client.get("/classes").json()["revision"] == 1


def test_words_nobody_knows_are_named_with_near_ones(words: TestClient) -> None:
    response = words.post("/classes", json={"name": "quux", "description": "sprited animl"})
    assert response.status_code == 422
    assert response.json()["near"]["sprited"] == ["striped"]
    assert "sprited (near: striped)" in response.json()["error"]
    response = words.post("/classes", json={"name": "quux", "description": "a striped brown bird"})
    assert response.status_code == 201
    assert "quux" in response.json()["unknown"]


def test_a_class_is_said_anew_in_one_step(client: TestClient) -> None:
    assert client.put("/classes/pink", json=PINK).status_code == 201
    response = client.put("/classes/PINK", json=ROSE | {"name": " Pink"})
    assert (response.status_code, response.json()) == (200, {"name": "Pink", "revision": 2, "unknown": {}})
    assert client.get("/classes/pink").json()["attributes"] == ROSE["attributes"]
    assert len(classify(client, picture("red"), top=7)["alternatives"]) == len(COLOURS) + 1
    assert client.post("/classes", json=PINK | {"name": "rose"}).status_code == 201
    refused = {
        "like another": client.put("/classes/pink", json=PINK),
        "trained": client.put("/classes/Red", json=PINK | {"name": "red"}),
        "another name": client.put("/classes/pink", json=ROSE),
        "too little": client.put("/classes/pink", json={"name": "pink"}),
        "too large": client.put("/classes/pink", content=b"x" * 2_000_000),
    }
    assert [each.status_code for each in refused.values()] == [409, 409, 422, 422, 413]
    assert "the address is of pink, the class is rose" in refused["another name"].json()["error"]
    assert client.get("/classes").json()["revision"] == 3


def test_a_class_tells_what_it_was_made_of(words: TestClient) -> None:
    described = {"name": "wolf", "description": "a grey animal\nthat hunts", "synonyms": ["lobo"]}
    assert words.post("/classes", json=described).status_code == 201
    wolf = words.get("/classes/WOLF").json()
    assert wolf.pop("created")
    expected = {"seen": False, "origin": "run-time", "attributes": None, "vector": False, "refused": None}
    assert wolf == described | expected
    okapi = words.get("/classes/okapi").json()
    assert (okapi["origin"], okapi["seen"], okapi["description"]) == (
        "trained",
        True,
        services.ANIMALS["okapi"],
    )
    missing = words.get("/classes/woolf")
    assert (missing.status_code, missing.json()["near"]) == (404, {"woolf": ["wolf"]})
    assert missing.json()["error"].startswith("there is no class woolf (near: wolf): GET /classes")


def test_a_class_tells_its_numbers_but_not_those_of_a_vector(client: TestClient) -> None:
    red = client.get("/classes/red").json()
    assert (set(red["attributes"]), red["description"], red["created"]) == ({"r", "g", "b"}, "", None)
    client.post("/classes", json={"name": "far", "vector": [1.0, 0.0, 0.0]}).raise_for_status()
    far = client.get("/classes/far").json()
    assert (far["vector"], far["attributes"]) == (True, None)


def test_a_class_that_the_model_cannot_take_tells_why(
    words: TestClient, animals: Path, tmp_path: Path
) -> None:
    with services.within(Served(animals, tmp_path)) as (client, inference):
        inference.store.add(RuntimeClass("pink", attributes={"r": 1.0}))
        pink = client.get("/classes/pink").json()
        assert pink["refused"] and pink["attributes"] == {"r": 1.0}
        said = {"name": "pink", "description": "a grey animal that swims"}
        assert client.put("/classes/pink", json=said).status_code == 200
        assert client.get("/classes/pink").json()["refused"] is None


@pytest.mark.parametrize("synonym", ["Okapi", " zebra", "lobo"])
def test_a_synonym_is_not_the_name_of_another_class(words: TestClient, synonym: str) -> None:
    said = {"name": "wolf", "description": "a grey animal that hunts"}
    assert words.post("/classes", json={"name": "lobo", "description": "a grey bird"}).status_code == 201
    for response in (
        words.post("/classes", json=said | {"synonyms": ["grey wolf", synonym]}),
        words.put("/classes/wolf", json=said | {"synonyms": [synonym]}),
    ):
        assert response.status_code == 409
        assert f"{synonym.strip()}, a synonym of wolf, is the name of a class" in response.json()["error"]
    assert words.post("/classes", json=said | {"synonyms": ["Wolf", "grey wolf"]}).status_code == 201


def test_every_change_is_told_with_its_caller_a_page_at_a_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/classes", json=PINK)
    client.put("/classes/pink", json=ROSE | {"name": "pink"})
    client.delete("/classes/pink")
    found = client.get("/changes").json()
    told = [(each["revision"], each["action"], each["name"], each["caller"]) for each in found["changes"]]
    assert told == [
        (n, action, "pink", "127.0.0.1") for n, action in enumerate(("add", "replace", "remove"), 1)
    ]
    assert found["changes"][1]["attributes"] == ROSE["attributes"] and not found["more"]
    monkeypatch.setattr("ayeaye.service.inference.CHANGES", 2)
    page = client.get("/changes").json()
    assert ([each["revision"] for each in page["changes"]], page["more"]) == ([1, 2], True)
    page = client.get("/changes?after=2").json()
    assert ([each["revision"] for each in page["changes"]], page["more"]) == ([3], False)
    for after in ("-1", "x", 2**31):
        assert client.get("/changes", params={"after": after}).status_code == 422


BODIES: dict[str, tuple[int, Any]] = {
    "no JSON": (400, b"{"),
    "nothing": (400, b""),
    "a number": (422, b"1"),
    "no name": (422, {}),
    "an empty name": (422, {"name": " "}),
    "another key": (422, PINK | {"colour": "pink"}),
    "NaN": (422, b'{"name": "pink", "attributes": {"r": NaN, "g": 1, "b": 1}}'),
    "infinite": (422, b'{"name": "pink", "attributes": {"r": 1e999, "g": 1, "b": 1}}'),
    "an attribute too few": (422, {"name": "pink", "attributes": {"r": 1}}),
    "half a character": (400, b'{"name": "\\ud800"}'),
    "no character": (422, PINK | {"name": "a\0b"}),
    "not UTF-8": (400, b'{"name": "\xff"}'),
    "a short vector": (422, {"name": "pink", "vector": [1.0]}),
    "a vector of zeros": (422, {"name": "pink", "vector": [0.0, 0.0, 0.0]}),
    "a vector beyond float32": (422, {"name": "pink", "attributes": {"r": 1e300, "g": 1, "b": 1}}),
    "very deep": (400, b"[" * 100_000),
    "very long": (413, b'{"name": "' + b"x" * 2_000_000 + b'"}'),
}


@pytest.mark.parametrize(("status", "body"), BODIES.values(), ids=BODIES)
def test_a_class_that_cannot_be_is_refused(client: TestClient, status: int, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/classes", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert response.json()["error"]
    assert client.get("/classes").json()["revision"] == 0


def test_other_types_than_json_are_a_415(client: TestClient) -> None:
    # A page of another site may send these without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"Content-Type": kind}
        assert client.post("/classes", content=json.dumps(PINK), headers=headers).status_code == 415
        assert client.post("/feedback", content=b"{}", headers=headers).status_code == 415


def test_json_is_bounded_where_pictures_may_be_larger(client: TestClient) -> None:
    said = {"answer": "x" * 1_000_000, "label": "red"}
    assert client.post("/feedback", json=said).status_code == 413


@pytest.mark.parametrize("name", ["pi\nnk", "pink\x1b[2J", "\N{RIGHT-TO-LEFT OVERRIDE}knip"])
def test_a_name_or_label_that_does_not_show_what_it_is_is_a_422(client: TestClient, name: str) -> None:
    response = client.post("/classes", json=PINK | {"name": name})
    assert response.status_code == 422
    assert response.json()["error"].startswith("the name of the class holds the character U+")
    said = {"answer": classify(client, picture("red"))["id"], "label": name}
    for response in (
        client.post("/feedback", json=said),
        client.post("/feedback", files={field: (None, text) for field, text in said.items()}),
    ):
        assert response.status_code == 422
        assert response.json()["error"].startswith("the label holds the character U+")


@pytest.mark.parametrize("name", ["unheard of", "a%0Ab", "a/b", ""])
def test_a_class_that_there_is_not_is_a_404_that_says_so(client: TestClient, name: str) -> None:
    response = client.delete(f"/classes/{name}")
    assert response.status_code == 404
    assert response.json()["error"].startswith(("there is no class ", "there is no run-time class "))


# Feedback and the log


def test_feedback_is_kept_with_the_picture_of_its_answer_alone(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path, version=3)) as (client, inference):
        answer = classify(client, picture("red"))
        said = {"answer": answer["id"], "label": "crimson"}
        for status in (201, 200):
            response = client.post("/feedback", json=said)
            assert response.status_code == status
            assert response.json() == {"feedback": 1, "status": "pending", "picture": False, "near": []}
        (first,) = inference.store.pending()
        form = {"data": said, "files": {"image": picture("red")}}
        response = client.post("/feedback", **form)
        assert (response.status_code, response.json()["picture"]) == (201, True)
        other = client.post("/feedback", data=said, files={"image": picture("blue")})
        assert other.status_code == 422
        (second,) = inference.store.pending()
    assert (first.label, first.model_version, first.caller) == ("crimson", 3, "127.0.0.1")
    assert first.picture_id == second.picture_id
    assert (first.has_picture, second.has_picture) == (False, True)


def test_feedback_tells_which_classes_are_spelled_like_its_label(client: TestClient) -> None:
    id = classify(client, picture("red"))["id"]

    def near(label: str) -> Any:
        return client.post("/feedback", json={"answer": id, "label": label}).json().get("near")

    assert (near("gren"), near("Green "), near("quagga")) == (["green"], None, [])
    client.post("/classes", json=PINK)
    assert (near("pinkk"), near("pink")) == (["pink"], None)


NO_PICTURES: dict[str, tuple[int, bytes]] = {
    "empty": (422, b""),
    "no picture": (400, b"<script>"),
    "damaged": (400, picture("red")[:-30]),
    "too large": (400, services.png(40_000, 40_000)),
}


@pytest.mark.parametrize(("status", "content"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_not_kept_with_feedback(
    colours: Path, tmp_path: Path, status: int, content: bytes
) -> None:
    said = {"answer": name_answer(3, hashlib.sha256(content).hexdigest()), "label": "red"}
    with services.within(Served(colours, tmp_path)) as (client, inference):
        response = client.post("/feedback", data=said, files={"image": ("red.png", content)})
        assert response.status_code == status
        assert "picture" in response.json()["error"]
        texts = {field: (None, text) for field, text in {**said, "image": ""}.items()}
        assert client.post("/feedback", files=texts).status_code == 400
        assert inference.store.pending() == []


@pytest.mark.parametrize(
    "said",
    [
        {"answer": "7", "label": "red"},
        {"answer": "", "label": ""},
        {"answer": name_answer(3, "0" * 64), "label": " "},
        {"answer": f"٣-{'0' * 64}-{'0' * 12}", "label": "red"},
        {},
        [],
    ],
)
def test_feedback_about_no_answer_is_a_422(client: TestClient, said: Any) -> None:
    assert client.post("/feedback", json=said).status_code == 422


def test_every_labelled_picture_is_a_row_of_the_log(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path, version=3)) as (client, _):
        one = classify(client, picture("red"), top=1)
        sent = [("images", each) for each in (picture("blue"), b"broken", picture("cyan"))]
        many = client.post("/classify_batch", files=sent).json()["answers"]
        among(client, ["red", "blue"])
        for path in ("/explain", "/embed"):
            assert client.post(path, files={"image": picture("red")}).json()["id"]
    rows = services.logged(locate(tmp_path))
    rows[1:] = sorted(rows[1:], key=lambda row: row["label"])  # of a batch, what is ready first comes first
    assert [row["answer"] for row in rows] == [one["id"], many[0]["id"], many[2]["id"]]
    assert [row["label"] for row in rows] == ["red", "blue", "cyan"]
    assert rows[0]["margin"] > 0
    assert rows[0]["picture_id"] in one["id"]
    assert not (set(rows[0]) & {"picture", "image"})


def test_the_log_can_be_left_out(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path, settings=Serve(predictions=False))) as (client, _):
        classify(client, picture("red"))
    assert services.logged(locate(tmp_path)) == []


def test_without_its_database_the_service_labels_and_says_what_it_cannot(
    colours: Path, tmp_path: Path
) -> None:
    with services.within(Served(colours, tmp_path, version=3)) as (client, inference):
        client.post("/classes", json=PINK)
        answer = classify(client, picture("red"), top=7)
        for path in tmp_path.glob("service.db*"):
            path.unlink()
        (tmp_path / "service.db").mkdir()
        inference.store.close()
        assert classify(client, picture("red"), top=7)["alternatives"] == answer["alternatives"]
        said = {"answer": answer["id"], "label": "red"}
        refused = [
            client.get("/classes"),
            client.post("/classes", json=PINK | {"name": "rose"}),
            client.delete("/classes/pink"),
            client.post("/feedback", json=said),
        ]
    for response in refused:
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert str(tmp_path) not in response.text


def test_a_database_that_comes_back_is_used_again(colours: Path, tmp_path: Path) -> None:
    with services.within(Served(colours, tmp_path / "state")) as (client, _):
        client.post("/classes", json=PINK)
        (tmp_path / "state").rename(tmp_path / "away")
        assert client.post("/classes", json=ROSE).status_code == 503
        assert len(classify(client, picture("red"), top=7)["alternatives"]) == 7
        (tmp_path / "away").rename(tmp_path / "state")
        assert client.post("/classes", json=ROSE).status_code == 201
        assert len(classify(client, picture("red"), top=8)["alternatives"]) == 8
    with services.within(Served(colours, tmp_path / "state")) as (client, _):
        assert client.get("/model").json()["run_time_classes"] == 2


# The model, and what is not there


def test_the_model_tells_its_thresholds_and_the_licence_of_its_weights(colours: Path, tmp_path: Path) -> None:
    settings = Serve(weights_licence="CC BY 4.0")
    metrics = {"H": 0.5, "T1": float("nan"), "of": [{"zebra": float("inf"), "okapi": 1}]}
    served = Served(colours, tmp_path, settings=settings, metrics=metrics)
    with services.within(served) as (client, _):
        about = client.get("/model").json()
    assert about["thresholds"] == {"known": 0.0, "seen_offset": 0.1, "temperature": 0.5}
    assert about["backbone"]["licence"] == "CC BY 4.0"
    assert about["backbone"]["engine"] == about["backbone"]["running"] == "torch fp32"
    assert about["backbone"]["fallback"] is None
    assert about["metrics"] == {"H": 0.5, "T1": None, "of": [{"zebra": None, "okapi": 1}]}
    assert str(tmp_path) not in json.dumps(about)


def test_a_model_without_a_card_says_how_it_gets_one(client: TestClient) -> None:
    assert client.get("/model").json()["card"] is False
    response = client.get("/card")
    assert response.status_code == 404
    assert response.json()["error"].startswith(
        "this model was packed without a card: `ayeaye promote VERSION`"
    )


@pytest.mark.parametrize("name", [".", "..", " .. "])
def test_a_name_that_no_address_can_have_is_refused(client: TestClient, name: str) -> None:
    response = client.post("/classes", json=PINK | {"name": name})
    assert response.status_code == 422
    assert "could not be removed again" in response.json()["error"]
    assert client.post("/classes", json=PINK | {"name": "..."}).status_code == 201
    assert client.delete("/classes/...").status_code == 200


def test_the_model_tells_which_engine_stands_in_and_why(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(colours)
    assert classifier.backbone is not None
    graph = engines.export(classifier.backbone.network, classifier.backbone.transform.crop)
    engined = replace(classifier, backbone=classifier.backbone.with_engine(Engine("openvino", "bf16"), graph))
    engined.save(tmp_path / "bundle")

    def missing(engine: Engine, graph: bytes) -> None:
        raise engines.MissingEngine(f"{engine.name} is not installed")

    monkeypatch.setattr(engines, "start", missing)
    with services.within(Served(tmp_path / "bundle", tmp_path / "state")) as (client, _):
        backbone = client.get("/model").json()["backbone"]
    assert {key: backbone[key] for key in ("engine", "running", "fallback")} == {
        "engine": "openvino bf16",
        "running": "torch fp32",
        "fallback": "openvino is not installed",
    }


@pytest.mark.parametrize("path", ["/nothing", "/classes/", "/classify/x", "/static_content/main.js", "/%00"])
def test_an_unknown_address_is_a_404_in_json(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (404, 405)
    assert response.json()["error"]


def test_another_method_is_a_405_that_names_the_right_one(client: TestClient) -> None:
    response = client.get("/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert "POST" in response.json()["error"]
