"""Checkpoints: every way in which people save one, and what is said of those that are not the network's."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ayeaye.backbones import backbones, checkpoints
from ayeaye.backbones.backbones import Backbone
from ayeaye.core.errors import BackboneError

NAME = "shufflenet_v2_x0_5"
State = dict[str, Any]


def state_of(seed: int = 0, name: str = NAME, classes: int = 11) -> State:
    torch.manual_seed(seed)
    return dict(backbones.build(name, classes).state_dict())


@pytest.fixture(scope="module")
def state() -> State:
    return state_of()


@pytest.fixture(scope="module")
def digest(state: State, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the backbone that the plain state dict gives."""
    return taken(state, tmp_path_factory.mktemp("plain")).digest


def taken(checkpoint: Any, folder: Path, name: str = NAME) -> Backbone:
    torch.save(checkpoint, folder / "checkpoint.pth")
    return backbones.pretrained(name, str(folder / "checkpoint.pth"), size=64)


def refused(checkpoint: Any, folder: Path, name: str = NAME) -> str:
    with pytest.raises(BackboneError) as error:
        taken(checkpoint, folder, name)
    assert str(error.value).count("\n") == 0
    return str(error.value)


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def with_head(state: State, **head: torch.Tensor) -> State:
    kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return kept | {key.replace("__", "."): value for key, value in head.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "net.",
        "backbone.",
        "encoder.",
        "_orig_mod.",
        "module._orig_mod.model.encoder.",
        "0.",
    ],
)
@pytest.mark.parametrize(
    "place",
    ["", "state_dict", "model", "model_state_dict", "net", "model_ema", "ema", "ema_state_dict", "a.b"],
)
def test_any_prefix_and_any_place_is_found_and_said(
    prefix: str, place: str, state: State, digest: str, tmp_path: Path
) -> None:
    checkpoint: Any = under(prefix, state)
    for part in reversed(place.split(".") if place else []):
        checkpoint = {"epoch": 3, part: checkpoint, "optimizer": {"state": {0: {"step": torch.ones(3)}}}}
    made = taken(checkpoint, tmp_path)
    assert made.digest == digest
    assert f"without the prefix `{prefix}`" in made.taken and (place or "the file") in made.taken


WAYS: dict[str, Callable[[State], Any]] = {
    "a head of two layers": lambda s: with_head(
        s, fc__0__weight=torch.ones(8, 1024), fc__3__weight=torch.ones(5, 8)
    ),
    "a head of another name": lambda s: with_head(s, classifier__weight=torch.ones(5, 1024)),
    "no head": with_head,
    "counters of a profiler": lambda s: (
        s
        | {
            "total_ops": torch.zeros(1),
            "stage2.0.total_params": torch.zeros(1),
            "n_averaged": torch.tensor(3),
        }
    ),
    "an auxiliary head": lambda s: s | {"aux_head.fc.weight": torch.ones(5, 40)},
    "a Lightning module": lambda s: {
        "state_dict": under("model.", s) | {"loss.weight": torch.ones(5), "metric.total": torch.ones(3)},
        "pytorch-lightning_version": "2.4.0",
        "hyper_parameters": argparse.Namespace(lr=0.1, name="x"),
        "callbacks": {},
        "loops": {"epoch_loop.state_dict": {}},
    },
    "arguments and NumPy's numbers": lambda s: {
        "args": argparse.Namespace(lr=np.float64(0.1)),
        "best": np.float32(0.5),
        "epoch": np.int64(4),
        "state_dict": OrderedDict(s),
    },
    "the same twice": lambda s: {"state_dict": s, "model": s},
    "weights and their average": lambda s: {"model": s, "model_ema": under("module.", state_of(1))},
    "the average first": lambda s: under("ema_model.", state_of(1)) | under("online_model.", s),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_beside_the_network_does_not_matter(
    way: str, state: State, digest: str, tmp_path: Path
) -> None:
    assert taken(WAYS[way](state), tmp_path).digest == digest


def test_counts_of_batches_may_be_missing(state: State, tmp_path: Path) -> None:
    made = taken({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path)
    assert made.digest == taken(state, tmp_path).digest


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_taken(kind: torch.dtype, state: State, tmp_path: Path) -> None:
    made = taken({k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}, tmp_path)
    expected = {k: v.to(kind).float() for k, v in state.items() if not k.startswith("fc.")}
    assert all(torch.equal(v.float(), expected[k]) for k, v in made.network.state_dict().items())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights"])
def test_safetensors_are_known_by_their_content(name: str, state: State, digest: str, tmp_path: Path) -> None:
    save_file(under("module.", state), tmp_path / name)
    assert backbones.pretrained(NAME, str(tmp_path / name), size=64).digest == digest


def test_a_sequential_head_within_the_classifier_of_the_network(tmp_path: Path) -> None:
    name = "mobilenet_v3_small"
    state = state_of(name=name)
    head = {"classifier.3.1.weight": torch.ones(1000, 1024), "classifier.3.1.bias": torch.ones(1000)}
    other = {key: value for key, value in state.items() if not key.startswith("classifier.3.")} | head
    made = taken(other, tmp_path, name)
    assert made.digest == taken(state, tmp_path, name).digest
    assert len(made.classes) == 1000


def test_names_that_torchvision_once_had_are_read_as_the_ones_of_today(tmp_path: Path) -> None:
    dense = state_of(name="densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in dense.items()
    }
    assert old.keys() != dense.keys()
    assert taken(old, tmp_path, "densenet121").digest == taken(dense, tmp_path, "densenet121").digest


# ---- what does not fit ----


def test_several_networks_that_fit_are_named(state: State, tmp_path: Path) -> None:
    said = refused(under("student.", state) | under("teacher.", state_of(1)), tmp_path)
    assert "several networks that fit" in said and "`student.`" in said and "`teacher.`" in said


def test_a_deeper_network_of_the_same_kind_is_another(tmp_path: Path) -> None:
    said = refused(under("module.", state_of(name="resnet34")), tmp_path, "resnet18")
    assert "that the network does not have: layer1.2.conv1.weight" in said and "and 77 more" in said


def test_missing_tensors_are_counted_and_some_of_them_named(state: State, tmp_path: Path) -> None:
    cut = {key: value for key, value in state.items() if not key.startswith(("stage4", "conv1"))}
    said = refused({"state_dict": cut}, tmp_path)
    assert "nearest is `state_dict`" in said and "missing: conv1.0.weight, conv1.1.weight" in said
    assert "does not fit shufflenet_v2_x0_5" in said and "more" in said


def test_other_shapes_are_named(tmp_path: Path) -> None:
    said = refused(state_of(name="shufflenet_v2_x1_0"), tmp_path)
    assert "of another shape: " in said and "(" in said and "×" in said


@pytest.mark.parametrize(
    "checkpoint", [{}, {"epoch": 3}, {"a": {"b": torch.ones(3)}}, {"loss": torch.ones(3)}]
)
def test_a_file_without_the_network_says_so(checkpoint: Any, tmp_path: Path) -> None:
    assert "no name of it is in the file" in refused(checkpoint, tmp_path)


def test_a_pickled_object_is_named_and_never_read(state: State, tmp_path: Path) -> None:
    for content in (backbones.build(NAME, 3), {"state_dict": state, "root": Path("/")}):
        said = refused(content, tmp_path)
        assert "it holds a pickled " in said and "save `model.state_dict()` alone" in said
    assert "torchvision.models.shufflenetv2" in refused(backbones.build(NAME, 3), tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(8) + b"{"]
)
def test_a_damaged_file_is_a_fault_with_a_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(BackboneError, match=r"embed.weights .*bad.pth"):
        backbones.pretrained(NAME, str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_says_so(kind: str, share: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BackboneError, match="cut off or damaged: fetch it again"):
        checkpoints.read(path)


def test_files_of_other_kinds_are_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content, said in {
        b"\x08\x08\x12\x07pytorch" + bytes(9): "it is ONNX: name the checkpoint",
        b'{"metadata": {}, "weight_map": {}}': "it is JSON, such as an index of several files: save the whole",
    }.items():
        path.write_bytes(content)
        with pytest.raises(BackboneError, match=said):
            checkpoints.read(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_told(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "weights"))
    with pytest.raises(BackboneError, match=r"it is TorchScript: open it with torch\.jit\.load"):
        checkpoints.read(tmp_path / "weights")


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    assert "holds no state dict" in refused([torch.ones(3)], tmp_path)


def test_readings_are_found_wherever_whole_parts_of_names_match() -> None:
    one, two = torch.ones(1), torch.ones(2)
    found = checkpoints.readings({"x": {"a.conv.w": one, "a.fc.w": two, "aconv.w": two}}, {"conv.w", "fc.w"})
    assert [(reading.place, reading.prefix, set(reading.state)) for reading in found] == [
        ("x", "a.", {"conv.w", "fc.w"})
    ]
