"""Bentos as they are packed: what is in them, and where they can go."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import httpx
import numpy as np
import pytest
from bentos import MEGABYTE, TEMPLATE, card_files, recipe_for, running_in
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_bundle import UNSEEN, picture

from ayeaye.classifier.model import Classifier, digest
from ayeaye.core.errors import ReleaseError
from ayeaye.core.params import Serve
from ayeaye.core.processes import free_port, guarded, stop
from ayeaye.data.decode import Limits
from ayeaye.packaging.bento import PROGRAM, BentoStore, GoldenRequest, Recipe, _pinned
from ayeaye.packaging.server import exec_server
from ayeaye.packaging.smoke_test import TOLERANCE, smoke_test

pytestmark = pytest.mark.slow


def test_a_bento_holds_program_bundle_and_settings_and_its_labels(
    tag: str, recipe: Recipe, home: Path
) -> None:
    from ruamel.yaml import YAML

    folder = BentoStore(home).folder(tag)
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
    before = BentoStore(home).folder(tag).stat().st_ino
    assert BentoStore(home).build(recipe) == tag
    assert BentoStore(home).folder(tag).stat().st_ino == before


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


def test_a_bento_is_whole_until_something_in_it_changes(
    tag: str, home: Path, golden: list[GoldenRequest], tmp_path: Path
) -> None:
    assert BentoStore(home).is_intact(tag)
    copy = BentoStore(tmp_path).folder(tag)
    shutil.copytree(BentoStore(home).folder(tag), copy)
    smoke_test(BentoStore(tmp_path), tag, golden)
    assert BentoStore(tmp_path).is_intact(tag)  # serving leaves it as it is
    for name in ("bundle/bundle.json", "ayeaye/classifier/model.py", "serve.json"):
        path = copy / "src" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert not BentoStore(tmp_path).is_intact(tag)
        path.write_bytes(before)
    (copy / "src" / "bundle" / "mapper.safetensors").unlink()
    assert not BentoStore(tmp_path).is_intact(tag)


def test_a_bento_without_the_program_is_not_built(recipe: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "bentofile.yaml"
    template.write_text(TEMPLATE.read_text().replace('  - "bundle/**"\n', ""))
    with pytest.raises(ReleaseError, match=r"built without src/bundle/bundle\.json: mend `include`"):
        BentoStore(tmp_path / "home").build(replace(recipe, template=template))
    assert not (tmp_path / "home" / "bentos").exists()
    assert not (tmp_path / "home" / ".staging").exists()


def test_a_bento_that_is_not_there_raises_meaningful_error(home: Path) -> None:
    with pytest.raises(ReleaseError, match="ayeaye:v9-0 is not in"):
        smoke_test(BentoStore(home), "ayeaye:v9-0", [])
    with pytest.raises(ReleaseError, match="expected name:version"):
        exec_server(BentoStore(home), "../../etc", Serve())


_BUILD = """
import sys; from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from bentos import recipe_for
from ayeaye.packaging.bento import BentoStore
BentoStore(Path(sys.argv[3])).build(recipe_for(Path(sys.argv[2])))
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
    assert not running_in(home)
    recipe = recipe_for(bundle)
    left = list((home / "bentos").glob("*/*/bento.yaml")) if (home / "bentos").exists() else []
    assert len(left) <= 1
    tag = BentoStore(home).build(recipe)
    assert BentoStore(home).is_intact(tag)
    assert not (home / ".staging").exists()


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
    np.testing.assert_allclose(*scores, atol=TOLERANCE)
    assert answer["model"]["bento"] == tag


@pytest.mark.parametrize(("way", "beside"), [("tag", False), ("tag", True), ("folder", True)])
def test_a_bento_runs_its_own_program_wherever_it_is_started(
    tag: str, home: Path, tmp_path: Path, way: str, beside: bool
) -> None:
    """An installed ayeaye, or a folder of that name where one stands: BentoML takes a tag for a module first."""
    if beside:
        (tmp_path / "ayeaye").mkdir()
    installed = os.pathsep.join([str(PROGRAM), os.environ.get("PYTHONPATH", "")])
    what = tag if way == "tag" else str(BentoStore(home).folder(tag))
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
    folder = BentoStore(home).folder(tag)
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
    lines = (BentoStore(home).folder(tag) / "env" / "docker" / "Dockerfile").read_text().splitlines()
    made = lines.index("RUN mkdir /state && chown bentoml:bentoml /state")
    assert lines.index("USER bentoml") > made
    assert "ARG AYEAYE_STATE=/state" in lines and "ENV AYEAYE_STATE=$AYEAYE_STATE" in lines
    (run,) = [line for line in elsewhere() if line.startswith("docker run")]
    assert re.findall(r":(/\S+)", run) == ["/state"]
    assert len([line for line in lines if "apt-get" in line]) == 1


def test_a_bento_names_the_version_of_everything_that_it_needs(tag: str, home: Path) -> None:
    """Each is the installed one, and nothing that one of them needs is missing."""
    lines = (BentoStore(home).folder(tag) / "env" / "python" / "requirements.txt").read_text().split()
    pinned = {name: version for name, _, version in (line.partition("==") for line in lines)}
    assert {"bentoml", "starlette", "torch", "uvicorn", "httptools"} <= pinned.keys()
    for name, version in pinned.items():
        found = metadata.distribution(name)
        assert version == found.version.partition("+")[0]
        for needed in map(Requirement, found.requires or ()):
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pinned, f"{name} needs {needed}"
    dockerfile = (BentoStore(home).folder(tag) / "env" / "docker" / "Dockerfile").read_text()
    assert "ARG UV_TORCH_BACKEND=cpu" in dockerfile[: dockerfile.index("requirements.txt")]


def test_a_package_with_a_version_or_that_is_not_installed_stays_as_it_is() -> None:
    assert _pinned(["numpy>=2", "nothing-like-this", "psycopg[binary]"]) == [
        "nothing-like-this",
        "numpy>=2",
        f"psycopg=={metadata.version('psycopg')}",
        f"psycopg-binary=={metadata.version('psycopg-binary')}",
        f"typing-extensions=={metadata.version('typing-extensions')}",
    ]


def test_the_limits_of_a_bento_are_those_it_was_packed_with(tag: str, home: Path, tmp_path: Path) -> None:
    assert BentoStore(home).limits(tag) == Limits(MEGABYTE, MEGABYTE)
    with pytest.raises(ReleaseError, match="make it again with `ayeaye promote"):
        BentoStore(tmp_path).limits(tag)


def test_golden_requests_are_kept_for_as_long_as_their_bento(tmp_path: Path) -> None:
    store = BentoStore(tmp_path)
    expected = {"label": "x", "alternatives": [{"label": "x", "score": 0.5}]}
    golden = [GoldenRequest("a", b"\xff\0", expected), GoldenRequest("broken", b"", None)]
    for name in ("v1-0", "v2-0"):
        folder = store.folder(f"ayeaye:{name}")
        folder.mkdir(parents=True)
        (folder / "bento.yaml").touch()
        store.keep_golden(f"ayeaye:{name}", golden)
        assert store.golden(f"ayeaye:{name}") == golden
    shutil.rmtree(store.folder("ayeaye:v1-0"))
    store.keep_golden("ayeaye:v2-0", golden)
    assert [path.name for path in (tmp_path / "golden" / "ayeaye").iterdir()] == ["v2-0.json"]
    with pytest.raises(ReleaseError, match="ayeaye:v1-0 is not in"):
        store.golden("ayeaye:v1-0")
