"""A registered version made again from what it names: its commit, its dataset, and what was measured then."""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ayeaye import __version__
from ayeaye.backbones.shards import link
from ayeaye.classifier.model import digest
from ayeaye.core import params
from ayeaye.core.errors import DataGone, WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import expanded, resolved
from ayeaye.core.workspace import Workspace
from ayeaye.data import removal
from ayeaye.pipeline.evaluate import HEADLINE
from ayeaye.release.promotion import registry_of, version_called
from ayeaye.release.registry import Registry, Version, flat
from ayeaye.versioning import commits, dvc, git, layout
from ayeaye.versioning.running import Stages

Say = Callable[[str], None]
LABELS, FIGURES = (
    0.999,
    0.002,
)  # share of equal labels, and difference of a figure, within which two are equivalent
MARK = "reproduction.json"  # in the state of a workspace that was made to reproduce a version
KEPT_WORDS = ("train", "imagenet-1k")  # what stands in params.yaml in place of a file


def reproduce(
    workspace: Workspace,
    name: str,
    into: Path | None = None,
    *,
    reuse_embeddings: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Train a version again in a workspace of its own, and compare what comes of it.

    `name` is a number or an alias; `into` is the folder of the new workspace, by default beside this one. This
    one is only read, without its lock: a retrain may run meanwhile. Killed anywhere, the next call goes on.

    `verdict` is `identical` (the same bundle, bit by bit, and the same figures), `equivalent` (labels of the test
    pictures agree to LABELS and figures to FIGURES) or `different`, with `differences` saying where.

    Raises RegistryError and ReleaseError for an unknown version, WorkspaceError where its commit or the folder
    cannot be used, DataGone where its data no longer exist, and what a stage raises.
    """
    registry, version, folder = _chosen(workspace, name, into)
    made = _laid_down(workspace, version, folder, say)
    with made.lock(say) as lock:
        layout.clear_remains(made)
        _bring(workspace, made, embeddings=reuse_embeddings)
        made.write_fingerprints()
        code, inputs = _code(made, version), _inputs(made, version)
        for text in [code["note"], *(each["note"] for each in inputs)]:
            if text:
                say(text)
        say(f"Fetching the dataset {version.tags['data_digest']}.")
        dvc.pull_dataset(made)
        names = dvc.stages(made)
        with Stages(made, names, lock) as stages:
            for name in names:
                say(f"Stage {name}.")
                stages.wait(name)
        result = {
            "version": version.number,
            "folder": str(made.root),
            **compare(registry, version, made),
            "code": code,
            "inputs": inputs,
        }
        write_atomic(made.release / "reproduction.json", json.dumps(result, indent=1).encode())
    return result


def planned(workspace: Workspace, name: str, into: Path | None = None) -> dict[str, Any]:
    """What `reproduce` would make again and where, and what it raises before it begins; nothing is written."""
    _, version, folder = _chosen(workspace, name, into)
    begun = _begun(workspace, version, folder)
    commit = _commit(workspace, version)
    return {
        "version": version.number,
        "folder": str(folder),
        "begun": begun,
        "commit": commit,
        "data_digest": version.tags.get("data_digest"),
        "stages": dvc.stages(workspace),
        "dry_run": True,
    }


def _chosen(workspace: Workspace, name: str, into: Path | None) -> tuple[Registry, Version, Path]:
    dvc.require(workspace)
    registry = registry_of(workspace)
    version = version_called(workspace, name)
    _check_data(workspace, registry, version)
    folder = into or workspace.root.parent / f"{workspace.root.name}-v{version.number}"
    return registry, version, resolved(folder)


def _check_data(workspace: Workspace, registry: Registry, version: Version) -> None:
    """Raises DataGone where pictures of the version were removed on purpose."""
    removed = removal.read(workspace.removed)
    manifest = registry.artifact(version, "manifest.parquet")
    if not removed or manifest is None:
        return
    if gone := removed & set(pd.read_parquet(manifest, columns=["id"])["id"]):
        raise DataGone(
            f"version {version.number} cannot be made again: {len(gone)} of the pictures it was made with were "
            "removed by `ayeaye data remove`, and its data with them; later versions still can"
        )


def _mark(workspace: Workspace, version: Version) -> dict[str, Any]:
    return {"of": workspace.identity, "version": version.number, "bundle": version.bundle_digest}


def _begun(workspace: Workspace, version: Version, folder: Path) -> bool:
    """Whether `folder` is the workspace of an earlier call; raises WorkspaceError where it is anything else."""
    mark = Workspace(folder).state / MARK
    if mark.is_file() and json.loads(mark.read_bytes()) == _mark(workspace, version):
        return True
    if folder.is_relative_to(workspace.root):
        raise WorkspaceError(
            f"{folder} lies in the workspace itself: give a folder outside of it with --into"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkspaceError(
            f"{folder} is there already, and not to reproduce version {version.number} of {workspace.root}: "
            "give another folder with --into"
        )
    return False


def _commit(workspace: Workspace, version: Version) -> str:
    """Of a version; raises WorkspaceError where the history does not hold it."""
    commit = version.tags.get("git_commit", "")
    if not commit or not git.has_commit(workspace, commit):
        raise WorkspaceError(
            f"commit {commit or '(none)'} of version {version.number} is not in the history of {workspace.root}: "
            "fetch it"
        )
    return commit


def _laid_down(workspace: Workspace, version: Version, folder: Path, say: Say) -> Workspace:
    """The workspace in `folder`, made by one rename where it is not there yet."""
    made = Workspace(folder)
    if _begun(workspace, version, folder):
        return made
    commit = _commit(workspace, version)
    say(f"Laying down {folder} as of commit {commit[:12]}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for remains in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
        shutil.rmtree(remains, ignore_errors=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        laid = commits.clone(workspace, commit, part)
        _point_outside(workspace, laid)
        write_atomic(laid.state / MARK, json.dumps(_mark(workspace, version)).encode())
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _point_outside(workspace: Workspace, made: Workspace) -> None:
    """Make the names of files absolute that are relative to the original and not in its history."""
    chosen = params.load(made.root / "params.yaml")
    given: dict[str, str | None] = {
        "embed.weights": chosen.embed.weights,
        "embed.pretrained_on": chosen.embed.pretrained_on,
        "embed.hierarchy": chosen.embed.hierarchy,
        "classes.corpus": chosen.classes.corpus,
    }
    vectors = chosen.classes.vectors
    if isinstance(vectors, str):
        given["classes.vectors"] = vectors
    moved = {key: _outside(workspace, made, path) for key, path in given.items() if path}
    settings = [f"{key}={path}" for key, path in moved.items() if path]
    if isinstance(vectors, dict):
        files = {source: _outside(workspace, made, path) or path for source, path in vectors.items()}
        if files != vectors:
            settings.append(f"classes.vectors={json.dumps(files, ensure_ascii=False)}")
    if settings:
        params.assign(made.root / "params.yaml", settings)


def _outside(workspace: Workspace, made: Workspace, path: str) -> str | None:
    if path in KEPT_WORDS or expanded(path).is_absolute() or made.resolve(path).exists():
        return None
    there = workspace.resolve(path)
    return str(there) if there.is_file() else None


def _bring(workspace: Workspace, made: Workspace, *, embeddings: bool) -> None:
    """Which engine was chosen is a decision of the version, not a result: tried anew, another may win by a hair."""
    for kind in ("engines", *(("embeddings", "backbones") if embeddings else ())):
        for path in (workspace.state / kind).rglob("*"):
            target = made.state / kind / path.relative_to(workspace.state / kind)
            if path.is_file() and not path.name.startswith(".") and not target.exists():
                link(path, target)


# What has changed since


def _code(made: Workspace, version: Version) -> dict[str, Any]:
    """Whether the code of the stages is the one that the version was made with, and how to get that."""
    recorded = commits.recorded_params(made, "HEAD", ".ayeaye/code.yaml")
    changed = sorted(stage for stage, now in made.fingerprints().items() if recorded.get(stage) != now)
    then, commit = version.tags.get("ayeaye_version"), version.tags.get("code_commit")
    note = ""
    if changed:
        of = f"ayeaye {then or 'of an unknown version'}" + (f" at commit {commit}" if commit else "")
        how = f"git checkout {commit.removesuffix('+changes')}" if commit else f"pip install ayeaye=={then}"
        note = (
            f"The code of {', '.join(changed)} is not the one of version {version.number} ({of}); "
            f"installed is ayeaye {__version__}. With `{how}`, in another environment, it would be."
        )
    return {
        "then": then,
        "commit": commit,
        "now": __version__,
        "commit_now": git.code_commit(),
        "changed": changed,
        "note": note,
    }


def _inputs(made: Workspace, version: Version) -> list[dict[str, str]]:
    """Files outside the workspace that are not as they were when the version was made."""
    recorded = commits.recorded_params(made, "HEAD", ".ayeaye/inputs.yaml")
    changed = []
    for stage, now in made.inputs().items():
        before, after = (_by_name(each) for each in (recorded.get(stage, ""), now))
        for name in sorted(before.keys() | after.keys()):
            then, found = before.get(name, "none"), after.get(name, "none")
            if then != found:
                what = "is not there" if found == "no file" else "has changed"
                note = (
                    f"The file {name} that stage {stage} reads {what} since version {version.number} was made: "
                    f"SHA-256 {then} then, {found} now."
                )
                changed.append({"stage": stage, "name": name, "then": then, "now": found, "note": note})
    return changed


def _by_name(digests: str) -> dict[str, str]:
    """Of `weights=1a2b… corpus=no file`; none of `none`."""
    found: dict[str, str] = {}
    for part in digests.split(" "):
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
        elif found and part:  # "no file"
            found[next(reversed(found))] += f" {part}"
    return found


# What came of it


def compare(registry: Registry, version: Version, made: Workspace) -> dict[str, Any]:
    """A version as it is registered and what a workspace made of it: bundle, labels of test pictures, figures."""
    bundle = digest(made.classifier)
    recorded = registry.metrics(version)
    figures = flat(json.loads((made.reports / "metrics.json").read_bytes()))
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "recorded": recorded.get(name),
            "reproduced": figures.get(name),
            "difference": _difference(recorded.get(name), figures.get(name)),
        }
        for name in HEADLINE
    ]
    before = registry.artifact(version, "predictions.parquet")
    labels = before and _labels(
        pd.read_parquet(before), pd.read_parquet(made.reports / "predictions.parquet")
    )
    differences = [
        f"{row['name']} is {_shown(row['reproduced'])} in place of {_shown(row['recorded'])}"
        for row in rows
        if row["difference"] is None or row["difference"] > FIGURES
    ]
    same = bundle == version.bundle_digest
    if not same and labels is None:
        differences.append("the bundle differs, and the version keeps no predictions to compare labels with")
    elif labels and labels["share"] < LABELS:
        differences.append(
            f"{labels['pictures'] - labels['equal']} of {labels['pictures']} test pictures get another label"
        )
    verdict = "different" if differences else "identical" if same else "equivalent"
    return {
        "verdict": verdict,
        "differences": differences,
        "bundle": {"recorded": version.bundle_digest, "reproduced": bundle},
        "labels": labels,
        "metrics": rows,
    }


def _labels(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """How many test pictures, fold by fold, get the same answer; one that only one side has counts as different."""
    both = before.merge(after, on=["id", "fold"], how="outer", suffixes=("_before", "_after"))
    equal = int((both["answer_before"] == both["answer_after"]).sum())
    return {"pictures": len(both), "equal": equal, "share": equal / len(both) if len(both) else 1.0}


def _difference(before: float | None, after: float | None) -> float | None:
    """None where only one of them is a number."""
    if before is None and after is None:
        return 0.0
    return None if before is None or after is None else abs(before - after)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def summary(result: Mapping[str, Any]) -> str:
    """In words."""
    bundle, labels = result["bundle"], result["labels"]
    same = bundle["recorded"] == bundle["reproduced"]
    facts = ["the same bundle, bit by bit" if same else "another bundle"]
    if labels and not same:
        facts.append(f"{labels['equal']} of {labels['pictures']} labels equal")
    made = f"Version {result['version']}, made again in {result['folder']}, is {result['verdict']}"
    return f"{made}: {'; '.join([*facts, *result['differences']])}."
