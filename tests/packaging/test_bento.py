"""Bentos: packed, tried on a port and served, with a small real classifier inside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import SecretStr
from small_bundle import COLOURS, UNSEEN, picture, write_bundle
from small_card import card_of, recorded

from ayeaye.backbones.engines import TORCH, Engine
from ayeaye.classifier.model import Classifier, digest
from ayeaye.core.errors import PictureError, ReleaseError, TrialFailed
from ayeaye.core.params import Serve
from ayeaye.core.processes import free_port, guarded, stop
from ayeaye.data.decode import Limits
from ayeaye.packaging import bento
from ayeaye.packaging.bento import PROGRAM, Golden, Recipe

TEMPLATE = Path(__file__).parents[2] / "bentofile.yaml"
MEGABYTE = 1_000_000

pytestmark = pytest.mark.slow


def recipe_for(bundle: Path, **changes: Any) -> Recipe:
    recipe = Recipe(
        name="ayeaye",
        version=3,
        bundle=bundle,
        bundle_digest=digest(bundle),
        template=TEMPLATE,
        serve=Serve(max_bytes=MEGABYTE, max_pixels=MEGABYTE),
        data_digest="d" * 64,
        metrics={"H": 0.5},
        card=card_files(),
    )
    return replace(recipe, **changes)


def card_files(**changes: Any) -> dict[str, bytes]:
    files = card_of(recorded(**changes), packed=True).files()
    return {name: files[name] for name in bento.CARD}


def golden_of(bundle: Path) -> list[Golden]:
    contents = [picture(colour, 7) for colour in COLOURS]
    golden = []
    for name, content, answer in zip(
        COLOURS, contents, Classifier.load(bundle).classify(contents), strict=True
    ):
        assert not isinstance(answer, PictureError)
        golden.append(Golden(name, content, answer))
    return golden


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With a dot, as in a workspace: BentoML treats such folders otherwise.
    return tmp_path_factory.mktemp("workspace") / ".ayeaye" / "bentoml"


@pytest.fixture(scope="module")
def recipe(bundle: Path) -> Recipe:
    return recipe_for(bundle)


@pytest.fixture(scope="module")
def tag(recipe: Recipe, home: Path) -> str:
    return bento.build(recipe, home)


@pytest.fixture(scope="module")
def golden(bundle: Path) -> list[Golden]:
    return golden_of(bundle)


@pytest.fixture(scope="module")
def service(tag: str, home: Path) -> Iterator[httpx.Client]:
    """What `ayeaye serve` runs, on a port."""
    port = free_port()
    program = (
        "import sys; from pathlib import Path;"
        "from ayeaye.core.params import Serve; from ayeaye.release import bento;"
        "settings = Serve(host='localhost', port=int(sys.argv[3]), state=sys.argv[2] + '/state');"
        "bento.serve(sys.argv[1], Path(sys.argv[2]), settings)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tag, str(home), str(port)], start_new_session=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(600):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.HTTPError:
                    assert process.poll() is None
                time.sleep(0.1)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def classify(service: httpx.Client, content: bytes) -> httpx.Response:
    return service.post("/classify", files={"image": ("p", content)})


def test_a_bento_holds_program_bundle_and_settings_and_its_labels(
    tag: str, recipe: Recipe, home: Path
) -> None:
    from ruamel.yaml import YAML

    folder = bento.folder_of(tag, home)
    assert tag.startswith("ayeaye:v3-")
    assert digest(folder / "src" / "bundle") == recipe.bundle_digest
    assert json.loads((folder / "src" / "serve.json").read_text())["max_bytes"] == MEGABYTE
    assert (folder / "src" / "card.html").read_bytes() == recipe.card["card.html"]
    assert (folder / "README.md").read_bytes() == recipe.card["card.md"]
    about = YAML(typ="safe").load(folder / "bento.yaml")
    assert about["labels"]["bundle_digest"] == recipe.bundle_digest
    assert not list(folder.rglob("__pycache__"))
    assert not list(folder.rglob("flows"))  # a service runs none


def test_building_again_reuses_the_bento(tag: str, recipe: Recipe, home: Path) -> None:
    before = bento.folder_of(tag, home).stat().st_ino
    assert bento.build(recipe, home) == tag
    assert bento.folder_of(tag, home).stat().st_ino == before


def test_the_tag_changes_with_what_is_packed_and_with_nothing_else(recipe: Recipe) -> None:
    assert replace(recipe).tag() == recipe.tag()
    for changed in (
        replace(recipe, version=4),
        replace(recipe, bundle_digest="0" * 64),
        replace(recipe, serve=Serve(max_bytes=5)),
        replace(recipe, metrics={"H": 0.6}),
        replace(recipe, card={}),
        replace(recipe, card=card_files(on="class folds")),
        replace(recipe, serve=recipe.serve.model_copy(update={"rate": "5/second"})),
    ):
        assert changed.tag() != recipe.tag()
    place = {"port": 4000, "workers": 2, "state": "/elsewhere", "token_file": "/token"}
    assert replace(recipe, serve=recipe.serve.model_copy(update=place)).tag() == recipe.tag()


def test_a_tried_bento_answers_as_the_classifier_does_and_keeps_nothing(
    tag: str,
    golden: list[Golden],
    home: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AYEAYE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("AYEAYE_DATABASE", f"sqlite:///{tmp_path / 'state' / 'its.db'}")
    monkeypatch.setenv("AYEAYE_RATE", "1/hour")
    trial = bento.smoke_test(tag, golden, home, bundle_digest=recipe.bundle_digest)
    assert trial.tag == tag
    assert trial.requests == len(golden) + 1
    assert trial.refused == 1
    assert trial.largest_difference <= bento.TOLERANCE
    assert 0 < trial.latency_ms <= trial.latency_p95_ms
    assert not (tmp_path / "state").exists()


def test_a_bento_is_whole_until_something_in_it_changes(
    tag: str, home: Path, golden: list[Golden], tmp_path: Path
) -> None:
    assert bento.is_intact(tag, home)
    copy = bento.folder_of(tag, tmp_path)
    shutil.copytree(bento.folder_of(tag, home), copy)
    bento.smoke_test(tag, golden, tmp_path)
    assert bento.is_intact(tag, tmp_path)  # serving leaves it as it is
    for name in ("bundle/bundle.json", "ayeaye/classifier/model.py", "serve.json"):
        path = copy / "src" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert not bento.is_intact(tag, tmp_path)
        path.write_bytes(before)
    (copy / "src" / "bundle" / "mapper.safetensors").unlink()
    assert not bento.is_intact(tag, tmp_path)


def test_another_label_fails_the_trial(tag: str, golden: list[Golden], home: Path) -> None:
    wrong = [Golden("red", golden[0].content, golden[1].expected)]
    with pytest.raises(TrialFailed, match=r"labels red red, offline it is green"):
        bento.smoke_test(tag, wrong, home)


def test_a_bento_without_the_program_is_not_built(recipe: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "bentofile.yaml"
    template.write_text(TEMPLATE.read_text().replace('  - "bundle/**"\n', ""))
    with pytest.raises(ReleaseError, match=r"built without src/bundle/bundle\.json: mend `include`"):
        bento.build(replace(recipe, template=template), tmp_path / "home")
    assert not (tmp_path / "home" / "bentos").exists()
    assert not (tmp_path / "home" / ".staging").exists()


def test_code_from_outside_the_bento_fails_the_trial(
    tag: str, golden: list[Golden], home: Path, tmp_path: Path
) -> None:
    """A Bento whose program is gone would run the installed one, where that can be imported."""
    copy = bento.folder_of(tag, tmp_path)
    shutil.copytree(bento.folder_of(tag, home), copy)
    shutil.rmtree(copy / "src" / "ayeaye")
    with pytest.raises(TrialFailed, match=r"does not start: .*ayeaye is not in the Bento"):
        bento.smoke_test(tag, golden, tmp_path)


def test_a_damaged_bundle_fails_the_trial(tag: str, golden: list[Golden], home: Path, tmp_path: Path) -> None:
    copy = bento.folder_of(tag, tmp_path)
    shutil.copytree(bento.folder_of(tag, home), copy)
    (copy / "src" / "bundle" / "mapper.safetensors").write_bytes(b"rubbish")
    with pytest.raises(TrialFailed, match=r"does not start: .*is damaged"):
        bento.smoke_test(tag, golden, tmp_path)


def test_a_bento_that_is_not_there_raises_meaningful_error(home: Path) -> None:
    with pytest.raises(ReleaseError, match="ayeaye:v9-0 is not in"):
        bento.smoke_test("ayeaye:v9-0", [], home)
    with pytest.raises(ReleaseError, match="expected name:version"):
        bento.serve("../../etc", home, Serve())


_BUILD = """
import sys; from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_bento import recipe_for
from ayeaye.packaging import bento
bento.build(recipe_for(Path(sys.argv[2])), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("after", [0.3, 1.5, 2.5])
def test_a_build_killed_half_way_leaves_no_half_bento_and_no_process(
    bundle: Path, tmp_path: Path, after: float
) -> None:
    home = tmp_path / "bentoml"
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", _BUILD, here, str(bundle), str(home)])
    until = time.monotonic() + 60
    while not (home / ".staging").exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(after)
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert not _running_in(home)
    recipe = recipe_for(bundle)
    left = list((home / "bentos").glob("*/*/bento.yaml")) if (home / "bentos").exists() else []
    assert len(left) <= 1
    tag = bento.build(recipe, home)
    assert bento.exists(tag, home)
    assert not (home / ".staging").exists()


def test_a_trial_killed_half_way_leaves_no_process(tag: str, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ayeaye.release import bento;"
        "golden = [bento.Golden('x', b'x', None)] * 100_000;"
        "bento.smoke_test(sys.argv[1], golden, Path(sys.argv[2]), say=lambda text: print(text, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tag, str(home)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and "is ready" in process.stdout.readline()
    assert _running_in(bento.folder_of(tag, home))
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while _running_in(bento.folder_of(tag, home)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _running_in(bento.folder_of(tag, home))


def _running_in(folder: Path) -> list[int]:
    """Living processes, other than this one, that name the folder or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + bytes((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def test_an_exported_bento_serves_where_there_is_no_workspace_and_no_network(
    tag: str, home: Path, bundle: Path, tmp_path: Path
) -> None:
    packed, store, content = tmp_path / "ayeaye.bento", tmp_path / "store", tmp_path / "picture"
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "export", tag, str(packed)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    content.write_bytes(picture(UNSEEN, 3))
    store.mkdir()
    # Where namespaces are not allowed it is tried with the network that there is.
    apart = ["unshare", "--net", "--map-root-user"]
    if not shutil.which(apart[0]) or subprocess.run([*apart, "true"], capture_output=True).returncode:
        apart = []
    program = Path(__file__).with_name("alone.py")
    done = subprocess.run(
        [*apart, sys.executable, str(program), str(packed), str(store), str(content)],
        env=guarded({**os.environ, "HOME": str(tmp_path)}, hidden=[PROGRAM]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (expected,) = Classifier.load(bundle).classify([content.read_bytes()])
    assert isinstance(expected, dict)
    answer = json.loads(done.stdout)
    assert answer["label"] == expected["label"] == UNSEEN
    scores = [[each["score"] for each in given["alternatives"]] for given in (answer, expected)]
    np.testing.assert_allclose(*scores, atol=bento.TOLERANCE)
    assert answer["model"]["bento"] == tag


@pytest.mark.parametrize(("way", "beside"), [("tag", False), ("tag", True), ("folder", True)])
def test_a_bento_runs_its_own_program_wherever_it_is_started(
    tag: str, home: Path, tmp_path: Path, way: str, beside: bool
) -> None:
    """An installed ayeaye, or a folder of that name where one stands: BentoML takes a tag for a module first."""
    if beside:
        (tmp_path / "ayeaye").mkdir()
    installed = os.pathsep.join([str(PROGRAM), os.environ.get("PYTHONPATH", "")])
    what = tag if way == "tag" else str(bento.folder_of(tag, home))
    with _bentoml_serve(what, home, tmp_path, {"PYTHONPATH": installed}) as service:
        assert service.get("/model").json()["code"] == "bento"


@contextmanager
def _bentoml_serve(
    what: str, home: Path, folder: Path, environment: Mapping[str, str]
) -> Iterator[httpx.Client]:
    """As a person starts it in a folder, on a port."""
    port = free_port()
    settings = {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "AYEAYE_STATE": str(folder / "state"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", what, "--port", str(port)],
            cwd=folder,
            env={**os.environ, **settings, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            until = time.monotonic() + 60
            while not _ready(client):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            yield client
    finally:
        stop(process)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def elsewhere() -> list[str]:
    """The commands that docs/how-to/serve.md gives for another machine."""
    text = (TEMPLATE.parent / "docs" / "how-to" / "serve.md").read_text().partition("## Elsewhere")[2]
    return [line.partition("  #")[0].strip() for line in text.split("```")[1].splitlines()[1:]]


def test_the_documented_commands_take_a_bento_elsewhere(tag: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ".ayeaye").symlink_to(home.parent)
    export, bring, *_ = [line.replace("ayeaye:v3-1a2b3c4d", tag) for line in elsewhere()]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": programs, "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run(export, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
    imported, _, serve = bring.partition(" && ")
    environment["BENTOML_HOME"] = str(tmp_path / "other")
    subprocess.run(imported, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert serve.split()[:2] == ["bentoml", "serve"]
    with _bentoml_serve(serve.split()[2], tmp_path / "other", tmp_path, {}) as service:
        assert service.get("/model").json()["bento"] == tag


def test_the_dockerfile_of_a_bento_installs_what_is_pinned_and_runs_as_nobody_special(
    tag: str, home: Path
) -> None:
    """As far as can be told without a container engine, to which `bentoml containerize` hands this file."""
    folder = bento.folder_of(tag, home)
    lines = (folder / "env" / "docker" / "Dockerfile").read_text().splitlines()
    assert next(line for line in lines if line.startswith("FROM")).split()[1] == "python:3.11-slim"
    assert [line for line in lines if line.startswith("USER")] == ["USER bentoml"]
    for line in lines:
        if line.startswith("COPY"):
            assert (folder / line.split()[-2]).exists()
    assert any("requirements.txt" in line for line in lines)
    assert (folder / "env" / "docker" / "entrypoint.sh").is_file()


def test_an_image_has_a_folder_for_the_state_that_belongs_to_the_service(tag: str, home: Path) -> None:
    """A volume that is mounted where no folder is belongs to root."""
    lines = (bento.folder_of(tag, home) / "env" / "docker" / "Dockerfile").read_text().splitlines()
    made = lines.index("RUN mkdir /state && chown bentoml:bentoml /state")
    assert lines.index("USER bentoml") > made
    assert "ARG AYEAYE_STATE=/state" in lines and "ENV AYEAYE_STATE=$AYEAYE_STATE" in lines
    (run,) = [line for line in elsewhere() if line.startswith("docker run")]
    assert re.findall(r":(/\S+)", run) == ["/state"]
    assert len([line for line in lines if "apt-get" in line]) == 1


def test_a_bento_names_the_version_of_everything_that_it_needs(tag: str, home: Path) -> None:
    """Each is the installed one, and nothing that one of them needs is missing."""
    lines = (bento.folder_of(tag, home) / "env" / "python" / "requirements.txt").read_text().split()
    pinned = {name: version for name, _, version in (line.partition("==") for line in lines)}
    assert {"bentoml", "starlette", "torch", "uvicorn", "httptools"} <= pinned.keys()
    for name, version in pinned.items():
        found = metadata.distribution(name)
        assert version == found.version.partition("+")[0]
        for needed in map(Requirement, found.requires or ()):
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pinned, f"{name} needs {needed}"
    dockerfile = (bento.folder_of(tag, home) / "env" / "docker" / "Dockerfile").read_text()
    assert "ARG UV_TORCH_BACKEND=cpu" in dockerfile[: dockerfile.index("requirements.txt")]


def test_a_package_with_a_version_or_that_is_not_installed_stays_as_it_is() -> None:
    assert bento._pinned(["numpy>=2", "nothing-like-this", "psycopg[binary]"]) == [
        "nothing-like-this",
        "numpy>=2",
        f"psycopg=={metadata.version('psycopg')}",
        f"psycopg-binary=={metadata.version('psycopg-binary')}",
        f"typing-extensions=={metadata.version('typing-extensions')}",
    ]


# What is served


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


def test_many_requests_at_once_each_get_their_own_answer(service: httpx.Client, golden: list[Golden]) -> None:
    """Broken ones among them fail alone, whatever batch they land in."""
    from concurrent.futures import ThreadPoolExecutor

    requests = [*golden, Golden("broken", picture("red")[:300], None)] * 12
    with ThreadPoolExecutor(24) as threads:
        responses = list(threads.map(lambda request: classify(service, request.content), requests))
    for request, response in zip(requests, responses, strict=True):
        if request.expected is None:
            assert response.status_code == 400
        else:
            answer = response.json()
            assert answer["label"] == request.expected["label"]
            assert answer["alternatives"][0]["score"] == pytest.approx(
                request.expected["alternatives"][0]["score"], abs=bento.TOLERANCE
            )


def test_a_taken_port_raises_meaningful_error(service: httpx.Client, tag: str, home: Path) -> None:
    port = service.base_url.port
    assert port is not None
    with pytest.raises(ReleaseError, match=f"127.0.0.1:{port} cannot be listened on"):
        bento.serve(tag, home, Serve(port=port))


def test_the_limits_of_a_bento_are_those_it_was_packed_with(tag: str, home: Path, tmp_path: Path) -> None:
    assert bento.limits_of(tag, home) == Limits(MEGABYTE, MEGABYTE)
    with pytest.raises(ReleaseError, match="make it again with `ayeaye promote"):
        bento.limits_of(tag, tmp_path)


def test_a_free_port_is_chosen_before_it_is_announced(
    tag: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, said = list[list[str]](), list[str]()
    monkeypatch.setattr(os, "execve", lambda program, command, environment: commands.append(command))
    monkeypatch.chdir(home)
    bento.serve(tag, home, Serve(port=0), said.append)
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
    bento.serve(tag, home, settings)
    monkeypatch.setenv("AYEAYE_STATE", "/elsewhere")
    monkeypatch.setenv("AYEAYE_TOKEN", "secret")
    monkeypatch.setenv("AYEAYE_PREDICTIONS", "false")
    bento.serve(tag, home, settings)
    first, second = environments
    assert (first["AYEAYE_STATE"], second["AYEAYE_STATE"]) == (str(tmp_path), "/elsewhere")
    assert first["AYEAYE_DATABASE"] == second["AYEAYE_DATABASE"] == database
    assert first["AYEAYE_TOKEN_FILE"] == "/run/token"
    assert ("AYEAYE_TOKEN" in first, second["AYEAYE_TOKEN"]) == (False, "secret")
    assert ("AYEAYE_PREDICTIONS" in first, second["AYEAYE_PREDICTIONS"]) == (False, "false")


def test_a_bundle_trained_on_features_takes_rows(tmp_path: Path) -> None:
    import io

    bundle, home = tmp_path / "classifier", tmp_path / "bentoml"
    write_bundle(bundle, with_backbone=False)
    width = len(Classifier.load(bundle).mapper.state()["centre"])
    row = np.random.default_rng(0).normal(size=width).astype(np.float32)
    classifier = Classifier.load(bundle)
    (expected,) = classifier.answers(classifier.scores(row[None]))

    def saved(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    golden = [
        Golden("row", saved(row), expected),
        Golden("too short", saved(row[:-1]), None),
        Golden("not finite", saved(row * np.nan), None),
        Golden("a picture", picture("red"), None),
    ]
    assert bento.smoke_test(bento.build(recipe_for(bundle), home), golden, home).refused == 4


def test_a_bento_serves_with_the_engine_of_its_bundle(tmp_path: Path) -> None:
    """In bfloat16, so that torch in full precision could not stand in for it unnoticed."""
    bundle, home = tmp_path / "classifier", tmp_path / "bentoml"
    write_bundle(bundle, engine=Engine("openvino", "bf16"))
    classifier = Classifier.load(bundle)
    pictures = [picture(name, 7) for name in ("red", "magenta")]
    golden = [
        Golden("picture", content, answer)
        for content, answer in zip(pictures, classifier.classify(pictures), strict=True)
        if isinstance(answer, dict)
    ]
    assert classifier.backbone is not None
    if classifier.backbone.fallback is None:  # on a CPU that has it
        plain = replace(classifier, backbone=replace(classifier.backbone, engine=TORCH))
        X, Y = (np.stack(each.read(pictures)) for each in (classifier, plain))
        assert np.abs(classifier.scores(X) - classifier.scores(Y)).max() > bento.TOLERANCE
    trial = bento.smoke_test(bento.build(recipe_for(bundle), home), golden, home)
    assert trial.requests == 3
    assert trial.largest_difference <= bento.TOLERANCE
    if (fallback := classifier.backbone.fallback) is None:
        assert trial.stand_in is None
    else:
        assert trial.stand_in == f"{classifier.backbone.running} runs instead of openvino bf16: {fallback}"
