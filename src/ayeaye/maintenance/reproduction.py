"""A registered version made again from what it names: its commit, its dataset, and what was measured then."""

from __future__ import annotations

import glob
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

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
from ayeaye.version import __version__
from ayeaye.versioning import commits, dvc, git, layout
from ayeaye.versioning.running import Stages

Say = Callable[[str], None]
EQUAL_LABELS = 0.999  # share of labels from which two bundles are equivalent
EQUAL_FIGURES = 0.002  # difference of a figure up to which they are
MARK = "reproduction.json"  # in the state of a workspace that was made to reproduce a version
KEPT_WORDS = ("train", "imagenet-1k")  # what stands in params.yaml in place of a file
_INPUT = re.compile(r"([^\s=]+)=(no file|\S+)")  # of `weights=1a2b… corpus=no file`


@dataclass(frozen=True)
class Figure:
    """A figure as recorded and as measured now. `difference` is None if only one of them is a number."""

    name: str
    recorded: float | None
    reproduced: float | None
    difference: float | None

    @classmethod
    def of(cls, name: str, recorded: float | None, reproduced: float | None) -> Figure:
        if recorded is None or reproduced is None:
            return cls(name, recorded, reproduced, 0.0 if recorded == reproduced else None)
        return cls(name, recorded, reproduced, abs(recorded - reproduced))


@dataclass(frozen=True)
class LabelAgreement:
    """How many test images, fold by fold, get the same answer; one that only one side has counts as different."""

    pictures: int
    equal: int
    share: float

    @classmethod
    def of(cls, before: pd.DataFrame, after: pd.DataFrame) -> LabelAgreement:
        """Compare two tables of predictions, with the columns id, fold and answer."""
        both = before.merge(after, on=["id", "fold"], how="outer", suffixes=("_before", "_after"))
        equal = int((both["answer_before"] == both["answer_after"]).sum())
        return cls(len(both), equal, equal / len(both) if len(both) else 1.0)


@dataclass(frozen=True)
class Comparison:
    """A version as it is registered, and what a workspace made of it.

    `verdict` is `identical` (the same bundle, bit by bit, and the same figures), `equivalent` (labels agree to
    EQUAL_LABELS and figures to EQUAL_FIGURES) or `different`, with `differences` saying where.
    """

    verdict: str
    differences: list[str]
    bundle: dict[str, str]
    labels: LabelAgreement | None
    metrics: list[Figure]


@dataclass(frozen=True)
class Code:
    """Whether the code of the stages is the one that a version was made with, and how to get that."""

    then: str | None
    commit: str | None
    now: str
    commit_now: str | None
    changed: list[str]
    note: str


@dataclass(frozen=True)
class ChangedInput:
    """A file outside the workspace that is not as it was when the version was made."""

    stage: str
    name: str
    then: str
    now: str
    note: str


@dataclass(frozen=True)
class Reproduction(Comparison):
    """A version that was made again in `folder`."""

    version: int
    folder: str
    code: Code
    inputs: list[ChangedInput]

    def summary(self) -> str:
        """Return the outcome in a sentence."""
        same = self.bundle["recorded"] == self.bundle["reproduced"]
        facts = ["the same bundle, bit by bit" if same else "another bundle"]
        if self.labels and not same:
            facts.append(f"{self.labels.equal} of {self.labels.pictures} labels equal")
        said = "; ".join([*facts, *self.differences])
        return f"Version {self.version}, made again in {self.folder}, is {self.verdict}: {said}."


@dataclass(frozen=True)
class Planned:
    """What `reproduce` would make again, and where; `begun`: an earlier call has begun."""

    version: int
    folder: str
    begun: bool
    commit: str
    data_digest: str | None
    stages: list[str]
    dry_run: bool = True


def reproduce(
    workspace: Workspace,
    name: str,
    into: Path | None = None,
    *,
    reuse_embeddings: bool = False,
    say: Say = lambda text: None,
) -> Reproduction:
    """Train a version again in a workspace of its own, and compare what comes of it.

    `name` is a number or an alias; `into` is the folder of the new workspace, by default beside this one. This
    one is only read, without its lock: a retrain may run meanwhile. Killed anywhere, the next call goes on.

    Raises RegistryError and ReleaseError for an unknown version, WorkspaceError where its commit or the folder
    cannot be used, DataGone where its data no longer exist, and what a stage raises.
    """
    case = _Case.of(workspace, name, into)
    version, made = case.version, case.lay_down(say)
    with made.lock(say) as lock:
        layout.clear_remains(made)
        case.bring_caches(reuse_embeddings)
        made.write_fingerprints()
        code, inputs = compare_code(made, version), compare_inputs(made, version)
        for text in filter(None, [code.note, *(each.note for each in inputs)]):
            say(text)
        say(f"Fetching the dataset {version.tags['data_digest']}.")
        dvc.pull_dataset(made)
        names = dvc.stages(made)
        with Stages(made, names, lock) as stages:
            for stage in names:
                say(f"Stage {stage}.")
                stages.wait(stage)
        found = compare(case.registry, version, made)
        result = Reproduction(
            **vars(found), version=version.number, folder=str(made.root), code=code, inputs=inputs
        )
        write_atomic(made.release / MARK, json.dumps(asdict(result), indent=1).encode())
    return result


def planned(workspace: Workspace, name: str, into: Path | None = None) -> Planned:
    """Return what `reproduce` would do; raises what it raises before it begins. Nothing is written."""
    case = _Case.of(workspace, name, into)
    return Planned(
        version=case.version.number,
        folder=str(case.folder),
        begun=case.begun(),
        commit=case.commit(),
        data_digest=case.version.tags.get("data_digest"),
        stages=dvc.stages(workspace),
    )


@dataclass(frozen=True)
class _Case:
    """A version of a workspace that is made again in a folder."""

    workspace: Workspace
    registry: Registry
    version: Version
    folder: Path

    @classmethod
    def of(cls, workspace: Workspace, name: str, into: Path | None) -> _Case:
        dvc.require(workspace)
        registry, version = registry_of(workspace), version_called(workspace, name)
        removed, manifest = removal.read(workspace.removed), registry.artifact(version, "manifest.parquet")
        if removed and manifest and (gone := removed & set(pd.read_parquet(manifest, columns=["id"])["id"])):
            raise DataGone(
                f"version {version.number} cannot be made again: {len(gone)} of the images it was made with were "
                "removed by `ayeaye data remove`, and its data with them; later versions still can"
            )
        folder = into or workspace.root.parent / f"{workspace.root.name}-v{version.number}"
        return cls(workspace, registry, version, resolved(folder))

    @property
    def _mark(self) -> dict[str, str | int]:
        version = self.version
        return {"of": self.workspace.identity, "version": version.number, "bundle": version.bundle_digest}

    def begun(self) -> bool:
        """Whether `folder` is the workspace of an earlier call; raises WorkspaceError if it is anything else."""
        folder, mark = self.folder, Workspace(self.folder).state / MARK
        if mark.is_file() and json.loads(mark.read_bytes()) == self._mark:
            return True
        if folder.is_relative_to(self.workspace.root):
            raise WorkspaceError(
                f"{folder} lies in the workspace itself: give a folder outside of it with --into"
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError(
                f"{folder} is there already, and not to reproduce version {self.version.number} of "
                f"{self.workspace.root}: give another folder with --into"
            )
        return False

    def commit(self) -> str:
        """Return the version's commit; raises WorkspaceError where the history does not hold it."""
        commit = self.version.tags.get("git_commit", "")
        if not commit or not git.has_commit(self.workspace, commit):
            raise WorkspaceError(
                f"commit {commit or '(none)'} of version {self.version.number} is not in the history of "
                f"{self.workspace.root}: fetch it"
            )
        return commit

    def lay_down(self, say: Say) -> Workspace:
        """Return the workspace in `folder`, made by one rename where it is not there yet."""
        folder = self.folder
        if self.begun():
            return Workspace(folder)
        commit = self.commit()
        say(f"Laying down {folder} as of commit {commit[:12]}.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        for remains in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
            shutil.rmtree(remains, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        try:
            laid = commits.clone(self.workspace, commit, part)
            self._point_outside(laid)
            write_atomic(laid.state / MARK, json.dumps(self._mark).encode())
            part.chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return Workspace(folder)

    def bring_caches(self, embeddings: bool) -> None:
        """Link what was computed; the choice of an engine too, since another may win by a hair if tried anew."""
        state, made = self.workspace.state, Workspace(self.folder).state
        for kind in ("engines", *(("embeddings", "backbones") if embeddings else ())):
            for path in (state / kind).rglob("*"):
                target = made / path.relative_to(state)
                if path.is_file() and not path.name.startswith(".") and not target.exists():
                    link(path, target)

    def _point_outside(self, made: Workspace) -> None:
        """Make the names of files absolute that are relative to the original and not in its history."""
        chosen = params.load(made.root / "params.yaml")
        vectors = chosen.classes.vectors
        given = {
            "embed.weights": chosen.embed.weights,
            "embed.pretrained_on": chosen.embed.pretrained_on,
            "embed.hierarchy": chosen.embed.hierarchy,
            "classes.corpus": chosen.classes.corpus,
            "classes.vectors": vectors if isinstance(vectors, str) else None,
        }
        moved = {key: self._outside(made, path) for key, path in given.items() if path}
        settings = [f"{key}={path}" for key, path in moved.items() if path != given[key]]
        if isinstance(vectors, dict):
            files = {source: self._outside(made, path) for source, path in vectors.items()}
            if files != vectors:
                settings.append(f"classes.vectors={json.dumps(files, ensure_ascii=False)}")
        if settings:
            params.assign(made.root / "params.yaml", settings)

    def _outside(self, made: Workspace, path: str) -> str:
        if path in KEPT_WORDS or expanded(path).is_absolute() or made.resolve(path).exists():
            return path
        there = self.workspace.resolve(path)
        return str(there) if there.is_file() else path


# What has changed since


def compare_code(made: Workspace, version: Version) -> Code:
    """Compare the code of the stages with that which a version was made with."""
    recorded = commits.recorded_params(made, "HEAD", ".ayeaye/code.yaml")
    changed = sorted(stage for stage, now in made.fingerprints().items() if recorded.get(stage) != now)
    then, commit = version.tags.get("ayeaye_version"), version.tags.get("code_commit")
    note = ""
    if changed:
        of = f"ayeaye {then or 'of an unknown version'}" + (f" at commit {commit}" if commit else "")
        how = (
            f"git checkout {commit.removesuffix('+changes')}" if commit else f"pip install ayeaye-zsl=={then}"
        )
        note = (
            f"The code of {', '.join(changed)} is not the one of version {version.number} ({of}); "
            f"installed is ayeaye {__version__}. With `{how}`, in another environment, it would be."
        )
    return Code(then, commit, __version__, git.code_commit(), changed, note)


def compare_inputs(made: Workspace, version: Version) -> list[ChangedInput]:
    """Return the files outside the workspace that are not as they were when the version was made."""
    recorded = commits.recorded_params(made, "HEAD", ".ayeaye/inputs.yaml")
    changed = []
    for stage, now in made.inputs().items():
        before, after = (dict(_INPUT.findall(each)) for each in (recorded.get(stage, ""), now))
        for name in sorted(before.keys() | after.keys()):
            then, found = before.get(name, "none"), after.get(name, "none")
            if then != found:
                what = "is not there" if found == "no file" else "has changed"
                note = (
                    f"The file {name} that stage {stage} reads {what} since version {version.number} was made: "
                    f"SHA-256 {then} then, {found} now."
                )
                changed.append(ChangedInput(stage, name, then, found, note))
    return changed


def compare(registry: Registry, version: Version, made: Workspace) -> Comparison:
    """Compare bundle, labels of test images and figures of a version with what a workspace made of it."""
    bundle, recorded = digest(made.classifier), registry.metrics(version)
    measured = flat(json.loads((made.reports / "metrics.json").read_bytes()))
    figures = [Figure.of(name, recorded.get(name), measured.get(name)) for name in HEADLINE]
    before, labels = registry.artifact(version, "predictions.parquet"), None
    if before:
        labels = LabelAgreement.of(*map(pd.read_parquet, (before, made.reports / "predictions.parquet")))
    differences = [
        f"{each.name} is {_shown(each.reproduced)} in place of {_shown(each.recorded)}"
        for each in figures
        if each.difference is None or each.difference > EQUAL_FIGURES
    ]
    same = bundle == version.bundle_digest
    if not same and labels is None:
        differences.append("the bundle differs, and the version keeps no predictions to compare labels with")
    elif labels and labels.share < EQUAL_LABELS:
        differences.append(
            f"{labels.pictures - labels.equal} of {labels.pictures} test images get another label"
        )
    verdict = "different" if differences else "identical" if same else "equivalent"
    bundles = {"recorded": version.bundle_digest, "reproduced": bundle}
    return Comparison(verdict, differences, bundles, labels, figures)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
