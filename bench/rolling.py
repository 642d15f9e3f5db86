"""Promotions and rollbacks under load: what becomes of the requests meanwhile; prints JSON.

python bench/rolling.py [WORKSPACE] [--swaps 20] [--share 0.5] [--seed 0] [--out build/bench-rolling.json]

The workspace has a champion and a previous one; without one, a small one of drawn animals is made. It is served by
`ayeaye serve` on a free port, behind HAProxy, and asked with its own test pictures: first what it can answer at most,
in the closed loop, then at random moments at --share of that, while champion and previous change places --swaps times
in a row, each as soon as the one before is served. A request is lost that gets no answer, or one that is not 200. The
record of the workspace gets an entry for every swap; give a copy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load import Load, Seen

from ayeaye.core import params
from ayeaye.core.processes import free_port, start, stop
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import Dataset
from ayeaye.packaging.serving_state import ServingState
from ayeaye.release import promotion
from ayeaye.release.registry import Version
from ayeaye.versioning import layout

SERVE = "from ayeaye import cli; cli.main()"
SMALL = ["prepare.pictures=8", "embed.epochs=2", "train.repeats=1", "evaluate.bootstrap=200", "release.epsilon=1",
         "release.minimum={}", "release.maximum={}"]  # fmt: skip
CONNECTIONS, MEASURED = 16, 8.0  # seconds
READY, SERVED = 180.0, 180.0
PICTURES = 32


@dataclass(frozen=True)
class Released:
    """A version and the Bento with which it is champion."""

    version: Version
    tag: str


@dataclass
class Rolled:
    """What came of swaps under load: `seen` of every request, and by Bento how many answers it gave."""

    seen: Seen
    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # from the record to the first answer, of each swap

    @property
    def lost(self) -> int:
        return len(self.seen.lost) + len(self.seen.latencies) - self.seen.answered

    def summary(self) -> dict[str, Any]:
        return {
            "swaps": len(self.seconds),
            **self.seen.summary(),
            "lost": self.lost,
            "reasons": self.seen.lost[:5],
            "answers of each Bento": dict(self.answers),
            "seconds a swap, median": round(statistics.median(self.seconds), 1),
            "seconds a swap, most": round(max(self.seconds), 1),
        }


@contextmanager
def served(
    workspace: Workspace, *options: object, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of `ayeaye serve` for a workspace, in a process of its own, once it answers."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, "serve", "--workspace", str(workspace.root), "--port", str(port)]
    with (workspace.root.parent / "serve.log").open("ab") as log:
        process = start(
            [*command, *map(str, options)],
            env={**os.environ, **(environment or {})},
            cwd=workspace.root.parent,
            log=log,
        )
        try:

            def ready() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"`ayeaye serve` ended: see {log.name}")
                return bool(getattr(ServingState.observe(workspace), "bento", None))

            wait(ready, READY, f"`ayeaye serve` does not answer: see {log.name}")
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process, patience=60)


def wait(ready: Callable[[], bool], seconds: float, complaint: str) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(complaint)
        time.sleep(0.2)


def crown(workspace: Workspace, released: Released, action: str) -> None:
    """Make a tried Bento champion, as `ayeaye promote` and `ayeaye rollback` do in the end."""
    with workspace.lock():
        promotion.crown(
            workspace, released.version, released.tag, action=action, actor="bench", why=["rolling"]
        )


def roll(
    workspace: Workspace,
    url: str,
    contents: Sequence[bytes],
    turns: Sequence[Released],
    swaps: int,
    rate: float,
    seed: int = 0,
) -> Rolled:
    """Load of so many requests a second while the turns become champion one after the other."""
    rolled = Rolled(Seen())
    done, failed = threading.Event(), list[BaseException]()

    def answered(number: int, status: int, body: bytes) -> None:
        if status == 200:
            rolled.answers[json.loads(body)["model"]["bento"]] += 1

    def swap() -> None:
        try:
            time.sleep(1.0)
            for number in range(swaps):
                released = turns[number % len(turns)]
                before = time.monotonic()
                crown(workspace, released, "promote" if number % 2 == 0 else "rollback")
                wait(
                    lambda tag=released.tag: getattr(ServingState.observe(workspace), "bento", None) == tag,  # type: ignore[misc]
                    SERVED,
                    f"{released.tag} is not served",
                )
                rolled.seconds.append(time.monotonic() - before)
            time.sleep(1.0)
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    load = Load(f"{url}/classify", contents, answered=answered)
    thread = threading.Thread(target=swap)
    thread.start()
    rolled.seen = asyncio.run(load.open(rate, swaps * SERVED, seed, enough=done.is_set))
    thread.join()
    if failed:
        raise failed[0]
    return rolled


def pictures(workspace: Workspace, most: int = PICTURES) -> list[bytes]:
    """Of the test splits, always the same."""
    dataset = Dataset.load(workspace.dataset)
    rows = dataset.manifest[dataset.manifest["split"].str.startswith("test")].sort_values("id")
    return [dataset.picture(id) for id in rows["id"].head(most)]


def capacity(url: str, contents: Sequence[bytes], seconds: float = MEASURED) -> float:
    """Requests a second that are answered at most."""
    seen = asyncio.run(Load(f"{url}/classify", contents).closed(CONNECTIONS, seconds))
    return seen.answered / seen.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path, nargs="?")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "build" / "bench-rolling.json"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = (
            Workspace.find(chosen.workspace) if chosen.workspace else retrained(Path(folder) / "small")
        )
        result = measure(workspace, chosen.swaps, chosen.share, chosen.seed)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    raise SystemExit(result["lost"] > 0)


def retrained(folder: Path) -> Workspace:
    """A small workspace of drawn animals whose second version is champion."""
    workspace = Workspace(folder)
    layout.init(workspace, SMALL)
    for folds in (3, 4):
        params.assign(folder / "params.yaml", [f"train.folds={folds}"])
        subprocess.run(
            [sys.executable, "-c", SERVE, "retrain", "--workspace", str(folder)], check=True, env=os.environ
        )
    return Workspace(folder)


def measure(workspace: Workspace, swaps: int, share: float, seed: int) -> dict[str, Any]:
    record = promotion.record_of(workspace)
    state = record.state()
    if state.champion is None or state.previous is None:
        raise SystemExit("the workspace needs a champion and a previous one: retrain it twice")
    registry = promotion.registry_of(workspace)
    turns = []
    for number in (state.previous, state.champion):
        version = registry.version(number)
        turns.append(Released(version, promotion.pack(workspace, version)))
    contents = pictures(workspace)
    with served(workspace) as url:
        most = capacity(url, contents)
        rolled = roll(workspace, url, contents, turns, swaps, share * most, seed)
    return {"capacity, requests a second": round(most, 1), "share": share, **rolled.summary()}


if __name__ == "__main__":
    main()
