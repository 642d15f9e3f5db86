"""Every mapper on every class space with every hub correction, on three data sets: one table and one picture.

python bench/zsl.py [--data DIR] [--work DIR] [--only TEXT] [--repeats 4] [--out docs]

DIR of --data holds grocery/, weights/, vectors/ and cub/cub_vgg_fc7.npz; without it only the bestiary is drawn.
Results are kept in --work, one file a row, so that a run that was stopped goes on; take rows away that a change of
the code has outdated. --only makes the rows whose name (data/space/mapper) holds the text. Everything is chosen on
folds of seen classes; each row looks at the test pictures once, and every look is written down in looks.log.
Mappers that draw random numbers are fitted with three seeds, and chosen on one parting into folds instead of
--repeats. The fits of a row have a process of their own, whose peak is their memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.classifier import hubs, nearest
from ayeaye.core import params
from ayeaye.core.files import write_atomic
from ayeaye.core.workspace import Workspace
from ayeaye.evaluation import metrics
from ayeaye.mappers import MAPPERS
from ayeaye.pipeline import blending, examples, selection
from ayeaye.pipeline.classes import classes
from ayeaye.pipeline.embed import embed
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import TUNING, class_folds
from ayeaye.pipeline.prepare import prepare
from ayeaye.pipeline.progress import Progress
from ayeaye.versioning import layout

FIGURES = ("T1", "U", "S", "H", "AUSUC", "seen_bias")
HEADINGS = (
    *("class space", "mapper", "T1", "U", "S", "H", "AUSUC", "seen bias", "hub excess"),
    *("hubs", "T1 without", "fit s", "MB", "select s", "folds"),
)
SEEDS = (0, 1, 2)
ROOT = Path(__file__).resolve().parents[1]
# label: mappers, and the settings that are not tuned
MAPPINGS: dict[str, tuple[list[str] | None, dict[str, Any]]] = {
    "auto": (None, {}),
    "ridge, linear": (["ridge"], {"kernel": "linear", "shrinkage": None}),
    "ridge, kernel": (["ridge"], {"kernel": "quadratic", "shrinkage": None}),
    "ridge, any kernel and metric": (["ridge"], {}),
    "eszsl": (["eszsl"], {}),
    "sae": (["sae"], {}),
    "drop_last": (["drop_last"], {}),
    "prototype": (["prototype"], {}),
    "rank, DeViSE": (["rank"], {"loss": "devise"}),
    "rank, ALE": (["rank"], {"loss": "ale"}),
    "class normalisation": (["prototype"], {"networks": 1, "hidden": 2048, "rate": 5e-4, "epochs": 50}),
}
# As long and wide as its paper trains it, a baseline of cost: in one place, and for one seed.
DEAR, WHERE = "class normalisation", "cub/attributes"


@dataclass(frozen=True)
class Data:
    """Settings of a workspace, and the class spaces tried on it."""

    settings: list[str]
    spaces: dict[str, list[str]]
    needs: list[str] = field(default_factory=list)


def data_sets(shared: Path) -> dict[str, Data]:
    news, twitter = (
        shared / "vectors" / name for name in ("googlenews_8000.w2v.bin", "glove_twitter_11925.25d.txt")
    )
    cub = ("attributes", "sentences", "wiki2vec", "conceptnet")
    found = {
        "cub": Data(
            ["prepare.source=features", f"prepare.path={shared}/cub/cub_vgg_fc7.npz"],
            {name: [f"classes.source={name}"] for name in cub}
            | {"all four": [f"classes.source=[{', '.join(cub)}]"]},
            [f"{shared}/cub/cub_vgg_fc7.npz"],
        ),
        "grocery": Data(
            [
                "prepare.source=folder",
                f"prepare.path={shared}/grocery",
                "embed.backbone=mobilenet_v2",
                f"embed.weights={shared}/weights/mobilenet_v2_1001.pth",
                "embed.mean=0.5",
                "embed.std=0.5",
            ],
            {
                "tfidf": ["classes.source=tfidf"],
                "word2vec": ["classes.source=word2vec", f"classes.vectors={news}"],
                "glove": ["classes.source=glove", f"classes.vectors={twitter}"],
                "word2vec and tfidf": ["classes.source=[word2vec, tfidf]", f"classes.vectors={news}"],
            },
            [f"{shared}/grocery", str(news), str(twitter)],
        ),
    }
    bestiary = {name: [f"classes.source={name}"] for name in ("tfidf", "word2vec", "[word2vec, tfidf]")}
    found["bestiary"] = Data(["prepare.seed=0"], bestiary)
    return {name: each for name, each in found.items() if all(map(os.path.exists, each.needs))}


def made(name: str, data: Data, work: Path) -> Workspace:
    """The workspace of a data set with its embeddings; made once."""
    folder = work / "workspaces" / name.replace(" ", "-")
    if not (folder / "params.yaml").is_file():
        layout.init(Workspace(folder), data.settings)
    workspace = Workspace(folder)
    if not any(workspace.embeddings.glob("*")):
        prepare(workspace, Progress())
        workspace.write_fingerprints()
        embed(workspace, Progress())
    return workspace


def loaded(workspace: Workspace, space: list[str]) -> Examples:
    params.assign(workspace.root / "params.yaml", ["classes.vectors=", *space])
    fresh = Workspace(workspace.root)
    classes(fresh)
    return examples.load(fresh)


def chosen(data: Examples, mapping: str, repeats: int) -> dict[str, Any]:
    """Mapper and settings, and by hub correction how its scores are read, from class folds alone."""
    names, fixed = MAPPINGS[mapping]
    among = [family._replace(fixed=fixed) for family in blending.families(names, data)]
    partings = repeats if all(MAPPERS[family.mapper].closed_form for family in among) else 1
    folds = class_folds(data.pool, 3, partings)
    before = time.process_time()
    found = blending.blended(among, data, folds)
    unseen = int((~data.seen).sum())
    readings = {
        kind: selection.calibrate_scores(found, kind, unseen=unseen) for kind in (*hubs.KINDS, "auto")
    }
    return {
        "mapper": found.mapper,
        "settings": found.settings,
        "on folds": {name: found.ranking[0][name] for name in ("T1", "H", "AUSUC", "AUSUC_spread")},
        "folds": len(folds),
        "select seconds": time.process_time() - before,
        "readings": {
            kind: {"hubs": each.hubs, "hub_settings": each.hub_settings, "gamma": each.gamma}
            for kind, each in readings.items()
        },
    }


def measured(data: Examples, choice: dict[str, Any]) -> dict[str, Any]:
    """Test figures by hub correction, means over seeds where the fit draws random numbers, and what it took."""
    learned = data.rows(*TUNING) & data.seen[data.y]
    test = data.rows("test_seen", "test_unseen")
    bank = data.rows("validation") & data.seen[data.y]
    members = [each["mapper"] for each in choice["settings"].get("members", [choice])]
    random = not all(MAPPERS[name].closed_form for name in members)
    seeds = SEEDS if random and choice["mapping"] != DEAR else SEEDS[:1]
    figures: dict[str, list[dict[str, float]]] = {}
    took = []
    for seed in seeds:
        plain = selection.Choice(choice["mapper"], choice["settings"], 0.0, 1.0)
        before = time.process_time()
        mapper = plain.fit(data, learned, seed=seed, device="cpu")
        took.append(time.process_time() - before)
        scores = nearest.scores(mapper.map_images(data.X[test]), mapper.map_classes(data.A))
        careful = plain.fit(data, data.rows("train") & data.seen[data.y], seed=seed, device="cpu")
        banked = nearest.scores(careful.map_images(data.X[bank]), careful.map_classes(data.A))
        for kind, reading in choice["readings"].items():
            correction = hubs.fit(reading["hubs"], reading["hub_settings"], banked)
            found = metrics.measure(
                correction.apply(scores), data.y[test], data.seen, reading["gamma"], resamples=100
            )
            row = {name: found[name] for name in FIGURES}
            figures.setdefault(kind, []).append({**row, "hub_excess": found["hubness"]["excess"]})
    return {
        "chance": 1 / int((~data.seen).sum()),
        "seeds": len(seeds),
        "fit seconds": float(np.median(took)),
        "megabytes": peak(),
        "figures": {
            kind: {
                name: {"mean": float(values.mean()), "spread": float(values.std())}
                for name in rows[0]
                for values in [np.array([row[name] for row in rows])]
            }
            for kind, rows in figures.items()
        },
    }


def peak() -> float:
    """Megabytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows_of(work: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((work / "rows").glob("*.json")):
        yield json.loads(path.read_bytes())


def step(name: str, what: str, chosen_arguments: argparse.Namespace) -> None:
    """One half of a row, in a process of its own."""
    data_name, space, mapping = name.split("/")
    data = data_sets(chosen_arguments.data)[data_name]
    path = chosen_arguments.work / "rows" / f"{name.replace('/', '--')}.json"
    found = loaded(made(data_name, data, chosen_arguments.work), data.spaces[space])
    if what == "choose":
        row = {"data": data_name, "space": space, "mapping": mapping}
        content = {**row, **chosen(found, mapping, chosen_arguments.repeats)}
    else:
        content = json.loads(path.read_bytes())
        content |= measured(found, content)
        with (chosen_arguments.work / "looks.log").open("a", encoding="utf-8") as log:
            log.write(f"{name}\n")
    write_atomic(path, json.dumps(content, indent=1).encode())


def run(arguments: argparse.Namespace) -> None:
    for data_name, data in data_sets(arguments.data).items():
        for space in data.spaces:
            for mapping in MAPPINGS:
                name = f"{data_name}/{space}/{mapping}"
                path = arguments.work / "rows" / f"{name.replace('/', '--')}.json"
                if arguments.only not in name or (mapping == DEAR and f"{data_name}/{space}" != WHERE):
                    continue
                held = json.loads(path.read_bytes()) if path.is_file() else {}
                for what, key in (("choose", "readings"), ("measure", "figures")):
                    if key not in held:
                        print(f"{name}: {what}", flush=True)
                        passed = [f"--{key}={getattr(arguments, key)}" for key in ("data", "work", "repeats")]
                        command = [sys.executable, __file__, "--step", what, "--only", name, *passed]
                        # One thread, so that what else the machine does changes the times little.
                        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def report(arguments: argparse.Namespace) -> None:
    rows = [row for row in rows_of(arguments.work) if "megabytes" in row]
    if not rows:
        sys.exit("no row is there yet")
    looks = len((arguments.work / "looks.log").read_text(encoding="utf-8").splitlines())
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "benchmark.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        shown = (*FIGURES, "hub_excess")
        writer.writerow(
            ["data", "class space", "mapper", "hub correction", "folds", "seeds", *shown]
            + [f"{name} spread" for name in shown]
            + ["select seconds", "fit seconds", "megabytes"]
        )
        for row in rows:
            for kind, figures in row["figures"].items():
                writer.writerow(
                    [row["data"], row["space"], row["mapping"], kind, row["folds"], row["seeds"]]
                    + [f"{figures[name]['mean']:.4f}" for name in shown]
                    + [f"{figures[name]['spread']:.4f}" for name in shown]
                    + [
                        f"{row['select seconds']:.1f}",
                        f"{row['fit seconds']:.2f}",
                        f"{row['megabytes']:.0f}",
                    ]
                )
    picture(rows, arguments.out / "benchmark.png")
    write_atomic(arguments.out / "benchmark.md", "\n".join(page(rows, looks)).encode())


def page(rows: list[dict[str, Any]], looks: int) -> Iterator[str]:
    yield "# Benchmark\n"
    yield "Made by `make bench-zsl`; every figure is from this code, on these data, on the machine named below.\n"
    yield (
        "Mapper, settings, weights of sources, offset and hub correction are chosen on folds of seen classes, as "
        "many as the table says, each a third of them. A row looks at the test pictures once it is chosen, for all "
        f"corrections and seeds; {looks} looks were taken for these {len(rows)} rows. T1 is the mean per-class "
        "accuracy of unseen pictures among unseen classes; U, S and H among all classes, at the offset that was "
        "chosen. ± is the standard deviation over three seeds of the fit, where it draws random numbers (class "
        "normalisation, as its paper trains it, has one). Figures are with the hub correction that the folds chose, "
        "as `ayeaye train` has it, and T1 also without; every correction is in [benchmark.csv](benchmark.csv). "
        "Fit s is the final fit, select s everything that is chosen before it, both in seconds of one thread; MB the "
        "most that the process of the final fits held, the embeddings among it.\n"
    )
    yield f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.\n"
    yield "![H against the seconds of a fit, by data set](benchmark.png)\n"
    for name in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == name]
        yield f"## {name}\n\nChance: T1 {here[0]['chance']:.3f}.\n"
        yield f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"
        for row in here:
            plain, auto = row["figures"]["none"], row["figures"]["auto"]
            cells = [f"{auto[key]['mean']:.3f}" for key in (*FIGURES, "hub_excess")]
            if row["seeds"] > 1:
                cells = [
                    f"{cell} ± {auto[key]['spread']:.3f}"
                    for cell, key in zip(cells, (*FIGURES, "hub_excess"), strict=True)
                ]
            cells += [row["readings"]["auto"]["hubs"], f"{plain['T1']['mean']:.3f}"]
            cells += [f"{row['fit seconds']:.2f}", f"{row['megabytes']:.0f}"]
            cells += [f"{row['select seconds']:.0f}", str(row["folds"])]
            yield f"| {row['space']} | {row['mapping']} | {' | '.join(cells)} |"
        yield ""


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for number, mapping in reversed(list(enumerate(MAPPINGS))):  # auto last, on top of what it chose
            here = [row for row in rows if row["data"] == name and row["mapping"] == mapping]
            look = {"s": 70, "marker": "*", "color": "black"} if mapping == "auto" else {"s": 24}
            look = {"color": plt.get_cmap("tab20")(number), **look}
            seconds = [max(row["fit seconds"], 1e-3) for row in here]
            axis.scatter(
                seconds, [row["figures"]["auto"]["H"]["mean"] for row in here], label=mapping, **look
            )
        axis.set(xscale="log", xlabel="seconds of a fit", title=name)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("H")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path, dpi=110)


def options(description: str | None, *, only: str = "", repeats: int = 4) -> argparse.ArgumentParser:
    """What every program takes that measures on these data sets."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-zsl")
    parser.add_argument("--only", default=only)
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--step", choices=("choose", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "rows").mkdir(exist_ok=True)
    if arguments.step:
        step(arguments.only, arguments.step, arguments)
        return
    run(arguments)
    report(arguments)


if __name__ == "__main__":
    main()
