"""How often the watch calls drift what is none, and how often it finds a shift that was made.

python bench/drift.py [--data DIR] [--work DIR] [--only NAME] [--draws 100] [--out docs/drift.json]

A champion is trained on the bestiary, and on the groceries in DIR of --data where they are. Each draw is a week of
traffic: pictures of another popularity each time, classes up to eight times as frequent as others, a random share of
the unseen ones. The bestiary's are newly drawn; of the groceries held-out pictures are parted anew, half to be the
reference, half the traffic, so that a picture comes several times in it. Shifts: all pictures at 40 % of their light,
all blurred by 2 % of their width, and one unseen class in fifteen of a hundred pictures whose name the champion was
not given. Prints a table, writes JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from zsl import Data, data_sets, loaded, made, options

from ayeaye.classifier.model import Classifier
from ayeaye.core.files import write_atomic
from ayeaye.core.params import Watch
from ayeaye.core.workspace import Workspace
from ayeaye.data import bestiary
from ayeaye.data.decode import decode
from ayeaye.data.table import Dataset
from ayeaye.evaluation import drift
from ayeaye.evaluation.drift import Answers, Reference
from ayeaye.pipeline import reference
from ayeaye.pipeline.progress import Progress
from ayeaye.pipeline.train import train

SIZES = (200, 1000)
NEW_SHARE = 0.15
FRESH = 12  # pictures of each species that are drawn as traffic
SPACES = {"bestiary": "[word2vec, tfidf]", "grocery": "tfidf"}
SHIFTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean": lambda picture: picture,
    "darkened": lambda picture: ImageEnhance.Brightness(picture).enhance(0.4),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.02 * picture.width)),
}
SCENARIOS = ("no shift, as held out", "no shift, other popularity", "darkened", "blurred", "new class")


class Pool:
    """Embeddings (n, d) by shift of the pictures that may be traffic, and their classes y (n,).

    `held_out` is the same of pictures for the reference; None where both are parted from one pool.
    """

    def __init__(
        self, X: dict[str, np.ndarray], y: np.ndarray, held_out: tuple[np.ndarray, np.ndarray] | None
    ):
        self.X, self.y, self.held_out = X, y, held_out

    def parted(self, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embeddings and classes for the reference, and which rows may be traffic."""
        if self.held_out:
            return *self.held_out, np.arange(len(self.y))
        order = chance.permutation(len(self.y))
        order = order[np.argsort(self.y[order], kind="stable")]
        ours, theirs = np.sort(order[::2]), np.sort(order[1::2])
        return self.X["clean"][ours], self.y[ours], theirs


def champion(name: str, data: Data, work: Path) -> tuple[Classifier, Pool]:
    workspace = made(name, data, work)
    if not (workspace.classifier / "bundle.json").is_file():
        loaded(workspace, data.spaces[SPACES[name]])
        train(Workspace(workspace.root), Progress())
    classifier = Classifier.load(workspace.classifier)
    kept = work / f"{name}.npz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = embedded(name, workspace, classifier)
        np.savez(kept, **found)
    with np.load(kept) as found:
        X = {shift: found[shift] for shift in SHIFTS}
        held_out = (found["held_out"], found["held_out_y"]) if "held_out" in found else None
        return classifier, Pool(X, found["y"], held_out)


def embedded(name: str, workspace: Workspace, classifier: Classifier) -> dict[str, np.ndarray]:
    dataset = Dataset.load(workspace.dataset)
    names = dataset.classes.names
    rows = dataset.manifest[dataset.manifest["split"].isin(["test_seen", "test_unseen"])]

    side = classifier.backbone.transform.resize

    def photographs() -> Iterator[tuple[Image.Image, int]]:
        for row in rows.itertuples():
            yield decode(dataset.picture(str(row.id)), target=side), names.index(str(row.label))

    def drawings() -> Iterator[tuple[Image.Image, int]]:
        seed, count = workspace.params.prepare.seed, workspace.params.prepare.species
        for animal in bestiary.species(count, seed):
            for number in range(FRESH):
                yield bestiary.draw(animal, 10_000 + number, seed), names.index(animal.name)

    if name != "bestiary":
        return through(classifier, photographs(), tuple(SHIFTS))
    held_out = through(classifier, photographs(), ("clean",))
    return {
        **through(classifier, drawings(), tuple(SHIFTS)),
        "held_out": held_out["clean"],
        "held_out_y": held_out["y"],
    }


def through(
    classifier: Classifier, pictures: Iterator[tuple[Image.Image, int]], shifts: tuple[str, ...]
) -> dict[str, np.ndarray]:
    X: dict[str, list[np.ndarray]] = {shift: [] for shift in shifts}
    y: list[int] = []
    batch: list[Image.Image] = []

    def flush() -> None:
        for shift in shifts if batch else ():
            X[shift].append(classifier.embed([SHIFTS[shift](picture) for picture in batch]))
        batch.clear()

    for picture, number in pictures:
        batch.append(picture)
        y.append(number)
        if len(batch) == 64:
            flush()
    flush()
    return {**{shift: np.concatenate(parts) for shift, parts in X.items()}, "y": np.array(y)}


def without(classifier: Classifier, column: int) -> Classifier:
    """The classifier as if one of its unseen classes had not been in the class table."""
    kept = [c for c in range(len(classifier.labels)) if c != column]
    return replace(
        classifier,
        space=classifier.space.take(kept),
        seen=classifier.seen[kept],
        correction=classifier.correction.take(kept),
    )


def popularity(y: np.ndarray, seen: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Probabilities (n,) of pictures: classes differ up to eightfold, and a tenth to a half is of unseen ones."""
    weight = 8 ** chance.random(len(seen))
    share = weight[y] / np.bincount(y, minlength=len(seen))[y]
    of_unseen = chance.uniform(0.1, 0.5)
    for side, part in ((seen[y], 1 - of_unseen), (~seen[y], of_unseen)):
        share[side] *= part / share[side].sum()
    return share / share.sum()


def drawn(
    classifier: Classifier, pool: Pool, scenario: str, size: int, seed: int
) -> tuple[Reference, Answers]:
    chance = np.random.default_rng([seed, size, SCENARIOS.index(scenario)])
    X, y, rows = pool.parted(chance)
    seen, names = classifier.seen, np.array(classifier.labels)
    shift = scenario if scenario in SHIFTS else "clean"
    if scenario == "new class":
        new = int(chance.choice(np.flatnonzero(~seen)))
        classifier = without(classifier, new)
        X, y = X[y != new], y[y != new]
        strangers, rows = rows[pool.y[rows] == new], rows[pool.y[rows] != new]
        share = popularity(pool.y[rows], seen, chance)
        few = round(NEW_SHARE * size)
        chosen = np.concatenate([chance.choice(strangers, few), chance.choice(rows, size - few, p=share)])
    elif scenario == "no shift, as held out":
        # With the popularity of the reference's classes.
        counts = np.bincount(y, minlength=len(seen)) / np.bincount(pool.y[rows], minlength=len(seen)).clip(1)
        share = counts[pool.y[rows]]
        chosen = chance.choice(rows, size, p=share / share.sum())
    else:
        chosen = chance.choice(rows, size, p=popularity(pool.y[rows], seen, chance))
    return Reference(reference.answers(classifier, X), names[y]), reference.answers(
        classifier, pool.X[shift][chosen]
    )


def measured(classifier: Classifier, pool: Pool, scenario: str, size: int, draws: int) -> dict[str, Any]:
    watch = Watch()
    found = [
        drift.compare(
            *drawn(classifier, pool, scenario, size, seed),
            np.zeros(0, str),
            watch.maximum,
            watch.significance,
        )
        for seed in range(draws)
    ]
    figures = {figure.figure: [] for figure in found[0].figures}
    for comparison in found:
        for figure in comparison.figures:
            figures[figure.figure].append(figure)
    return {
        "scenario": scenario,
        "answers": size,
        "alarms": float(np.mean([bool(comparison.drifted) for comparison in found])),
        **{
            name: {
                "drifted": float(np.mean([each.drifted for each in rows])),
                "difference": [
                    float(q) for q in np.quantile([each.difference for each in rows], (0.05, 0.5, 0.95))
                ],
                "p": float(np.median([each.p for each in rows])),
            }
            for name, rows in figures.items()
        },
    }


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(work=Path("build") / "bench-drift")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    os.environ.setdefault("DO_NOT_TRACK", "1")
    rows = []
    for name, data in data_sets(chosen.data).items():
        if name not in SPACES or chosen.only not in name:
            continue
        if name == "grocery":  # half of the pictures are held out, so that there are enough to part
            data = replace(data, settings=[*data.settings, "prepare.test_share=0.5"])
        classifier, pool = champion(name, data, chosen.work)
        print(f"\n{name}: {len(pool.y)} pictures\n")
        print(
            "| traffic | answers | alarms | of confidence | margin | none of these | vectors | differences |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for scenario in SCENARIOS:
            for size in SIZES:
                row = measured(classifier, pool, scenario, size, chosen.draws)
                rows.append({"data": name, **row})
                names = ("confidence", "margin", "none_of_these", "vectors")
                cells = [f"{row[figure]['drifted']:.2f}" for figure in names]
                spans = ", ".join(
                    f"{row[figure]['difference'][1]:.2f} ({row[figure]['difference'][2]:.2f})"
                    for figure in names
                )
                print(
                    f"| {scenario} | {size} | {row['alarms']:.2f} | {' | '.join(cells)} | {spans} |",
                    flush=True,
                )
    if chosen.out:
        write_atomic(chosen.out, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
