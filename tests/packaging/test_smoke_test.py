"""Smoke tests of Bentos on a port, with a small real classifier inside."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bentos import recipe_for, running_in
from small_bundle import picture, write_bundle

from ayeaye.backbones.engines import TORCH, Engine
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import SmokeTestFailed
from ayeaye.core.processes import stop
from ayeaye.packaging.bento import BentoStore, GoldenRequest, Recipe
from ayeaye.packaging.server import BentoServer
from ayeaye.packaging.smoke_test import TOLERANCE, smoke_test, verify

pytestmark = pytest.mark.slow


def test_a_tried_bento_answers_as_the_classifier_does_and_keeps_nothing(
    tag: str,
    golden: list[GoldenRequest],
    home: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AYEAYE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("AYEAYE_DATABASE", f"sqlite:///{tmp_path / 'state' / 'its.db'}")
    monkeypatch.setenv("AYEAYE_RATE", "1/hour")
    trial = smoke_test(BentoStore(home), tag, golden, bundle_digest=recipe.bundle_digest)
    assert trial.tag == tag
    assert trial.requests == len(golden) + 1
    assert trial.refused == 1
    assert trial.largest_difference <= TOLERANCE
    assert 0 < trial.latency_ms <= trial.latency_p95_ms
    assert not (tmp_path / "state").exists()


def test_another_label_fails_the_smoke_test(tag: str, golden: list[GoldenRequest], home: Path) -> None:
    wrong = [GoldenRequest("red", golden[0].content, golden[1].expected)]
    with pytest.raises(SmokeTestFailed, match=r"labels red red, offline it is green"):
        smoke_test(BentoStore(home), tag, wrong)


def test_code_from_outside_the_bento_fails_the_smoke_test(
    tag: str, golden: list[GoldenRequest], home: Path, tmp_path: Path
) -> None:
    """A Bento whose program is gone would run the installed one, where that can be imported."""
    copy = BentoStore(tmp_path).folder(tag)
    shutil.copytree(BentoStore(home).folder(tag), copy)
    shutil.rmtree(copy / "src" / "ayeaye")
    with pytest.raises(SmokeTestFailed, match=r"does not start: .*ayeaye is not in the Bento"):
        smoke_test(BentoStore(tmp_path), tag, golden)


def test_a_damaged_bundle_fails_the_smoke_test(
    tag: str, golden: list[GoldenRequest], home: Path, tmp_path: Path
) -> None:
    copy = BentoStore(tmp_path).folder(tag)
    shutil.copytree(BentoStore(home).folder(tag), copy)
    (copy / "src" / "bundle" / "mapper.safetensors").write_bytes(b"rubbish")
    with pytest.raises(SmokeTestFailed, match=r"does not start: .*is damaged"):
        smoke_test(BentoStore(tmp_path), tag, golden)


def test_a_smoke_test_killed_half_way_leaves_no_process(tag: str, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ayeaye.packaging.bento import BentoStore, GoldenRequest;"
        "from ayeaye.packaging.smoke_test import smoke_test; store = BentoStore(Path(sys.argv[2]));"
        "golden = [GoldenRequest('x', b'x', None)] * 100_000;"
        "smoke_test(store, sys.argv[1], golden, say=lambda text: print(text, flush=True))"
    )
    folder = BentoStore(home).folder(tag)
    before = set(running_in(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", program, tag, str(home)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and "is ready" in process.stdout.readline()
    assert set(running_in(folder)) - before
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while set(running_in(folder)) - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not set(running_in(folder)) - before


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
        GoldenRequest("row", saved(row), expected),
        GoldenRequest("too short", saved(row[:-1]), None),
        GoldenRequest("not finite", saved(row * np.nan), None),
        GoldenRequest("a picture", picture("red"), None),
    ]
    assert smoke_test(BentoStore(home), BentoStore(home).build(recipe_for(bundle)), golden).refused == 4


def test_a_bento_serves_with_the_engine_of_its_bundle(tmp_path: Path) -> None:
    """In bfloat16, so that torch in full precision could not stand in for it unnoticed."""
    bundle, home = tmp_path / "classifier", tmp_path / "bentoml"
    write_bundle(bundle, engine=Engine("openvino", "bf16"))
    classifier = Classifier.load(bundle)
    pictures = [picture(name, 7) for name in ("red", "magenta")]
    golden = [
        GoldenRequest("picture", content, answer)
        for content, answer in zip(pictures, classifier.classify(pictures), strict=True)
        if isinstance(answer, dict)
    ]
    assert classifier.backbone is not None
    if classifier.backbone.fallback is None:  # on a CPU that has it
        plain = replace(classifier, backbone=replace(classifier.backbone, engine=TORCH))
        X, Y = (np.stack(each.read(pictures)) for each in (classifier, plain))
        assert np.abs(classifier.scores(X) - classifier.scores(Y)).max() > TOLERANCE
    trial = smoke_test(BentoStore(home), BentoStore(home).build(recipe_for(bundle)), golden)
    assert trial.requests == 3
    assert trial.largest_difference <= TOLERANCE
    if (fallback := classifier.backbone.fallback) is None:
        assert trial.stand_in is None
    else:
        assert trial.stand_in == f"{classifier.backbone.running} runs instead of openvino bf16: {fallback}"


def test_a_launched_bento_is_verified_by_what_it_answered_in_its_smoke_test(
    tag: str, golden: list[GoldenRequest], home: Path, recipe: Recipe, tmp_path: Path
) -> None:
    store, state = BentoStore(home), tmp_path / "state"
    store.keep_golden(tag, golden)
    environment = {"AYEAYE_STATE": str(state), "AYEAYE_PROXY": "", "AYEAYE_RATE": "1/hour"}
    server = BentoServer.launch(store, tag, tmp_path / "run", environment, echo=False)
    try:
        verify(store, server, recipe.bundle_digest)
        with sqlite3.connect(state / "service.db") as database:
            assert database.execute("SELECT count(*) FROM ayeaye_predictions").fetchone() == (0,)
        with pytest.raises(SmokeTestFailed, match="serves bundle"):
            verify(store, server, "0" * 64)
        red = golden[0]
        assert red.expected
        far = [{**each, "score": each["score"] + 0.5} for each in red.expected["alternatives"]]
        store.keep_golden(tag, [replace(red, name="red", expected={**red.expected, "alternatives": far})])
        with pytest.raises(SmokeTestFailed, match="scores of red differ"):
            verify(store, server, recipe.bundle_digest)
    finally:
        stop(server.process)
        store.keep_golden(tag, golden)
    with pytest.raises(SmokeTestFailed, match="does not start"):
        verify(store, server, recipe.bundle_digest)
