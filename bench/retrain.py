"""How long `ayeaye retrain` takes when nothing has changed, against its parts; prints JSON.

python bench/retrain.py WORKSPACE [--runs 5] [--out FILE]

The workspace must have been retrained once, so that PREFECT_HOME is warm. The baseline in the same run is a
bare `dvc status` and the start of a Prefect server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = Path(sys.executable).parent


def seconds(command: list[str], folder: Path) -> float:
    before = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - before


def server_start(folder: Path) -> float:
    from ayeaye.core.workspace import Workspace
    from ayeaye.flows.server import server

    before = time.perf_counter()
    with server(Workspace.find(folder)) as started:
        started()
        return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    measured: dict[str, list[float]] = {"retrain, nothing new": [], "dvc status": [], "Prefect server": []}
    for _ in range(chosen.runs):
        measured["dvc status"].append(
            seconds([sys.executable, "-m", "dvc", "status", "--json"], chosen.workspace)
        )
        measured["Prefect server"].append(server_start(chosen.workspace))
        measured["retrain, nothing new"].append(
            seconds([str(PROGRAMS / "ayeaye"), "retrain", "--json"], chosen.workspace)
        )
    result = {
        "cores": os.cpu_count(),
        "runs": chosen.runs,
        "seconds": {
            name: {"min": min(values), "median": statistics.median(values), "max": max(values)}
            for name, values in measured.items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.out:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
