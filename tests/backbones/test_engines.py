"""Engines: they agree with torch, are chosen for a reason, are remembered, and fall back in sight."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ayeaye.backbones import backbones, engines
from ayeaye.backbones.backbones import Backbone, Transform
from ayeaye.backbones.engines import CANDIDATES, EXACT, TORCH, Engine, MissingEngine, Runner
from ayeaye.core.errors import BackboneError, BundleError
from ayeaye.core.files import digest_folder

SIDE = 64
EXACT_ONES = [engine for engine in CANDIDATES if engine.exact]
BF16 = Engine("openvino", "bf16")


def made(name: str = "mobilenet_v3_small") -> Backbone:
    """A network whose normalisation has seen inputs, so that none of them vanishes on its way."""
    torch.manual_seed(0)
    network = backbones.build(name, classes=3).train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        network(torch.randn(8, 3, SIDE, SIDE))
    return backbones.assemble(name, "untrained", network, Transform(SIDE, SIDE))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return made()


@pytest.fixture(scope="module")
def graph(backbone: Backbone) -> bytes:
    return engines.export(backbone.network, SIDE)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(backbone: Backbone, inputs: np.ndarray) -> np.ndarray:
    return backbone.forward(inputs)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As on a host where these are not installed."""
    find = engines.importlib.util.find_spec
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(
        engines.importlib.util, "find_spec", lambda name: None if name in modules else find(name)
    )


def same(equal: int, labels: int) -> Callable[[Runner, Runner], tuple[int, int]]:
    return lambda exact, reduced: (equal, labels)


def quick(inputs: np.ndarray) -> np.ndarray:
    return inputs[:, 0, 0, :]


def slow_but_exact(inputs: np.ndarray, counted: tuple[int, int]) -> engines._Trial:
    """A trial in which openvino takes its time, so that a quicker one is worth its labels."""

    def slow(inputs: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return quick(inputs)

    trial = engines._Trial(inputs, same(*counted), "auto")
    trial.time(Engine("openvino"), lambda: slow)
    return trial


@pytest.mark.parametrize("engine", EXACT_ONES, ids=str)
@pytest.mark.parametrize("used", [1, 2, 3])
def test_an_exact_engine_gives_what_torch_gives_however_many_pictures_and_cores(
    engine: Engine,
    used: int,
    graph: bytes,
    inputs: np.ndarray,
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(used))
    run = engines.start(engine, graph)
    for count in (1, 2, 9):
        found = run(inputs[:count])
        assert found.shape == expected[:count].shape and found.dtype == np.float32
        assert engines.relative_error(found, expected[:count]) <= EXACT


class Attending(torch.nn.Module):
    """Vision transformers in small: torch has a fused operator for this that ONNX has not."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 16, 16)
        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(self.patches(inputs).flatten(2).transpose(1, 2))[:, 0]


def test_a_network_with_attention_can_be_exported(inputs: np.ndarray) -> None:
    torch.manual_seed(0)
    network = Attending().eval().requires_grad_(False)
    expected = engines.runner_of_torch(network)(inputs)
    graph = engines.export(network, SIDE)
    for engine in EXACT_ONES:
        assert engines.relative_error(engines.start(engine, graph)(inputs), expected) <= EXACT


def test_a_network_that_cannot_be_exported_raises_meaningful_error(
    inputs: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    class Sorting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(inputs.mean(dim=1) * self.weight)

    network = Sorting().eval().requires_grad_(False)
    with pytest.raises(MissingEngine, match="the network cannot be exported to ONNX"):
        engines.export(network, SIDE)
    assert capfd.readouterr().out == ""
    choice = engines.choose(network, SIDE, inputs, same(0, 0))
    assert choice.engine == TORCH and "cannot be exported" in choice.reason


def test_an_engine_answers_many_threads_at_once(
    graph: bytes, inputs: np.ndarray, expected: np.ndarray
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for engine in EXACT_ONES:
        run = engines.start(engine, graph)
        with ThreadPoolExecutor(4) as threads:
            for found in threads.map(lambda _, run=run: run(inputs), range(8)):
                assert engines.relative_error(found, expected) <= EXACT


def test_auto_takes_what_is_fastest_and_says_how_much(backbone: Backbone, inputs: np.ndarray) -> None:
    choice = engines.choose(backbone.network, SIDE, inputs, same(400, 400))
    assert set(choice.milliseconds) >= {"torch fp32", "onnxruntime fp32", "openvino fp32"}
    simpler_wins = engines.WORTHWHILE ** (len(choice.milliseconds) - 1)
    assert choice.milliseconds[str(choice.engine)] <= simpler_wins * min(choice.milliseconds.values())
    assert "as fast as torch" in choice.reason or choice.engine == TORCH


@pytest.mark.parametrize(
    ("counted", "said"),
    [((397, 400), "keeps 397 of 400 labels"), ((150, 150), "needs 200 validation pictures")],
)
def test_reduced_precision_is_refused_where_labels_change_or_are_few(
    inputs: np.ndarray, counted: tuple[int, int], said: str
) -> None:
    trial = slow_but_exact(inputs, counted)
    trial.reduced(BF16, lambda: quick, Engine("openvino"))
    assert said in trial.refused[BF16]
    assert trial.fastest(Engine("openvino")) == Engine("openvino")


def test_reduced_precision_is_taken_where_199_of_200_labels_stay(inputs: np.ndarray) -> None:
    trial = slow_but_exact(inputs, (398, 400))
    trial.reduced(BF16, lambda: quick, Engine("openvino"))
    assert trial.fastest(Engine("openvino")) == BF16


def test_an_engine_that_is_off_is_refused_and_one_that_is_wanted_is_an_error(
    inputs: np.ndarray, expected: np.ndarray
) -> None:
    def off() -> Runner:
        return lambda inputs: expected * np.float32(1.01)

    for wanted in ("auto", "openvino"):
        trial = engines._Trial(inputs, same(0, 0), wanted)
        if wanted == "auto":
            trial.exact(Engine("openvino"), off, expected)
            assert "is off by 0.01, more than 0.0001" in trial.refused[Engine("openvino")]
        else:
            with pytest.raises(BackboneError, match=r"embed\.engine is openvino: .* is off by 0.01"):
                trial.exact(Engine("openvino"), off, expected)
    trial = engines._Trial(inputs, same(0, 0), "auto")
    trial.exact(Engine("onnxruntime"), lambda: lambda inputs: expected * np.float32("nan"), expected)
    assert "is off by nan" in trial.refused[Engine("onnxruntime")]


def test_auto_is_torch_where_no_engine_is_installed_and_says_so(
    backbone: Backbone, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "onnxruntime", "openvino")
    choice = engines.choose(backbone.network, SIDE, inputs, same(0, 0))
    assert choice.engine == TORCH
    assert "onnxruntime is not installed" in choice.reason and "openvino is not installed" in choice.reason
    with pytest.raises(BackboneError, match=r"embed\.engine is onnxruntime: onnxruntime is not installed"):
        engines.choose(backbone.network, SIDE, inputs, same(0, 0), wanted="onnxruntime")


def test_the_wanted_engine_is_taken(backbone: Backbone, inputs: np.ndarray) -> None:
    choice = engines.choose(backbone.network, SIDE, inputs, same(0, 0), wanted="onnxruntime", reduced=False)
    assert choice.engine == Engine("onnxruntime")


def test_nearest_means_label_as_one_would() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    y = np.repeat(np.arange(4), 10)
    X = centres[y] + 0.1 * rng.normal(size=(40, 12))
    np.testing.assert_array_equal(engines.nearest_means(X, y, centres), np.arange(4))
    assert (engines.nearest_means(X * np.nan, y, centres) == -1).all()


def test_the_engine_is_saved_loaded_and_part_of_the_digest(
    tmp_path: Path, backbone: Backbone, graph: bytes, inputs: np.ndarray, expected: np.ndarray
) -> None:
    digests = {backbone.digest}
    for engine in CANDIDATES:
        engined = backbone.with_engine(engine, graph)
        digests.add(engined.digest)
        engined.save(tmp_path / str(engine))
        again = backbones.load(tmp_path / str(engine))
        assert (again.engine, again.digest, again.graph) == (engine, engined.digest, graph)
        if engine.exact:
            assert (again.running, again.fallback) == (engine, None)
            assert engines.relative_error(again.forward(inputs), expected) <= EXACT
    assert len(digests) == 4


def test_where_another_engine_runs_torch_is_not_even_imported(
    tmp_path: Path, backbone: Backbone, graph: bytes
) -> None:
    """It takes seconds and some hundred MB of every worker that serves."""
    backbone.with_engine(Engine("onnxruntime"), graph).save(tmp_path)
    program = (
        "import sys; from pathlib import Path; from PIL import Image; from ayeaye.backbones import backbones\n"
        "print(backbones.load(Path(sys.argv[1])).embed([Image.new('RGB', (90, 70))]).shape)\n"
        "print(sorted({'torch', 'torchvision'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"(1, {backbone.width})", "[]"], done.stderr


def test_torch_is_saved_as_before_there_were_engines(
    tmp_path: Path, backbone: Backbone, graph: bytes
) -> None:
    backbone.with_engine(Engine("openvino"), graph).save(tmp_path / "one")
    for folder in ("one", "two"):
        backbone.save(tmp_path / folder)
    assert digest_folder(tmp_path / "one") == digest_folder(tmp_path / "two")
    described = json.loads((tmp_path / "two" / "backbone.json").read_text())
    assert described.keys() == {"name", "origin", "transform", "width", "digest", "classes"}
    assert backbones.load(tmp_path / "two").running == TORCH


def test_another_graph_than_was_saved_is_refused(tmp_path: Path, backbone: Backbone, graph: bytes) -> None:
    backbone.with_engine(Engine("onnxruntime"), graph).save(tmp_path)
    (tmp_path / "backbone.onnx").write_bytes(graph + b" ")
    with pytest.raises(BundleError, match=r"backbone\.onnx is not the graph that was saved"):
        backbones.load(tmp_path)
    (tmp_path / "backbone.onnx").unlink()
    with pytest.raises(BundleError, match=r"damaged .*backbone\.onnx"):
        backbones.load(tmp_path)


def test_a_host_without_the_engine_falls_back_to_torch_and_warns_once(
    backbone: Backbone,
    graph: bytes,
    inputs: np.ndarray,
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without(monkeypatch, "openvino")
    engined = backbone.with_engine(BF16, graph)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_array_equal(engined.forward(inputs), expected)
    assert engined.running == TORCH
    assert engined.fallback == "openvino is not installed"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["torch fp32 runs instead of openvino bf16: openvino is not installed"]


def test_a_cpu_without_bfloat16_runs_the_same_engine_in_full_precision(
    backbone: Backbone, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    class Older(openvino.Core):
        def get_property(self, *asked: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Older)
    with pytest.raises(MissingEngine, match="this CPU has no bfloat16"):
        engines.start(BF16, graph)
    engined = backbone.with_engine(BF16, graph)
    assert engined.running == Engine("openvino")
    assert engined.fallback == "this CPU has no bfloat16"


def test_the_cores_are_those_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert engines.cores() == 3
    assert engines.machine()["cores"] == "3"
    assert {"torch", "onnx", "onnxruntime", "openvino"} <= set(engines.machine())
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert engines.cores() >= 1
