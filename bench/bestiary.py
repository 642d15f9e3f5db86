"""Whether the drawn animals are a fair test: T1 and H of the pipeline, of an untrained backbone, of wrong words.

python bench/bestiary.py [--seeds 0 1 2] [--out FILE]

Prints JSON, a row per seed. `shuffled` has every description beside another species; `untrained` is the same
network with its initial weights. Chance is one over the unseen species.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.classifier import nearest
from ayeaye.core import params
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation.metrics import point_figures
from ayeaye.pipeline import blending, examples, selection
from ayeaye.pipeline.classes import classes
from ayeaye.pipeline.embed import embed
from ayeaye.pipeline.evaluate import evaluate
from ayeaye.pipeline.folds import TUNING, class_folds
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress
from ayeaye.pipeline.train import train
from ayeaye.versioning import layout

SHOWN = ("T1", "U", "S", "H", "AUSUC")
SHUFFLES = 5


def measured(seed: int, folder: Path) -> dict[str, Any]:
    """Figures of one bestiary on its held-out pictures of seen species and all pictures of unseen ones."""
    workspace, progress = Workspace(folder), Progress()
    layout.init(workspace, [f"prepare.seed={seed}"])
    before = time.perf_counter()
    prepare(workspace, progress)
    workspace.write_fingerprints()
    stages(workspace, progress)
    trained = evaluate(workspace, progress)
    seconds = time.perf_counter() - before
    return {
        "seed": seed,
        "chance": 1 / int((~examples.load(workspace).seen).sum()),
        "seconds": round(seconds, 1),
        "trained": {name: trained[name] for name in SHOWN if name in trained},
        "shuffled": shuffled(workspace),
        "untrained": untrained(workspace),
    }


def shuffled(workspace: Workspace) -> dict[str, float]:
    """Means over several shuffles of the descriptions; the fields the stages left are read, none is written."""
    data = examples.load(workspace)
    chance = np.random.default_rng(0)
    figures = [again(workspace, replace(data, A=chance.permutation(data.A))) for _ in range(SHUFFLES)]
    return {name: float(np.mean([each[name] for each in figures])) for name in SHOWN}


def untrained(workspace: Workspace) -> dict[str, float]:
    """The same network with its initial weights; leaves its embeddings in the workspace."""
    params.assign(workspace.root / "params.yaml", ["embed.epochs=0"])
    fresh = Workspace(workspace.root)
    stages(fresh, Progress())
    return again(fresh, examples.load(fresh))


def stages(workspace: Workspace, progress: Progress) -> None:
    embed(workspace, progress)
    classes(workspace)
    train(workspace, progress)


def again(workspace: Workspace, data: examples.Examples) -> dict[str, float]:
    """Everything after the class space once more, on other examples."""
    chosen = workspace.params.train
    folds = class_folds(data.pool, chosen.folds, chosen.repeats, chosen.seed)
    choice = selection.select(blending.families(chosen.mapper, data), data, folds, seed=chosen.seed)
    learned = data.rows(*TUNING) & data.seen[data.y]
    mapper = choice.fit(data, learned, seed=chosen.seed, device="cpu")
    rows = data.rows("test_seen", "test_unseen")
    scores = nearest.scores(mapper.map_images(data.X[rows]), mapper.map_classes(data.A))
    figures = point_figures(scores, data.y[rows], data.seen, choice.gamma)
    return {name: figures[name] for name in SHOWN}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rows = []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(seed, Path(folder) / "bestiary"))
        print(json.dumps(rows[-1]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
