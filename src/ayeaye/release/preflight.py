"""What a retrain needs, looked at in seconds before anything costs time: the class space first."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayeaye.backbones import backbones, engines
from ayeaye.class_vectors import space
from ayeaye.core.errors import AyeayeError, ParamsError, RegistryError
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import ClassTable
from ayeaye.pipeline import pretraining
from ayeaye.pipeline.embed import check_trainable, pretrained_of
from ayeaye.pipeline.examples import pretend_pool
from ayeaye.pipeline.folds import class_folds
from ayeaye.release import gate, registry

SPARE = 1_000_000_000  # bytes that a retrain with its Bento may well take


@dataclass(frozen=True)
class _Check:
    """`key` is of all that the answer depends on: what was met once is not asked again. None: always asked."""

    name: str
    run: Callable[[], object]
    key: str | None = None


def examine(
    workspace: Workspace, table: ClassTable, kind: str, say: Callable[[str], None] = lambda text: None
) -> None:
    """Raise all at once that would stop a retrain on this class table later; `kind` is the dataset's.

    The fingerprints of the workspace have to be written before. What may mend itself meanwhile is only said.
    """
    memory = workspace.state / "preflight.json"
    met, faults = _remembered(memory), list[AyeayeError]()
    kept = {}
    for check in _checks(workspace, table, kind):
        if check.key is None or met.get(check.name) != check.key:
            try:
                check.run()
            except AyeayeError as error:
                faults.append(error)
                continue
        if check.key:
            kept[check.name] = check.key
    if kept != met:
        write_atomic(memory, json.dumps(kept).encode())
    for warning in _warnings(workspace):
        say(warning)
    if faults:
        raise _together(faults)


def _checks(workspace: Workspace, table: ClassTable, kind: str) -> Iterator[_Check]:
    chosen, resolve = workspace.params, workspace.resolve
    code, inputs = workspace.fingerprints(), workspace.inputs()

    def key(stage: str, *settings: Any) -> str:
        parts = [stage, code.get(stage), inputs.get(stage), *settings]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    classes = chosen.classes
    yield _Check(
        "classes",
        lambda: space.check(table, classes, resolve),
        key("classes", table.digest(), classes.model_dump()),
    )
    yield _Check("folds", lambda: _check_folds(workspace, table, kind))
    yield _Check("device", lambda: _check_devices(workspace, kind))
    if kind == "images":
        # A workspace may come from a machine with CUDA to one without.
        met = None if chosen.embed.device == "cuda" else key("embed", chosen.embed.model_dump())
        yield _Check("embed", lambda: _check_backbone(workspace), met)
    yield _Check("pretraining", lambda: _check_lists(workspace), key("evaluate", chosen.embed.model_dump()))
    yield _Check("thresholds", lambda: gate.check_thresholds(chosen.release))
    yield _Check("token", lambda: _check_token(workspace))


def _check_backbone(workspace: Workspace) -> None:
    chosen = workspace.params.embed
    if chosen.weights == "train":
        check_trainable(workspace)
    else:
        pretrained_of(workspace)


def _check_folds(workspace: Workspace, table: ClassTable, kind: str) -> None:
    trained = kind == "images" and workspace.params.embed.weights == "train"
    class_folds(pretend_pool(table, trained), workspace.params.train.folds)


def _check_devices(workspace: Workspace, kind: str) -> None:
    chosen = workspace.params
    if chosen.train.device == "cuda":
        backbones.device_of("cuda", "train.device")
    embed = chosen.embed
    named = kind == "images" and embed.engine not in ("auto", "torch") and embed.device != "cuda"
    if named and backbones.device_of(embed.device) == "cpu":
        engines.check_installed(embed.engine)


def _check_lists(workspace: Workspace) -> None:
    chosen = workspace.params.embed
    if chosen.pretrained_on and chosen.pretrained_on != pretraining.IMAGENET:
        pretraining.read_names(workspace.resolve(chosen.pretrained_on))
    if chosen.hierarchy:
        pretraining.read_pairs(workspace.resolve(chosen.hierarchy))


def _check_token(workspace: Workspace) -> None:
    given = workspace.params.serve.token_file
    if not given or os.environ.get("AYEAYE_TOKEN", "").strip():
        return
    path = workspace.resolve(given)
    try:
        there = bool(path.read_text(encoding="utf-8-sig").strip())
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"serve.token_file {path} cannot be read ({getattr(error, 'strerror', None) or error}): "
            "write the token into it, or take it out"
        ) from None
    if not there:
        raise ParamsError(f"serve.token_file {path} holds no token: write one into it, or take it out")


def _warnings(workspace: Workspace) -> Iterator[str]:
    if tracking := workspace.params.release.tracking:
        try:
            registry.reach(tracking)
        except RegistryError as error:
            yield f"Training begins all the same, but {error}"
    free = shutil.disk_usage(workspace.root).free
    if free < SPARE:
        yield f"Only {free // 1_000_000:,} MB are free at {workspace.root}: a retrain may need more."


def _together(faults: list[AyeayeError]) -> AyeayeError:
    """The first fault, with what the others say after it."""
    first, *others = faults
    if others:
        first.details = [line for fault in faults for line in (str(fault), *fault.details)]
        first.args = ("; also: ".join(map(str, faults)),)
    return first


def _remembered(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
