"""Which part of the default brings how much, on class folds of seen classes; writes docs/ablation.md.

python bench/ablation.py [--data DIR] [--work DIR] [--only TEXT] [--repeats 4] [--out docs]

Parts are added one after the other. No test picture is looked at: pretend-unseen classes are labelled beside
held-out pictures of the others, three folds, parted --repeats times. Settings are chosen on the same folds, for
every row alike, so the figures are a little too good but comparable; the offset of a fold is chosen on the
other folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from zsl import ROOT, data_sets, loaded, made, options

from ayeaye.class_vectors.space import ClassSpace
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import Dataset
from ayeaye.evaluation.metrics import Fold, point_figures
from ayeaye.mappers.base import unit
from ayeaye.pipeline import selection
from ayeaye.pipeline.blending import Candidate, blended, families
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds

LINEAR = [Candidate("ridge", fixed={"kernel": "linear", "shrinkage": None})]
METRIC = [Candidate("ridge", fixed={"kernel": "linear", "shrinkage": 1.0})]
ROWS = {"cub": ("attributes", "all four"), "grocery": ("tfidf", "word2vec and tfidf")}


def as_they_are(workspace: Workspace, data: Examples) -> Examples:
    """The same class vectors, of one source, without the centring."""
    space, table = ClassSpace.load(workspace.class_space), Dataset.load(workspace.dataset).classes
    raw, _ = space.encoder.parts[0].raw(table)
    return replace(data, A=unit(raw).astype(np.float32))


def steps(workspace: Workspace, data: Examples) -> Iterator[tuple[str, Examples, Sequence[Candidate]]]:
    if len(data.sources) == 1:
        yield "linear ridge, class vectors as they are", as_they_are(workspace, data), LINEAR
        alone = ClassSpace.load(workspace.class_space).by_descriptions()
        if alone is not None:
            without = replace(data, A=alone.astype(np.float32))
            yield "centred, but of descriptions without names", without, LINEAR
        yield "class vectors centred", data, LINEAR
    else:
        yield "linear ridge, sources weighed alike", data, LINEAR
    yield "images as square roots, in the metric of what varies within classes", data, METRIC
    yield "any kernel, and with or without the metric", data, [Candidate("ridge")]
    if len(data.sources) > 1:
        yield "blended with ESZSL, sources weighed alike", data, families(None, data, weighted=True)
    yield "blended: auto", data, families(None, data)


def figures(folds: Sequence[Fold]) -> dict[str, float]:
    """Means over folds; `H at 0` is without an offset."""
    rows: list[dict[str, float]] = []
    for number, fold in enumerate(folds):
        gamma = selection.offset([*folds[:number], *folds[number + 1 :]])
        at_zero = point_figures(fold.scores, fold.y, fold.seen, 0.0)["H"]
        rows.append({"H at 0": at_zero, **point_figures(fold.scores, fold.y, fold.seen, gamma)})
    return {name: float(np.mean([row[name] for row in rows])) for name in ("T1", "H at 0", "H", "AUSUC")}


def table(workspace: Workspace, data: Examples, repeats: int) -> Iterator[str]:
    folds = class_folds(data.pool, 3, repeats)
    names = ("T1", "H at 0", "H", "AUSUC")
    yield f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}"

    def row(said: str, values: dict[str, Any]) -> str:
        return f"| {said} | {' | '.join(f'{values[name]:.3f}' for name in names)} |"

    for said, examples, among in steps(workspace, data):
        found = blended(among, examples, folds)
        yield row(said, figures(found.folds))
    choice = selection.calibrate_scores(found, "auto")
    yield row(
        "hubs corrected: auto",
        figures(selection.corrected(found.folds, choice.hubs, choice.hub_settings)),
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    lines = [
        "# Ablation\n",
        "Made by `bench/ablation.py`. Parts are added one after the other; figures are means over as many folds of "
        "seen classes as the heading says, of which a third stands in for unseen ones. No test picture was looked "
        "at. H at 0 is without the offset for seen classes, H with the offset chosen on the other folds.\n",
    ]
    for name, data in data_sets(arguments.data).items():
        for space in ROWS.get(name, tuple(data.spaces)):
            if arguments.only in f"{name}/{space}":
                workspace = made(name, data, arguments.work)
                lines.append(f"## {name}, {space} ({3 * arguments.repeats} folds)\n")
                for line in table(workspace, loaded(workspace, data.spaces[space]), arguments.repeats):
                    print(line, flush=True)
                    lines.append(line)
                lines.append("")
    write_atomic(arguments.out / "ablation.md", "\n".join(lines).encode())


if __name__ == "__main__":
    main()
