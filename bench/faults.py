"""Seed each fault of bench/faults.toml in a copy of the tree and say whether its tests catch it.

python bench/faults.py [--only TEXT] [--jobs 1] [--json]

Exit status 1 where a fault is not caught, or no longer fits the source.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = (
    *("src", "flows", "tests", "bench"),
    *("pyproject.toml", "constraints.txt", "params.yaml", "dvc.yaml", "bentofile.yaml", "prefect.yaml"),
)
NO_TESTS_FAILED, TESTS_FAILED = 0, 1


@dataclass(frozen=True)
class Fault:
    """A change of one place of a file, and the tests that must fail with it."""

    what: str
    file: str
    old: str
    new: str
    tests: str


@dataclass(frozen=True)
class Outcome:
    what: str
    file: str
    outcome: str  # caught | missed | does not fit | or how pytest ended


def seeded(fault: Fault, folder: Path) -> bool:
    """Copy the tree into a folder with the fault in it; False where the source has no such place, or two."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
        copy(ROOT / part, folder / part, **({"symlinks": True} if copy is shutil.copytree else {}))
    path = folder / fault.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(fault.old) != 1:
        return False
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return True


def tried(fault: Fault) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="ayeaye-fault-") as folder:
        if not seeded(fault, Path(folder)):
            return Outcome(fault.what, fault.file, "does not fit")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            *shlex.split(fault.tests),
        ]
        data = os.environ.get("AYEAYE_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(folder) / "src"),
            "OMP_NUM_THREADS": "1",
            "AYEAYE_SHARED_DATA": data,
        }
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    outcome = {NO_TESTS_FAILED: "missed", TESTS_FAILED: "caught"}.get(done.returncode)
    return Outcome(
        fault.what, fault.file, outcome or f"pytest ended with {done.returncode}: {done.stdout[-300:]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="faults whose description or file holds this text")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    faults = [Fault(**each) for each in tomllib.loads((ROOT / "bench" / "faults.toml").read_text())["fault"]]
    faults = [fault for fault in faults if chosen.only in f"{fault.what} {fault.file}"]
    outcomes = []
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for outcome in pool.map(tried, faults):
            outcomes.append(outcome)
            print(f"{outcome.outcome:>12}  {outcome.file}: {outcome.what}", file=sys.stderr, flush=True)
    caught = sum(outcome.outcome == "caught" for outcome in outcomes)
    print(
        json.dumps([asdict(each) for each in outcomes], indent=1)
        if chosen.json
        else f"{caught} of {len(outcomes)} caught"
    )
    sys.exit(caught != len(outcomes))


if __name__ == "__main__":
    main()
