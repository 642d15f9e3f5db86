"""Forms as browsers and other clients write them, and what is said of one that is not as it should be."""

from __future__ import annotations

from typing import Any

import pytest
from services import TestClient
from small_bundle import picture

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}
PICTURE = ("image", "picture.png", picture("red"), "image/png")


def written(*parts: tuple[str, str | None, bytes, str]) -> bytes:
    """A body of parts: name, filename, content and type."""
    body = b""
    for name, filename, content, kind in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        head = f'Content-Disposition: form-data; name="{name}"{named}\r\nContent-Type: {kind}'
        body += b"--x\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--x--\r\n"


def send(client: TestClient, path: str, *parts: tuple[str, str | None, bytes, str]) -> Any:
    return client.post(path, content=written(*parts), headers=BOUNDARY)


@pytest.mark.parametrize("filename", [None, "blob"])
@pytest.mark.parametrize("path", ["/classify_among", "/explain"])
def test_candidates_may_be_a_blob_of_json(client: TestClient, path: str, filename: str | None) -> None:
    candidates = ("candidates", filename, b'["red", "blue"]', "application/json")
    response = send(client, path, PICTURE, candidates)
    assert response.status_code == 200, response.text
    assert response.json()["label"] == "red"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b'["' + b"x" * 1_000_000 + b'"]', 413), (b'["\xff"]', 400), (b"", 400)],
    ids=["too large", "not UTF-8", "empty"],
)
def test_a_blob_has_bounds(client: TestClient, content: bytes, status: int) -> None:
    candidates = ("candidates", "blob", content, "application/json")
    assert send(client, "/classify_among", PICTURE, candidates).status_code == status


@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/explain"])
def test_a_picture_without_a_filename_is_told_that_it_needs_one(client: TestClient, path: str) -> None:
    name = "images" if path == "/classify_batch" else "image"
    response = send(client, path, (name, None, picture("red"), "image/png"))
    answer = response.json()["answers"][0] if path == "/classify_batch" else response.json()
    assert (answer.get("status") or response.status_code) == 400
    assert answer["error"] == (
        f"the field `{name}` has no filename, and is a text: send the picture itself, with a filename, as "
        f"`curl -F {name}=@FILE`; addresses are not fetched"
    )
    response = send(client, path, (name, None, b"x" * 2_000_000, "image/png"))
    assert response.status_code == 400
    assert "with one, as `curl -F" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/classify", "`image`"),
        ("/embed", "`image`"),
        ("/classify_batch", "`images`"),
        ("/explain", "`image`, `candidates`"),
        ("/classify_among", "`image`, `candidates`"),
        ("/feedback", "`image`, `answer`, `label`"),
    ],
)
@pytest.mark.parametrize("filename", [None, "picture.png"])
def test_a_field_of_another_name_is_named(
    client: TestClient, path: str, expected: str, filename: str | None
) -> None:
    response = send(client, path, PICTURE, ("picture", filename, picture("red"), "image/png"))
    if path == "/classify_batch":
        response = send(client, path, ("picture", filename, picture("red"), "image/png"))
    assert response.status_code == 422
    assert response.json()["error"] == (
        f"the form has a field 'picture', which is not taken here: expected are {expected}"
    )


def test_feedback_never_loses_its_picture(client: TestClient) -> None:
    answer = client.post("/classify", files={"image": picture("red")}).json()
    said = {"answer": answer["id"], "label": "crimson"}
    assert client.post("/feedback", data=said, files={"picture": picture("red")}).status_code == 422
    assert client.post("/feedback", data=said | {"reason": "seen"}).status_code in (415, 422)
    assert client.post("/feedback", data=said, files={"image": picture("red")}).status_code == 201


def test_the_name_of_a_field_is_told_whatever_it_holds(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    body = written(("\\ud800" + "y" * 500, None, b"x", "text/plain"))
    response = client.post("/classify", content=body, headers=headers)
    assert response.status_code == 422
    assert len(response.json()["error"]) < 250


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"x", "multipart/form-data", "the Content-Type has no boundary: leave it to the client"),
        (b"x", BOUNDARY["Content-Type"], "the form is damaged, or of another boundary than"),
        (written(*[PICTURE] * 40), BOUNDARY["Content-Type"], "the form holds more than 1 files: send one in"),
        (
            b"--x\r\nContent-Type: text/plain\r\n\r\nx\r\n--x--\r\n",
            BOUNDARY["Content-Type"],
            'the form cannot be read (The Content-Disposition header field "name" must be provided): send it',
        ),
    ],
    ids=["no boundary", "another boundary", "many files", "no name"],
)
def test_a_form_that_cannot_be_read_says_what_to_do(
    client: TestClient, body: bytes, kind: str, said: str
) -> None:
    response = client.post("/classify", content=body, headers={"Content-Type": kind})
    assert response.status_code == 400
    assert response.json()["error"].startswith(said)
    assert "image" in response.json()["error"]
