"""The registry in MLflow: a run per training, and a version per bundle.

    home        the workspace's folder for state (.ayeaye/mlflow): mlflow.db, artifacts, fetched bundles; files are
                found through it (`ayeaye.release.artifacts`), wherever the workspace lies
    run         params, metrics, the dataset, pictures and report, the decision and the card, `model/` with MLmodel
                and the bundle
    version     source: the run's `model/`; its card as the description; tags: bundle_digest (its identity),
                data_digest, git_commit, workspace (whose it is), …
    alias       champion, previous; challenger while a candidate is judged and tried

`model/` is a genuine MLflow model (`mlflow.pyfunc.load_model("models:/ayeaye@champion")` works, see
`ayeaye.release.pyfunc`) written as plain artifacts of the run: `log_model` would make an entity of its own
that a killed run leaves behind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from ayeaye.core.errors import RegistryError, ReleaseError
from ayeaye.core.files import digest_folder, replacing, sync_folder
from ayeaye.core.paths import sqlite_path, sqlite_uri
from ayeaye.release.artifacts import LOCATION, SCHEME, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

CHAMPION, PREVIOUS, CHALLENGER = ("champion", "previous", "challenger")
REMOVED = "removed"  # the tag, with the time, of a version without its bundle
# Small files that stay of it: what a reproduction is held against, how it was decided, and its card.
EVIDENCE = ("manifest.parquet", "metrics.json", "predictions.parquet", "decision.json",
            "card.html", "card.json", "card.md")  # fmt: skip

# Fail in seconds where MLflow's own defaults would retry for minutes. A person's settings win.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_REACH_SECONDS = 5
_PARAMS_AT_ONCE = 100
_PARAM_CHARACTERS = 6000
_DIGEST_CHARACTERS = 36  # MLflow's column; the whole digest stands in the version's tags


@dataclass(frozen=True)
class Training:
    """What one training left behind, ready to be recorded.

    pictures are files for the run's page (plots, the report, predictions.parquet); dataset has `name`,
    `digest`, `source`, and what else describes it; tags carry data_digest, git_commit, params_digest, lock.
    """

    bundle_folder: Path
    bundle_digest: str
    evaluation_digest: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    dataset: Mapping[str, Any]
    pictures: list[Path] = field(default_factory=list)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """One registered model."""

    number: int
    run_id: str
    created: float
    tags: dict[str, str]
    aliases: tuple[str, ...] = ()

    @property
    def bundle_digest(self) -> str:
        return self.tags.get("bundle_digest", "")


class Registry:
    """MLflow at `uri` (None: SQLite in `home`), for one registered model of one workspace, the `owner`.

    Raises RegistryError, within seconds, when MLflow cannot be reached or answers with an error, and
    ReleaseError when the model is another workspace's: its aliases can follow one promotion record only.
    A database in `home` is the owner's, whoever that is: it came with the workspace.
    """

    def __init__(self, uri: str | None, model: str, home: Path, owner: str = "") -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        self.model, self.owner = model, owner
        self.home = home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self._own = uri is None
        self.uri = uri or sqlite_uri(self.home / "mlflow.db")
        self._client: MlflowClient | None = None
        self._experiment = ""

    # Recording

    def record(self, training: Training) -> Version:
        """The version of a training's bundle, made where there is none yet.

        A known bundle keeps its version, and takes on the figures of a new evaluation. What a killed call
        left is finished: the run carries the bundle's digest from its first moment, and the version appears
        last and in one piece.
        """
        with self._asking("record the training"), FileLock(self.home / "registry.lock"):
            known = self._find(training.bundle_digest)
            if known:
                self._reevaluate(known, training)
                return self.version(known.number)
            run = self._unfinished(training) or self._begin(training)
            self._fill(run, training)
            self._open().set_terminated(run.info.run_id)
            return self._register(run, training)

    def _find(self, bundle_digest: str) -> Version | None:
        query = f"name = '{self.model}' and tags.bundle_digest = '{_plain(bundle_digest)}'"
        found = self._open().search_model_versions(query)
        # A kill cannot make two, but a person can: the first one stays the bundle's version.
        first = min(found, key=lambda version: int(version.version), default=None)
        return _version(first) if first else None

    def _unfinished(self, training: Training) -> Run | None:
        query = f"tags.bundle_digest = '{_plain(training.bundle_digest)}'"
        runs = self._open().search_runs([self._experiment], query, order_by=["attributes.start_time ASC"])
        return runs[0] if runs else None

    def _begin(self, training: Training) -> Run:
        name = f"{self.model} {training.bundle_digest[:8]}"
        tags = {**training.tags, "bundle_digest": training.bundle_digest}
        return self._open().create_run(self._experiment, tags=tags, run_name=name)

    def _fill(self, run: Run, training: Training) -> None:
        from mlflow.entities import Param

        run_id, client = run.info.run_id, self._open()
        there = run.data.params
        params = [
            Param(key, str(value)[:_PARAM_CHARACTERS])
            for key, value in training.params.items()
            if key not in there
        ]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
        self._log_evaluation(run, training)
        files = self._files(run)
        with tempfile.TemporaryDirectory(dir=self.home) as folder:
            _write_mlmodel(Path(folder), run_id)
            files.log_artifacts(folder, "model")
        files.log_artifacts(str(training.bundle_folder), "model/bundle")

    def _log_evaluation(self, run: Run, training: Training) -> None:
        from mlflow.entities import Metric, RunTag

        run_id, client, now = run.info.run_id, self._open(), int(time.time() * 1000)
        files = self._files(run)
        client.log_inputs(run_id, [_dataset(training.dataset)])
        for path in training.pictures:
            # An .html, .png or .parquet shows under its own name; folders keep theirs.
            if path.is_dir():
                files.log_artifacts(str(path), path.name)
            else:
                files.log_artifact(str(path))
        figures = flat(training.metrics)
        # MLflow forgets no figure: one that an earlier evaluation had and this one lacks is no number now.
        gone = client.get_run(run_id).data.metrics.keys() - figures.keys()
        figures |= dict.fromkeys(gone, math.nan)
        metrics = [Metric(key, value, now, 0) for key, value in figures.items()]
        client.log_batch(
            run_id, metrics=metrics, tags=[RunTag("evaluation_digest", training.evaluation_digest)]
        )

    def _reevaluate(self, known: Version, training: Training) -> None:
        run = self._open().get_run(known.run_id)
        if REMOVED in known.tags:
            self._fill(run, training)
            self.untag(known, REMOVED)
        self._restore(run, training)
        if run.data.tags.get("evaluation_digest") != training.evaluation_digest:
            self._log_evaluation(run, training)
        if known.tags.get("evaluation_digest") != training.evaluation_digest:
            # The digest last: a call that is killed before it is made again.
            self.tag(known.number, **training.tags, evaluation_digest=training.evaluation_digest)

    def _restore(self, run: Run, training: Training) -> None:
        """Put the bundle back where it was lost or damaged, as the errors about it promise."""
        local = self._folder(run)
        if local and digest_folder(local / "model" / "bundle") != training.bundle_digest:
            self._put_bundle(run, training.bundle_folder)

    def restore_bundle(self, version: Version, folder: Path) -> None:
        """Put a version's bundle back from a copy of it."""
        self.forget_fetched(version)
        with self._asking(f"put back the bundle of version {version.number}"):
            self._put_bundle(self._open().get_run(version.run_id), folder)

    def _put_bundle(self, run: Run, folder: Path) -> None:
        if local := self._folder(run):
            shutil.rmtree(local / "model" / "bundle", ignore_errors=True)
        self._files(run).log_artifacts(str(folder), "model/bundle")

    def _register(self, run: Run, training: Training) -> Version:
        from mlflow.exceptions import MlflowException

        client = self._open()
        try:
            client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {
            **training.tags,
            "bundle_digest": training.bundle_digest,
            "evaluation_digest": training.evaluation_digest,
            "workspace": self.owner,
        }
        source = f"{run.info.artifact_uri.rstrip('/')}/model"
        made = client.create_model_version(
            self.model, source, run.info.run_id, tags=tags, await_creation_for=None
        )
        return self.version(int(made.version))

    # Reading

    def versions(self) -> list[Version]:
        """Every version with its aliases, the newest first; none when nothing was registered yet."""
        with self._asking("list the versions"):
            found = self._open().search_model_versions(f"name = '{self.model}'", max_results=10_000)
            aliases = self._aliases() if found else {}
            versions = [_version(each, aliases) for each in found]
            return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        """One version with its aliases; raises RegistryError naming the known ones."""
        from mlflow.exceptions import MlflowException

        with self._asking(f"read version {number}"):
            try:
                found = self._open().get_model_version(self.model, str(number))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                known = ", ".join(str(each.number) for each in self.versions()[:10]) or "none"
                raise RegistryError(
                    f"{self.model} has no version {number}; known, newest first: {known}"
                ) from None
            return _version(found, self._aliases())

    def alias(self, name: str) -> Version | None:
        """The version an alias points to, if any."""
        with self._asking(f"read the alias {name}"):
            number = self._aliases().get(name)
            return None if number is None else self.version(number)

    def metrics(self, version: Version | int) -> dict[str, float]:
        """The newest figures of a version's run, flat: `hubness.excess` and the like."""
        with self._asking("read the metrics"):
            figures = self._open().get_run(self._number(version).run_id).data.metrics
            return {name: value for name, value in figures.items() if math.isfinite(value)}

    def params(self, version: Version | int) -> dict[str, str]:
        """The parameters of a version's run, flat and as text: `train.mapper` and the like."""
        with self._asking("read the parameters"):
            return dict(self._open().get_run(self._number(version).run_id).data.params)

    def dataset(self, version: Version | int) -> dict[str, Any]:
        """What a version was trained on, as `Training.dataset` had it; empty where that is not recorded."""
        version = self._number(version)
        with self._asking("read the dataset"):
            inputs = self._open().get_run(version.run_id).inputs.dataset_inputs
            digest = version.tags.get("data_digest", "")
            for each in (one.dataset for one in inputs):
                if each.digest == digest[:_DIGEST_CHARACTERS]:
                    return {"name": each.name, "digest": digest, **json.loads(each.profile or "{}")}
            return {}

    def bundle(self, version: Version | int) -> Path:
        """A folder with a version's bundle: where it lies, or fetched whole to `home/bundles`."""
        version = self._number(version)
        with self._asking(f"fetch the bundle of version {version.number}"):
            if local := self._folder(self._run(version)):
                folder = local / "model" / "bundle"
                if not folder.is_dir():
                    raise RegistryError(
                        f"the bundle of version {version.number} is gone from {folder}: "
                        "retrain to make it again"
                    )
                return folder
            return self._fetched(version)

    def artifact(self, version: Version | int, name: str) -> Path | None:
        """One file of a version's run, in place or fetched to `home/artifacts-of`; None if there is none.

        `name` may lie in a folder: `plots/hubness.png`.
        """
        version = self._number(version)
        with self._asking(f"read {name}"):
            run = self._run(version)
            if local := self._folder(run):
                return local / name if (local / name).is_file() else None
            files, above = self._files(run), name.rpartition("/")[0] or None
            if name not in {each.path for each in files.list_artifacts(above)}:
                return None
            folder = self.home / "artifacts-of" / version.run_id
            folder.mkdir(parents=True, exist_ok=True)
            return Path(files.download_artifacts(name, str(folder)))

    def artifacts(self, version: Version | int) -> dict[str, int]:
        """Bytes of every file of a version's run, by path."""
        version = self._number(version)
        with self._asking(f"list the artifacts of version {version.number}"):
            files, found, waiting = self._files(self._run(version)), dict[str, int](), [""]
            while waiting:
                for each in files.list_artifacts(waiting.pop() or None):
                    if each.is_dir:
                        waiting.append(each.path)
                    else:
                        found[each.path] = int(each.file_size or 0)
            return found

    def forget_fetched(self, version: Version) -> None:
        """Remove the local copy of a bundle that was fetched: the next call fetches it anew."""
        shutil.rmtree(self._fetched_to(version), ignore_errors=True)

    def _fetched_to(self, version: Version) -> Path:
        return self.home / "bundles" / (version.bundle_digest[:16] or version.run_id)

    def _fetched(self, version: Version) -> Path:
        folder = self._fetched_to(version)
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".fetch-"))
        try:
            fetched = Path(self._files(self._run(version)).download_artifacts("model/bundle", str(part)))
            try:
                fetched.rename(folder)
            except OSError:
                # Another process was first.
                if not folder.is_dir():
                    raise
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder

    # Changing

    def set_alias(self, name: str, version: Version | int | None) -> None:
        """Point an alias to a version, or nowhere; read again afterwards, since MLflow's is a blind write."""
        number = version.number if isinstance(version, Version) else version
        with self._asking(f"set the alias {name}"):
            if self._aliases().get(name) == number:
                return
            if number is None:
                self._open().delete_registered_model_alias(self.model, name)
            else:
                self.version(number)
                self._open().set_registered_model_alias(self.model, name, str(number))
            now = self._aliases().get(name)
            if now != number:
                raise RegistryError(
                    f"the alias {name} of {self.model} should be {number} but is {now}: "
                    "another writer is at work; run it again"
                )

    def tag(self, version: Version | int, **tags: str) -> None:
        """Set tags of a version."""
        number = version.number if isinstance(version, Version) else version
        with self._asking(f"tag version {number}"):
            for key, value in tags.items():
                self._open().set_model_version_tag(self.model, str(number), key, str(value))

    def keep(self, version: Version | int, files: Mapping[str, bytes]) -> None:
        """Put files beside a version's run, by their names, in place of earlier ones."""
        version = self._number(version)
        with self._asking("keep files"), tempfile.TemporaryDirectory(dir=self.home) as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._files(self._run(version)).log_artifacts(folder)

    def describe(self, version: Version | int, text: str, files: Mapping[str, bytes]) -> None:
        """Make a text the description of a version, and put the files that say more beside its run.

        Nothing is done where that was done before; what a killed call left is finished.
        """
        number = version.number if isinstance(version, Version) else version
        parts = [text, *(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files.items())]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        with self._asking(f"describe version {number}"):
            current = self.version(number)
            if current.tags.get("card") == digest:
                return
            self.keep(current, files)
            self._open().update_model_version(self.model, str(number), text)
            # Last, as a call that is killed before it is made again.
            self.tag(number, card=digest)

    def untag(self, version: Version | int, *keys: str) -> None:
        """Remove tags of a version where they are set."""
        version = self._number(version)
        with self._asking(f"untag version {version.number}"):
            for key in keys:
                if key in version.tags:
                    self._open().delete_model_version_tag(self.model, str(version.number), key)

    def mark(self, key: str, value: str) -> None:
        """Set a tag of the model itself; there is one once a version was registered."""
        with self._asking(f"tag the model with {key}"):
            if self.marked(key) != value:
                self._open().set_registered_model_tag(self.model, key, value)

    def marked(self, key: str) -> str | None:
        """A tag of the model itself."""
        from mlflow.exceptions import MlflowException

        with self._asking(f"read the tag {key} of the model"):
            try:
                return self._open().get_registered_model(self.model).tags.get(key)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def strip(self, version: Version | int) -> None:
        """Remove the bundle, report and plots of a version; its figures, and EVIDENCE, stay.

        It is tagged REMOVED first, so that nobody promotes what is half gone, until the same bundle is recorded again.
        """
        version = self._number(version)
        if REMOVED not in version.tags:
            self.tag(version, **{REMOVED: datetime.now(UTC).isoformat(timespec="seconds")})
        with self._asking(f"remove the artifacts of version {version.number}"):
            run = self._run(version)
            files, local = self._files(run), self._folder(run)
            for path in [each.path for each in files.list_artifacts() if each.path not in EVIDENCE]:
                # MLflow would take a % in the folder's name for an escape, and remove another folder's files.
                if local and (local / path).is_dir():
                    shutil.rmtree(local / path)
                elif local:
                    (local / path).unlink()
                else:
                    files.delete_artifacts(path)

    # MLflow itself

    def _number(self, version: Version | int) -> Version:
        return version if isinstance(version, Version) else self.version(version)

    def _run(self, version: Version) -> Run:
        return self._open().get_run(version.run_id)

    def _folder(self, run: Run) -> Path | None:
        """Where a run's files lie on this machine; None where MLflow fetches them."""
        parts = urlsplit(run.info.artifact_uri)
        if parts.scheme == SCHEME:
            return resolve(run.info.artifact_uri, self.home)
        return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None

    def _files(self, run: Run) -> ArtifactRepository:
        """A run's files. MLflow's client remembers them by run, which a copied workspace has the same of."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        local = self._folder(run)
        where = local.as_uri() if local else run.info.artifact_uri
        return get_artifact_repository(where, tracking_uri=self.uri, registry_uri=self.uri)

    def _aliases(self) -> dict[str, int]:
        """Of the model: listings of versions leave them out."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._open().get_registered_model(self.model).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {name: int(number) for name, number in found.items()}

    def _open(self) -> MlflowClient:
        """The client, once the other side answers and, for a database, its tables are there."""
        if self._client:
            return self._client
        reach(self.uri)
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        # Two processes that make one database's tables at once break each other.
        with FileLock(self.home / "mlflow.lock"):
            if self.uri.startswith("sqlite"):
                _make_database(self.uri)
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            found = client.get_experiment_by_name(self.model)
            self._check_location(found.artifact_location if found else LOCATION)
            self._experiment = found.experiment_id if found else self._create_experiment(client)
            any_version = client.search_model_versions(f"name = '{self.model}'", max_results=1)
        self._check_owner(any_version[0].tags if any_version else {})
        self._client = client
        return client

    def _check_location(self, location: str) -> None:
        if self._own and urlsplit(location).scheme in ("", "file"):
            raise RegistryError(
                f"the registry in {self.home} is of ayeaye 0.1, whose files lie at {location} and nowhere else: "
                "make a workspace anew with `ayeaye init DIR`"
            )

    def _check_owner(self, tags: Mapping[str, str]) -> None:
        owner = None if self._own else tags.get("workspace")
        if owner and self.owner and owner != self.owner:
            raise ReleaseError(
                f"the model {self.model} at {shown(self.uri)} belongs to another workspace: "
                "set release.model to a name of this one's own"
            )

    def _create_experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        # A server decides where artifacts go; a bare database cannot.
        http = urlsplit(self.uri).scheme in ("http", "https")
        location = None if http else LOCATION
        try:
            return str(client.create_experiment(self.model, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(client.get_experiment_by_name(self.model).experiment_id)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn what MLflow and its transports raise into a RegistryError that says what was asked of whom."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:
            if not _is_mlflows(error):
                raise
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise RegistryError(f"MLflow at {shown(self.uri)} could not {what}: {first}") from error


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures as MLflow takes them: numbers only, `a.b` for a in b; lists of numbers `a.0`, `a.1`."""
    out: dict[str, float] = {}
    for key, value in metrics.items():
        name = re.sub(r"[^\w.\- /]", "_", f"{prefix}{key}")
        if isinstance(value, Mapping):
            out |= flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and len(value) <= 3:
            out |= flat({str(place): each for place, each in enumerate(value)}, f"{name}.")
        elif isinstance(value, bool | int | float) and math.isfinite(value):
            out[name] = float(value)
    return out


def shown(uri: str) -> str:
    """A URI without the password that may be in it; an SQLite file plainly, as people write it."""
    if uri.startswith("sqlite") and (path := sqlite_path(uri)):
        return f"sqlite:///{path}"
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", uri)


def _version(found: Any, aliases: Mapping[str, int] | None = None) -> Version:
    number = int(found.version)
    names = tuple(sorted(name for name, at in (aliases or {}).items() if at == number))
    return Version(number, found.run_id, found.creation_timestamp / 1000, dict(found.tags), names)


def _plain(digest: str) -> str:
    if not re.fullmatch(r"[\w:.-]+", digest):
        raise RegistryError(f"{digest!r} is not a digest: expected letters and digits")
    return digest


def _dataset(dataset: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = str(dataset["digest"])
    more = {key: value for key, value in dataset.items() if key not in ("name", "digest", "source")}
    entity = Dataset(
        name=str(dataset["name"]),
        digest=digest[:_DIGEST_CHARACTERS],
        source_type="dvc",
        source=json.dumps({"uri": str(dataset.get("source", "")), "digest": digest}),
        profile=json.dumps(more, default=str) if more else None,
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def _write_mlmodel(folder: Path, run_id: str) -> None:
    """MLmodel and requirements for `bundle/` beside them."""
    from mlflow import pyfunc
    from mlflow.models import Model

    from ayeaye.version import __version__

    model = Model(artifact_path="model", run_id=run_id)
    pyfunc.add_to_model(model, loader_module="ayeaye.release.pyfunc", data="bundle")
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text(f"ayeaye=={__version__}\n")


def _make_database(uri: str) -> None:
    """Make the tables of a new SQLite database in one piece.

    MLflow makes them in many steps; killed between two of them it could never use the database again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = sqlite_path(uri)
    if path is None or (path.is_file() and path.stat().st_size):
        return
    with replacing(path) as part:
        store = SqlAlchemyStore(sqlite_uri(part), LOCATION)
        store.engine.dispose()


def reach(uri: str) -> None:
    """Raise RegistryError unless the other side of `uri` answers within seconds."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    check: Callable[[str], None]
    if scheme in ("http", "https"):
        check = _reach_server
    elif scheme == "sqlite":
        return
    elif scheme in ("postgresql", "mysql", "mssql"):
        check = _reach_database
    else:
        raise RegistryError(
            f"release.tracking is {uri!r}: expected an http(s) URL of an MLflow server or a database URL; "
            "leave it empty for SQLite in the workspace"
        )
    try:
        check(uri)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise RegistryError(
            f"MLflow cannot be reached at {shown(uri)} ({reason}): start it or set release.tracking; "
            "nothing is lost, run it again then"
        ) from None


def _reach_server(uri: str) -> None:
    import httpx

    answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=_REACH_SECONDS, follow_redirects=True)
    answer.raise_for_status()


def _reach_database(uri: str) -> None:
    import socket

    parts = urlsplit(uri)
    port = parts.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}[parts.scheme.split("+")[0]]
    socket.create_connection((parts.hostname or "localhost", port), timeout=_REACH_SECONDS).close()


def _is_mlflows(error: Exception) -> bool:
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, (MlflowException, SQLAlchemyError, requests.RequestException, OSError))
