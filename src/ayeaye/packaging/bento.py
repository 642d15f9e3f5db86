"""Bentos: packed from a staging folder, tried with real requests, served.

    bentoml/                    BENTOML_HOME of the workspace
      bentos/<name>/<version>/  finished ones only: each appears by one rename
      .staging/                 what is being built; what a killed build left is removed by the next
      .run/                     homes of running services, so that none clears another's metrics
      golden/<name>/            the requests that a Bento answered in its trial, as JSON

The bundle lies inside the Bento, beside the program: one folder holds all that serves, and `bentoml export`
takes it whole. A Bento's version carries a digest of everything that goes into it (`v3-1a2b3c4d`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ayeaye
from ayeaye.core.environment import amended
from ayeaye.core.errors import ReleaseError, TrialFailed
from ayeaye.core.files import digest_file, sync_folder, write_atomic
from ayeaye.core.params import STATE_IN_IMAGE, Serve
from ayeaye.core.paths import resolved
from ayeaye.core.processes import (
    await_start,
    claimed_folder,
    free_port,
    guarded,
    remove_unclaimed,
    start,
    stop,
)
from ayeaye.data.decode import Limits
from ayeaye.data.samples import Samples

CLIENT_HEADER = "X-Ayeaye-Client"  # who asks, as the proxy tells the service
TOLERANCE = 1e-4
# Where a service runs, another engine may stand in for the one of the trial.
TOLERANCE_IN_PLACE = 0.05
_BUILD_SECONDS, _ANSWER_SECONDS = 1800, 60
_TRIAL = "ayeaye-trial-"
_DIGEST = "src.sha256"  # beside bento.yaml: of what lies in src
_AGAIN = "make it again with `ayeaye promote VERSION`"
# Where this ayeaye is imported from; a Bento must not find it there.
_PACKAGE = Path(ayeaye.__file__).parent
PROGRAM = _PACKAGE.resolve().parent
_FLOWS = _PACKAGE / "flows"  # a service runs none
CARD = ("card.md", "card.html")  # beside the bundle
_ENTRY = "ayeaye_bento"  # the module, beside the program, where a Bento begins: see ayeaye/service/entry.py
_BROKEN = b"\xff\xd8\xff\xe0 this is not a picture"


@dataclass(frozen=True)
class Recipe:
    """What goes into a Bento; `template` is a bentofile.yaml, `metrics` the headline for GET /model, `card` the
    files card.md and card.html."""

    name: str
    version: int
    bundle: Path
    bundle_digest: str
    template: Path
    serve: Serve = field(default_factory=Serve)
    data_digest: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """serve.json, beside the bundle in the Bento."""
        return {
            "version": self.version,
            "data_digest": self.data_digest,
            "metrics": dict(self.metrics),
            **self.serve.packed,
        }

    def tag(self) -> str:
        """`name:v<version>-<digest8>`; the same whenever the same would be packed."""
        parts = [
            self.settings,
            self.bundle_digest,
            _digest_program(_PACKAGE, without=_FLOWS),
            _bentofile(self),
            sys.version_info[:2],
            [hashlib.sha256(self.card[name]).hexdigest() for name in sorted(self.card)],
        ]
        text = json.dumps(parts, sort_keys=True, default=str)
        return f"{self.name.lower()}:v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Golden:
    """A request whose answer is known: what `Classifier.classify` gave offline, or None for a 4xx."""

    name: str
    content: bytes
    expected: Mapping[str, Any] | None


@dataclass(frozen=True)
class SmokeTestResult:
    """A Bento that answered as it should. Latencies are of one request at a time, in milliseconds."""

    tag: str
    latency_ms: float
    latency_p95_ms: float
    ready_seconds: float
    requests: int
    refused: int
    largest_difference: float
    stand_in: str | None = None  # which engine ran instead of the one that was measured, and why


def folder_of(tag: str, home: Path) -> Path:
    """Where a Bento lies in the store of `home`, finished or not there at all."""
    name, colon, version = tag.partition(":")
    if not colon or not name or not version or "/" in tag or ".." in tag:
        raise ReleaseError(f"{tag!r} is not the tag of a Bento: expected name:version")
    return home.resolve() / "bentos" / name / version


def exists(tag: str, home: Path) -> bool:
    return (folder_of(tag, home) / "bento.yaml").is_file()


def is_intact(tag: str, home: Path) -> bool:
    """Whether a Bento is there, and program, bundle and settings in it are as they were packed."""
    folder = folder_of(tag, home)
    try:
        return exists(tag, home) and (folder / _DIGEST).read_text() == _digest_program(folder / "src")
    except OSError:
        return False


def is_running(folder: Path) -> bool:
    """Whether a service runs from a Bento's folder, as far as this system tells."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(folder) in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False


def limits_of(tag: str, home: Path) -> Limits:
    """Of what the service in a Bento accepts, as it was packed; raises ReleaseError where it is not there."""
    return Limits(_packed(tag, home, "max_bytes"), _packed(tag, home, "max_pixels"))


def timeout_of(tag: str, home: Path) -> float:
    """Seconds after which the service in a Bento gives a request up; raises ReleaseError."""
    return float(_packed(tag, home, "timeout"))


def _packed(tag: str, home: Path, setting: str) -> Any:
    path = _found(tag, home) / "src" / "serve.json"
    try:
        return json.loads(path.read_bytes())[setting]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged ({error}): {_AGAIN}") from None


def _found(tag: str, home: Path) -> Path:
    if not exists(tag, home):
        raise ReleaseError(f"{tag} is not in {home}: {_AGAIN}")
    return folder_of(tag, home)


# Building


def build(recipe: Recipe, home: Path) -> str:
    """Pack a Bento into the store of `home`, if it is not there whole, and return its tag.

    Raises ReleaseError with BentoML's own reason. Killed at any moment, it leaves no half Bento behind.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    tag = recipe.tag()
    final = folder_of(tag, home)
    with FileLock(home / "build.lock"):
        # Only the holder of the lock stages: whatever lies there now belongs to a build that was killed.
        shutil.rmtree(home / ".staging", ignore_errors=True)
        if is_intact(tag, home):
            return tag
        try:
            (home / ".staging").mkdir()
            staging = Path(tempfile.mkdtemp(dir=home / ".staging"))
            _stage(recipe, staging / "context")
            _pack(tag, staging)
            built = folder_of(tag, staging / "home")
            _check_packed(tag, built)
            (built / _DIGEST).write_text(_digest_program(built / "src"))
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            built.rename(final)
            sync_folder(final.parent)
            write_atomic(final.parent / "latest", final.name.encode())
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReleaseError(f"the Bento {tag} cannot be built: {error}") from error
        finally:
            shutil.rmtree(home / ".staging", ignore_errors=True)
    return tag


def _stage(recipe: Recipe, context: Path) -> None:
    from ruamel.yaml import YAML

    context.mkdir(parents=True)
    compiled = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(
        _PACKAGE,
        context / "ayeaye",
        ignore=lambda folder, names: (
            compiled(folder, names) | ({"flows"} if Path(folder) == _PACKAGE else set())
        ),
    )
    shutil.copyfile(context / "ayeaye" / "service" / "entry.py", context / f"{_ENTRY}.py")
    shutil.copytree(recipe.bundle, context / "bundle")
    (context / "serve.json").write_text(json.dumps(recipe.settings, indent=1, default=str))
    for name, content in recipe.card.items():
        (context / name).write_bytes(content)
    with (context / "bentofile.yaml").open("w") as file:
        YAML(typ="safe").dump(_bentofile(recipe), file)


def _bentofile(recipe: Recipe) -> dict[str, Any]:
    """The template with labels, name, the card as its description, and packages pinned to what is installed."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(recipe.template)
    except (OSError, YAMLError) as error:
        raise ReleaseError(f"{recipe.template} cannot be read ({error}): restore it with git") from None
    if not isinstance(content, dict) or "service" not in content:
        raise ReleaseError(f"{recipe.template} names no service: restore it with git")
    labels = {
        **(content.get("labels") or {}),
        "bundle_digest": recipe.bundle_digest,
        "model_version": str(recipe.version),
    }
    python = dict(content.get("python") or {})
    python["packages"] = _pinned(python.get("packages") or ())
    made = {**content, "name": recipe.name.lower(), "labels": labels, "python": python}
    # Not left to the template: a workspace of an earlier ayeaye has its own, without them.
    made["envs"] = [*(content.get("envs") or ()), {"name": "AYEAYE_STATE", "value": STATE_IN_IMAGE}]
    made["service"] = f"{_ENTRY}:{content['service'].rpartition(':')[2]}"
    if "include" in content:
        made["include"] = [*(content["include"] or ()), f"{_ENTRY}.py", *(CARD if recipe.card else ())]
    if recipe.card:
        made["description"] = recipe.card["card.md"].decode()
    return made


def _pinned(packages: Iterable[str]) -> list[str]:
    """These packages and all that they need, each as it is installed; one with a version, or not installed, stays."""
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


def _digest_program(folder: Path, without: Path | None = None) -> str:
    """Of every file below a folder but what Python compiled there, and but one folder."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and without not in path.parents
    )
    return hashlib.sha256(
        "".join(f"{path.relative_to(folder)} {digest_file(path)}\n" for path in files).encode()
    ).hexdigest()


def _pack(tag: str, staging: Path) -> None:
    home = staging / "home"
    home.mkdir()
    command = [sys.executable, "-m", "bentoml", "build", "context"]
    # Named, since BentoML looks for none in folders with a dot.
    command += ["--bentofile", "context/bentofile.yaml", "--version", tag.partition(":")[2]]
    done = subprocess.run(
        command,
        cwd=staging,
        env=guarded(_environment(home), hidden=[PROGRAM]),
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode:
        raise ReleaseError(f"the Bento {tag} cannot be built: {_last_line(done.stderr or done.stdout)}")


def _check_packed(tag: str, built: Path) -> None:
    """BentoML reports success also when it packed nothing."""
    src = (f"{_ENTRY}.py", "ayeaye/service/service.py", "bundle/bundle.json", "serve.json")
    for name in ("bento.yaml", *(f"src/{each}" for each in src)):
        if not (built / name).is_file():
            raise ReleaseError(f"the Bento {tag} was built without {name}: mend `include` in bentofile.yaml")


# Trying


def smoke_test(
    tag: str,
    golden: Sequence[Golden],
    home: Path,
    *,
    bundle_digest: str | None = None,
    repeats: int = 20,
    say: Callable[[str], None] = lambda text: None,
) -> SmokeTestResult:
    """Start a Bento where the checkout cannot be imported, and compare its answers with the known ones.

    A broken file is always sent too. Raises TrialFailed when the service does not start, is not the one that
    was asked for, runs code from outside the Bento, or answers otherwise than `golden` says.
    """
    import httpx

    started = time.monotonic()
    with (
        _running(tag, home) as server,
        httpx.Client(base_url=server.url, timeout=_ANSWER_SECONDS, trust_env=False) as client,
    ):
        server.wait_until_ready(client, say)
        ready = time.monotonic() - started
        say(f"{tag} is ready after {ready:.1f} s")
        try:
            about = _identified(tag, client, bundle_digest)
            requests = [*golden, Golden("a broken file", _BROKEN, None)]
            differences = [_check_answer(tag, client, request) for request in requests]
            latencies = _measure(client, golden, repeats)
        except httpx.HTTPError as error:
            raise TrialFailed(
                f"{tag} stopped answering ({error or type(error).__name__}){server.said()}"
            ) from None
    return SmokeTestResult(
        tag=tag,
        latency_ms=_quantile(latencies, 0.5),
        latency_p95_ms=_quantile(latencies, 0.95),
        ready_seconds=ready,
        requests=len(requests),
        refused=sum(request.expected is None for request in requests),
        largest_difference=max(differences),
        stand_in=_stand_in(about.get("backbone") or {}),
    )


def _identified(tag: str, client: Any, bundle_digest: str | None) -> dict[str, Any]:
    """What the service tells of itself; raises TrialFailed where it is not the one that was asked for."""
    about: dict[str, Any] = client.get("/model").json()
    if about.get("code") != "bento":
        raise TrialFailed(f"{tag} runs ayeaye from outside the Bento: mend `include` in bentofile.yaml")
    if about.get("bento") != tag:
        raise TrialFailed(f"asked for {tag}, but {about.get('bento')} answers: is the port taken?")
    if bundle_digest and about.get("bundle_digest") != bundle_digest:
        raise TrialFailed(f"{tag} serves bundle {about.get('bundle_digest')}, expected {bundle_digest}")
    return about


def _stand_in(backbone: Mapping[str, Any]) -> str | None:
    # A service of an earlier ayeaye does not tell.
    if not backbone.get("fallback"):
        return None
    return f"{backbone['running']} runs instead of {backbone['engine']}: {backbone['fallback']}"


def _check_answer(tag: str, client: Any, request: Golden) -> float:
    """The largest difference of a score; raises TrialFailed where the answer is another one."""
    response = client.post("/classify", files={"image": ("golden", request.content)})
    if request.expected is None:
        if not 400 <= response.status_code < 500:
            raise TrialFailed(f"{tag} answered {request.name} with {response.status_code}, expected a 4xx")
        return 0.0
    if response.status_code != 200:
        raise TrialFailed(f"{tag} answered {request.name} with {response.status_code}: {response.text[:200]}")
    return _compare(tag, request.name, response.json(), request.expected)


def _compare(
    tag: str,
    name: str,
    answer: Mapping[str, Any],
    expected: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> float:
    offline = {each["label"]: float(each["score"]) for each in expected["alternatives"]}
    served = {each["label"]: float(each["score"]) for each in answer["alternatives"]}
    if answer["label"] != expected["label"]:
        # Two classes closer than the tolerance may change places.
        ahead = offline[expected["label"]] - offline.get(answer["label"], -math.inf)
        if not ahead <= 2 * tolerance:
            raise TrialFailed(f"{tag} labels {name} {answer['label']}, offline it is {expected['label']}")
    common = offline.keys() & served.keys()
    difference = max((abs(offline[label] - served[label]) for label in common), default=math.inf)
    if not difference <= tolerance:
        raise TrialFailed(f"{tag}: scores of {name} differ by {difference:.2g} from the offline ones")
    return difference


def _measure(client: Any, golden: Sequence[Golden], repeats: int) -> list[float]:
    """Milliseconds of single requests, one after the other, after the first ones warmed it up."""
    sound = [request for request in golden if request.expected is not None]
    if not sound:
        raise TrialFailed("no golden request has an answer: give pictures with their offline answers")
    latencies = []
    for turn in range(max(repeats, len(sound))):
        files = {"image": ("golden", sound[turn % len(sound)].content)}
        before = time.perf_counter()
        client.post("/classify", files=files).raise_for_status()
        latencies.append((time.perf_counter() - before) * 1000)
    return latencies


def _quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Server:
    """A running `bentoml serve`; `output` gives what it printed."""

    def __init__(
        self, tag: str, process: subprocess.Popen[bytes], port: int, output: Callable[[], bytes]
    ) -> None:
        self.tag, self.process, self.port, self.output = tag, process, port, output
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_ready(self, client: Any, say: Callable[[str], None] = lambda text: None) -> None:
        import httpx

        def ready() -> bool:
            with suppress(httpx.HTTPError):
                return bool(client.get("/readyz", timeout=5).status_code == 200)
            return False

        def ended() -> str | None:
            # A worker that dies at its start is started again for ever.
            failed = self.process.poll() is not None or b"Application startup failed" in self.output()
            return f"{self.tag} does not start" if failed else None

        if reason := await_start(self.tag, ready, ended, lambda: self.process.pid, say):
            raise TrialFailed(f"{reason}{self.said()}")

    def said(self) -> str:
        text = self.output().decode(errors="replace")
        return f": {_last_line(text)}" if text.strip() else ""


@contextmanager
def _running(tag: str, home: Path) -> Iterator[Server]:
    folder = _found(tag, home)
    remove_unclaimed(_TRIAL)
    with claimed_folder(_TRIAL) as empty:
        for part in ("home", "work", "tmp"):
            (empty / part).mkdir()
        port = free_port()
        log = empty / "log"
        with log.open("wb") as output:
            process = start(
                _serve_command(folder, "127.0.0.1", port),
                cwd=empty / "work",
                env=_environment(empty / "home") | _apart(empty),
                log=output,
                hidden=[PROGRAM],
            )
        try:
            yield Server(tag, process, port, log.read_bytes)
        finally:
            stop(process)


def _apart(folder: Path) -> dict[str, str]:
    """What a trial is told: it keeps nothing where production does, and answers as often as it is asked."""
    return {
        "TMPDIR": str(folder / "tmp"),
        "AYEAYE_STATE": str(folder / "state"),
        "AYEAYE_DATABASE": "",
        "AYEAYE_RATE": "",
    }


# Golden requests, kept


def keep_golden(tag: str, golden: Sequence[Golden], home: Path) -> None:
    """Keep what a Bento answered in its trial, for when it is to be served.

    Not in the Bento, which may leave this machine: these are pictures of the dataset. Those of Bentos that are
    gone go, too.
    """
    content = [
        {"name": each.name, "content": base64.b64encode(each.content).decode(), "expected": each.expected}
        for each in golden
    ]
    path = _golden_path(tag, home)
    write_atomic(path, json.dumps(content).encode())
    for other in path.parent.glob("*.json"):
        if not exists(f"{path.parent.name}:{other.stem}", home):
            other.unlink(missing_ok=True)


def kept_golden(tag: str, home: Path) -> list[Golden]:
    """The requests that a Bento answered in its trial; none where they are gone."""
    try:
        kept = json.loads(_golden_path(tag, home).read_bytes())
        return [Golden(each["name"], base64.b64decode(each["content"]), each["expected"]) for each in kept]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def golden_of(tag: str, home: Path) -> list[Golden]:
    """The requests that were kept, else the samples in the Bento, by which no scores are known."""
    if kept := kept_golden(tag, home):
        return kept
    samples = Samples.load(_found(tag, home) / "src" / "bundle").chosen("try")
    return [Golden(each.label, each.jpeg, {"label": each.label, "alternatives": []}) for each in samples]


def golden_files(home: Path, ids: Collection[str]) -> list[Path]:
    """Where kept requests hold one of these pictures; without them a Bento proves itself by its samples."""
    return [
        path
        for path in sorted((home.resolve() / "golden").glob("*/*.json"))
        if any(hashlib.sha256(content).hexdigest() in ids for content in _golden_contents(path))
    ]


def _golden_contents(path: Path) -> Iterator[bytes]:
    for each in json.loads(path.read_bytes()):
        yield base64.b64decode(each["content"])


def _golden_path(tag: str, home: Path) -> Path:
    folder = folder_of(tag, home)
    return home.resolve() / "golden" / folder.parent.name / f"{folder.name}.json"


# Serving


def serve(tag: str, home: Path, settings: Serve, say: Callable[[str], None] = lambda text: None) -> None:
    """Become the server of a Bento: this process is replaced and does not return. Port 0 is any free one."""
    folder = _found(tag, home)
    host, port = listening(settings)
    run = home.resolve() / ".run" / str(port)
    run.mkdir(parents=True, exist_ok=True)
    environment = _environment(run) | place(settings)
    say(f"Serving {tag} on http://{settings.host}:{port} (POST /classify, field image).")
    os.chdir(run)
    sys.stdout.flush()
    sys.stderr.flush()
    command = _serve_command(folder, host, port)
    os.execve(command[0], command, environment)  # noqa: S606


def launch(
    tag: str, home: Path, run: Path, settings: Serve, told: Mapping[str, str], aside: bool = False
) -> Server:
    """Start a Bento for production on a free port of this machine alone; it dies with this process.

    `run` is a folder of its own; `told` goes before what `place` tells. What the service prints goes on to standard
    error. One that stands `aside` leaves the cores to others. Call it from the main thread; raises ReleaseError where
    the Bento is not there.
    """
    folder, port = _found(tag, home), free_port()
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    process = start(
        [*(("nice", "-n", "15") if aside else ()), *_serve_command(folder, "127.0.0.1", port)],
        cwd=run,
        env={**_environment(run), **place(settings), **told},
        log=subprocess.PIPE,
        hidden=[PROGRAM],
    )
    assert process.stdout is not None
    return Server(tag, process, port, Tail(process.stdout).read)


class Tail:
    """Hands on what a process prints to standard error, and keeps the end of it."""

    def __init__(self, stream: IO[bytes], lines: int = 200) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        threading.Thread(target=self._copy, args=(stream,), daemon=True).start()

    def read(self) -> bytes:
        return b"".join(self._lines.copy())

    def _copy(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.append(line)
            # A terminal that is gone is no reason to let the service stand still before a full pipe.
            with suppress(OSError, ValueError):
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()


def verify(server: Server, home: Path, bundle_digest: str | None) -> None:
    """Wait until a launched service is ready, is the one that was asked for, and answers golden requests.

    Its answers are not in the log of predictions, and count towards nobody's rate. Raises TrialFailed.
    """
    import httpx

    def as_another(request: httpx.Request) -> None:
        request.headers[CLIENT_HEADER] = f"ayeaye serve {secrets.token_hex(4)}"

    try:
        with httpx.Client(
            base_url=server.url,
            timeout=_ANSWER_SECONDS,
            trust_env=False,
            event_hooks={"request": [as_another]},
        ) as client:
            server.wait_until_ready(client)
            _identified(server.tag, client, bundle_digest)
            for request in (*golden_of(server.tag, home), Golden("a broken file", _BROKEN, None)):
                _check_in_place(server.tag, client, request)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrialFailed(
            f"{server.tag} does not answer ({error or type(error).__name__}){server.said()}"
        ) from None


def _check_in_place(tag: str, client: Any, request: Golden) -> None:
    if request.expected is None:
        _check_answer(tag, client, request)
        return
    labels = [each["label"] for each in request.expected["alternatives"]] or [request.expected["label"]]
    response = client.post(
        "/classify_among",
        params={"top": len(labels)},
        data={"candidates": json.dumps(labels)},
        files={"image": ("golden", request.content)},
    )
    if response.status_code != 200:
        raise TrialFailed(f"{tag} answered {request.name} with {response.status_code}: {response.text[:200]}")
    if request.expected["alternatives"]:
        try:
            _compare(tag, request.name, response.json(), request.expected, TOLERANCE_IN_PLACE)
        except TrialFailed:
            # A class that came at run time may take from the scores of those that were trained.
            if not client.get("/model").json()["run_time_classes"]:
                raise


def place(settings: Serve) -> dict[str, str]:
    """What a service is told of where it runs; variables that are set go before params.yaml."""
    database = settings.database.get_secret_value() if settings.database else ""
    told = {
        # Absolute, since the service runs in a folder of its own.
        "AYEAYE_STATE": str(resolved(os.environ.get("AYEAYE_STATE") or settings.state)),
        "AYEAYE_DATABASE": database,
        "AYEAYE_TOKEN_FILE": settings.token_file or "",
    }
    given = (
        "AYEAYE_DATABASE",
        "AYEAYE_TOKEN",
        "AYEAYE_TOKEN_FILE",
        "AYEAYE_RATE",
        "AYEAYE_PREDICTIONS",
    )
    told |= {name: os.environ[name] for name in given if name in os.environ}
    return told | {"AYEAYE_WORKERS": str(settings.workers)}


def listening(settings: Serve) -> tuple[str, int]:
    """Address and port to listen on, port 0 being any free one; raises ReleaseError where they cannot be had."""
    host, port = _address(settings.host), settings.port or free_port()
    _check_free(settings.host, host, port)
    return host, port


def _address(host: str) -> str:
    """BentoML wants a number where a person gives a name."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except OSError:
        raise ReleaseError(
            f"serve.host {host} has no address: use 127.0.0.1, or 0.0.0.0 for every one"
        ) from None


def _check_free(name: str, host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ReleaseError(
                f"{name}:{port} cannot be listened on ({error.strerror}): stop what does, or use --port"
            ) from None


def _serve_command(folder: Path, host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", str(folder), "--host", host, "--port", str(port)]


def _environment(home: Path) -> dict[str, str]:
    """For a BentoML process: its home, no telemetry, and no setting of ours that it was not given."""
    given = amended(os.environ)
    kept = {key: given[key] for key in given if not key.startswith("AYEAYE_") or key == "AYEAYE_GUARD_PARENT"}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | quiet | {"BENTOML_HOME": str(home)}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [line for line in lines if "Error" in line or "error" in line]
    return (faults or lines or ["no reason given"])[-1][:300]
