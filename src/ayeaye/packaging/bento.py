"""The Bentos of a workspace: each holds the program, a classifier bundle and its settings.

    bentoml/                    BENTOML_HOME of the workspace
      bentos/<name>/<version>/  finished Bentos only: each appears by one rename
      .staging/                 what is being built; the next build removes what a killed one left
      .run/                     working folders of running services, so that none clears another's metrics
      golden/<name>/            the requests that a Bento answered in its smoke test, as JSON

The bundle lies inside the Bento, beside the program: one folder holds all that serves, and `bentoml export`
takes it whole. A Bento's version carries a digest of everything that goes into it (`v3-1a2b3c4d`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ayeaye.core.code_digests import PACKAGE
from ayeaye.core.environment import amended
from ayeaye.core.errors import ReleaseError
from ayeaye.core.files import digest_file, sync_folder, write_atomic
from ayeaye.core.params import Serve
from ayeaye.core.processes import guarded
from ayeaye.data.decode import Limits
from ayeaye.data.samples import Samples

CARD = ("card.md", "card.html")  # beside the bundle
PROGRAM = PACKAGE.resolve().parent  # where this ayeaye is imported from; a Bento must not find it there
_ENTRY = "ayeaye_bento.py"  # where a Bento begins, see ayeaye/service/entry.py
_DIGEST = "src.sha256"  # beside bento.yaml: of what lies in src
_BUILD_SECONDS = 1800


@dataclass(frozen=True)
class Recipe:
    """What goes into a Bento.

    template   a bentofile.yaml
    metrics    the headline for GET /model
    card       the files CARD of the model card, by name
    """

    name: str
    version: int
    bundle: Path
    bundle_digest: str
    template: Path
    serve: Serve = field(default_factory=Serve)
    data_digest: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, bytes] = field(default_factory=dict)

    def tag(self) -> str:
        """Return `name:v<version>-<digest8>`: the same tag whenever the same would be packed."""
        parts = [
            self._settings(),
            self.bundle_digest,
            _digest_files(PACKAGE, without=PACKAGE / "flows"),
            self._bentofile(),
            sys.version_info[:2],
            {name: hashlib.sha256(content).hexdigest() for name, content in self.card.items()},
        ]
        text = json.dumps(parts, sort_keys=True)
        return f"{self.name.lower()}:v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def stage(self, context: Path) -> None:
        """Lay out the folder that `bentoml build` packs."""
        # A service runs no flows.
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "flows")
        shutil.copytree(PACKAGE, context / "ayeaye", ignore=ignored)
        shutil.copyfile(context / "ayeaye" / "service" / "entry.py", context / _ENTRY)
        shutil.copytree(self.bundle, context / "bundle")
        (context / "serve.json").write_text(self._settings())
        for name, content in self.card.items():
            (context / name).write_bytes(content)
        (context / "bentofile.yaml").write_text(self._bentofile())

    def _settings(self) -> str:
        """serve.json, beside the bundle in the Bento."""
        about = {"version": self.version, "data_digest": self.data_digest, "metrics": dict(self.metrics)}
        return json.dumps(about | self.serve.packed, indent=1, default=str)

    def _bentofile(self) -> str:
        """The template with name and labels, the card as its description, and packages pinned as installed."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            content = YAML(typ="safe").load(self.template)
        except (OSError, YAMLError) as error:
            raise ReleaseError(f"{self.template} cannot be read ({error}): restore it with git") from None
        if not isinstance(content, dict) or "service" not in content:
            raise ReleaseError(f"{self.template} names no service: restore it with git")
        labels = {"bundle_digest": self.bundle_digest, "model_version": str(self.version)}
        python = content.get("python") or {}
        content["name"] = self.name.lower()
        content["labels"] = {**(content.get("labels") or {}), **labels}
        content["python"] = {**python, "packages": _pinned(python.get("packages") or ())}
        if "card.md" in self.card:
            content["description"] = self.card["card.md"].decode()
        file = io.StringIO()
        YAML(typ="safe").dump(content, file)
        return file.getvalue()


@dataclass(frozen=True)
class GoldenRequest:
    """A request with a known answer: what `Classifier.classify` gave offline, or None for a 4xx."""

    name: str
    content: bytes
    expected: Mapping[str, Any] | None


@dataclass(frozen=True)
class BentoStore:
    """The Bentos below `home`, a workspace's BENTOML_HOME."""

    home: Path

    def folder(self, tag: str) -> Path:
        """Return where a Bento lies, finished or not there at all."""
        name, colon, version = tag.partition(":")
        if not colon or not name or not version or "/" in tag or ".." in tag:
            raise ReleaseError(f"{tag!r} is not the tag of a Bento: expected name:version")
        return self.home.resolve() / "bentos" / name / version

    def bundle(self, tag: str) -> Path:
        return self.folder(tag) / "src" / "bundle"

    def require(self, tag: str) -> Path:
        """Return the folder of a finished Bento; raises ReleaseError where there is none."""
        folder = self.folder(tag)
        if not (folder / "bento.yaml").is_file():
            raise ReleaseError(f"{tag} is not in {self.home}: make it again with `ayeaye promote VERSION`")
        return folder

    def is_intact(self, tag: str) -> bool:
        """Whether program, bundle and settings of a Bento are there, and as they were packed."""
        try:
            folder = self.require(tag)
            return (folder / _DIGEST).read_text() == _digest_files(folder / "src")
        except (ReleaseError, OSError):
            return False

    def settings(self, tag: str) -> Serve:
        """Return the settings that a Bento was packed with; raises ReleaseError."""
        path = self.require(tag) / "src" / "serve.json"
        try:
            packed = json.loads(path.read_bytes())
            return Serve(**{name: packed[name] for name in Serve().packed})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{path} is damaged ({error}): make it again with `ayeaye promote VERSION`"
            ) from None

    def limits(self, tag: str) -> Limits:
        """Return the largest image that the service in a Bento accepts; raises ReleaseError."""
        settings = self.settings(tag)
        return Limits(settings.max_bytes, settings.max_pixels)

    # Building

    def build(self, recipe: Recipe) -> str:
        """Pack a Bento, unless it is there and intact, and return its tag.

        Raises ReleaseError with BentoML's own reason. Killed at any moment, it leaves no half Bento behind.
        """
        home, tag = self.home.resolve(), recipe.tag()
        home.mkdir(parents=True, exist_ok=True)
        # Only the holder of the lock stages: what lies there now is left of a build that was killed.
        with FileLock(home / "build.lock"):
            shutil.rmtree(home / ".staging", ignore_errors=True)
            if self.is_intact(tag):
                return tag
            try:
                (home / ".staging").mkdir()
                staging = Path(tempfile.mkdtemp(dir=home / ".staging"))
                recipe.stage(staging / "context")
                self._publish(tag, _pack(tag, staging))
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ReleaseError(f"the Bento {tag} cannot be built: {error}") from error
            finally:
                shutil.rmtree(home / ".staging", ignore_errors=True)
        return tag

    def _publish(self, tag: str, built: Path) -> None:
        (built / _DIGEST).write_text(_digest_files(built / "src"))
        final = self.folder(tag)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        built.rename(final)
        sync_folder(final.parent)
        write_atomic(final.parent / "latest", final.name.encode())

    # Golden requests

    def keep_golden(self, tag: str, golden: Sequence[GoldenRequest]) -> None:
        """Keep what a Bento answered in its smoke test, to be asked again when it is to serve.

        They lie beside the Bento, which may leave this machine: they are images of the dataset. Those of Bentos
        that are gone are removed.
        """
        content = [{**asdict(each), "content": base64.b64encode(each.content).decode()} for each in golden]
        path = self._golden_path(tag)
        write_atomic(path, json.dumps(content).encode())
        for other in path.parent.glob("*.json"):
            if not (self.folder(f"{path.parent.name}:{other.stem}") / "bento.yaml").is_file():
                other.unlink(missing_ok=True)

    def kept_golden(self, tag: str) -> list[GoldenRequest]:
        """Return the requests that a Bento answered in its smoke test; none where they are gone."""
        try:
            return _read_golden(self._golden_path(tag))
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def golden(self, tag: str) -> list[GoldenRequest]:
        """Return the kept requests, or else those of the samples in the Bento, whose scores are not known."""
        if kept := self.kept_golden(tag):
            return kept
        samples = Samples.load(self.require(tag) / "src" / "bundle").chosen("try")
        return [
            GoldenRequest(each.label, each.jpeg, {"label": each.label, "alternatives": []})
            for each in samples
        ]

    def golden_with(self, ids: Collection[str]) -> list[Path]:
        """Return the files of kept requests that hold one of these images."""
        return [
            path
            for path in sorted((self.home.resolve() / "golden").glob("*/*.json"))
            if any(hashlib.sha256(each.content).hexdigest() in ids for each in _read_golden(path))
        ]

    def _golden_path(self, tag: str) -> Path:
        folder = self.folder(tag)
        return self.home.resolve() / "golden" / folder.parent.name / f"{folder.name}.json"


def is_running(folder: Path) -> bool:
    """Whether a service runs from a Bento's folder, as far as this system tells."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(folder) in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False


def bentoml_environment(home: Path) -> dict[str, str]:
    """Return the environment of a BentoML process: its home, no telemetry, and none of ayeaye's settings."""
    given = amended(os.environ)
    kept = {key: given[key] for key in given if not key.startswith("AYEAYE_") or key == "AYEAYE_GUARD_PARENT"}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | quiet | {"BENTOML_HOME": str(home)}


def last_error(output: str) -> str:
    """Return the line of a program's output that most likely says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or ["no reason given"])[-1][:300]


def _pack(tag: str, staging: Path) -> Path:
    """Run `bentoml build` on the context in `staging`; return the folder of what it made."""
    home = staging / "home"
    home.mkdir()
    command = [sys.executable, "-m", "bentoml", "build", "context"]
    # Named, since BentoML looks for none in folders with a dot.
    command += ["--bentofile", "context/bentofile.yaml", "--version", tag.partition(":")[2]]
    done = subprocess.run(
        command,
        cwd=staging,
        env=guarded(bentoml_environment(home), hidden=[PROGRAM]),
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode:
        raise ReleaseError(f"the Bento {tag} cannot be built: {last_error(done.stderr or done.stdout)}")
    built = BentoStore(home).folder(tag)
    # BentoML reports success even if it packed nothing.
    for name in (_ENTRY, "ayeaye/service/service.py", "bundle/bundle.json", "serve.json"):
        if not (built / "src" / name).is_file():
            raise ReleaseError(
                f"the Bento {tag} was built without src/{name}: mend `include` in bentofile.yaml"
            )
    return built


def _pinned(packages: Iterable[str]) -> list[str]:
    """Pin these packages and all that they need as installed; one with a version, or not installed, stays."""
    given = {canonicalize_name(each.name): each for each in map(Requirement, packages)}
    pinned = {name: str(each) for name, each in given.items() if each.specifier or each.url}
    waiting = [(name, extra) for name, each in given.items() for extra in ("", *each.extras)]
    seen = set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pinned.setdefault(name, name)
            continue
        # A local suffix such as +cpu is not on the registry.
        pinned.setdefault(name, f"{name}=={found.version.partition('+')[0]}")
        for needed in map(Requirement, found.requires or ()):
            if not needed.marker or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return [pinned[name] for name in sorted(pinned)]


def _digest_files(folder: Path, without: Path | None = None) -> str:
    """SHA-256 of every file below a folder, without what Python compiled and without one folder."""
    lines = [
        f"{path.relative_to(folder)} {digest_file(path)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and without not in path.parents
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_golden(path: Path) -> list[GoldenRequest]:
    kept = json.loads(path.read_bytes())
    return [GoldenRequest(each["name"], base64.b64decode(each["content"]), each["expected"]) for each in kept]
