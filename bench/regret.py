"""What it costs to let `train.select: auto` choose: its regret against the best single choice; prints JSON.

python bench/regret.py [--data DIR] [--work DIR] [--only TEXT] [--draws 20] [--out FILE]

Each draw takes a third of the seen classes away; everything is chosen on the others alone, by auto and for each
family, a mapper on one source or on all, by itself. What was chosen is fitted on their pictures and measured on
the classes that were taken away, beside held-out pictures of the others: no test picture is looked at. The
regret is the figure of the family that is best over all draws, known only afterwards, less that of auto, in
points of 100.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from zsl import data_sets, loaded, made, options

from ayeaye.mappers import create
from ayeaye.pipeline.blending import Candidate, blended, families, figures_of
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds, hold_out

FIGURES = ("AUSUC", "H", "T1")
ALSO = ("sae",)  # beside the families of auto


def draw(data: Examples, number: int, folds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Figures of auto and of every family on classes that neither was chosen on."""
    chance = np.random.default_rng(number)
    pool = np.flatnonzero(data.pool)
    away = np.isin(np.arange(len(data.pool)), chance.choice(pool, len(pool) // 3, replace=False))
    known = data.seen & ~away
    inner = class_folds(data.pool & ~away, folds, repeats, number)
    auto, others = families(None, data), families(list(ALSO), data)
    found = blended(auto, data, inner, known=known)
    alone = found.alone + blended(others, data, inner, known=known).alone
    held = hold_out(data, away, data.seen)
    singles = dict(zip(map(named, auto + others), alone, strict=True))
    figures = {}
    chosen = {"auto": {"mapper": found.mapper, "settings": found.settings}, **singles}
    for name, mapper in chosen.items():
        fold = held.score(create(mapper["mapper"], **mapper["settings"]), 0, "cpu")
        figures[name] = figures_of(fold)
    return figures


def named(family: Candidate) -> str:
    said = ", ".join(map(str, family.fixed.values()))
    return f"{family.mapper}{f' ({said})' if said else ''} on {family.source or 'all'}"


def regret(draws: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for figure in FIGURES:
        values = {name: np.array([each[name][figure] for each in draws]) for name in draws[0]}
        auto = values.pop("auto")
        best = max(values, key=lambda name: values[name].mean())
        lost = 100 * (values[best] - auto)
        result[figure] = {
            "auto": float(auto.mean()),
            "best single choice": best,
            "of it": float(values[best].mean()),
            "mean regret": float(lost.mean()),
            "error": float(lost.std() / np.sqrt(len(lost))),
            "families": {name: float(each.mean()) for name, each in values.items()},
        }
    return result


def main() -> None:
    parser = options(__doc__, only="grocery", repeats=4)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {}
    for name, data in data_sets(arguments.data).items():
        for space, settings in data.spaces.items():
            if arguments.only in f"{name}/{space}":
                found = loaded(made(name, data, arguments.work), settings)
                draws = [
                    draw(found, number, arguments.folds, arguments.repeats)
                    for number in range(arguments.draws)
                ]
                result[f"{name}/{space}"] = regret(draws)
                print(json.dumps({f"{name}/{space}": result[f"{name}/{space}"]}, indent=1), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
