"""How often the gate promotes a better model and refuses a worse one, by simulation; prints JSON.

python bench/release.py [--draws 200] [--seed 0] [--out FILE] [--docs DIR] [--of FILE]

A champion and a challenger answer the same pictures. Each class has an accuracy of its own and a difference of
its own; what both find hard goes together (a Gaussian copula), closely in a retrain of the champion, less in another
kind of model. Their answers go through the gate's own code. The true
difference is that of the mean over the classes of the holdout; `sampled` takes it as that of all classes there
might be, of which the holdout's are a sample.

With --docs, DIR/release-simulation.md and .png are written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import norm

from ayeaye.core.params import Evaluate, Params, Release
from ayeaye.release import gate
from ayeaye.release.compare import Answers, Compared, Pair, compared, slices_of

DIFFERENCES = (-0.10, -0.05, -0.03, -0.02, 0.0, 0.02, 0.03, 0.05, 0.10)
FEW = (-0.05, 0.0, 0.05)
EPSILONS = (0.0, 0.01, 0.02, 0.05)
LOSSES_IN_SLICE = (0.0, 0.05, 0.10, 0.20, 0.30)
# How challengers go with the champion: the correlation, and the standard deviation of the classes' differences
# around their mean. Set so that they disagree about as many pictures, and their classes differ as much, as was
# measured on the 2,967 unseen pictures of CUB: ridge against itself fitted on nine tenths of the pictures 3.3 % and
# 0.015, against ESZSL 13.5 % and 0.12.
RETRAIN = {"correlation": 0.993, "spread": 0.015}
OTHER = {"correlation": 0.92, "spread": 0.10}
KINDS = {"retrain": RETRAIN, "other": OTHER}
RESAMPLES = 200
DEFAULTS = Release()


@dataclass(frozen=True)
class Size:
    """A holdout: the group of each unseen and each seen class, and the pictures of a class on either side."""

    name: str
    unseen: tuple[str, ...]
    pictures_unseen: int
    seen: tuple[str, ...]
    pictures_seen: int
    share: float = 1.0  # of the draws: a large holdout takes long

    @property
    def groups(self) -> dict[str, str]:
        named = [*self.unseen, *self.seen]
        return {f"class {number}": group for number, group in enumerate(named) if group}


def _grouped(sizes: Mapping[str, int], classes: int) -> tuple[str, ...]:
    named = [group for group, size in sizes.items() for _ in range(size)]
    return tuple(named + [""] * (classes - len(named)))


def _even(groups: int, each: int) -> tuple[str, ...]:
    return _grouped({f"{number}": each for number in range(groups)}, groups * each)


SIZES = (
    Size("demo", _even(5, 4), 24, _even(5, 20), 6),
    # Its own groups that have three classes on a side.
    Size(
        "grocery",
        _grouped({"melon": 3, "pear": 3, "juice": 3}, 20),
        40,
        _grouped({"juice": 7, "milk": 6, "yoghurt": 5, "apple": 4, "tomato": 3}, 61),
        10,
    ),
    Size("CUB", _even(5, 10), 59, _even(5, 30), 12, 0.4),
)


def draw(
    size: Size,
    difference: float,
    chance: np.random.Generator,
    *,
    correlation: float,
    spread: float,
    sampled: bool = False,
    group: str = "",
    loss: float = 0.0,
) -> Pair:
    """Answers of both where the challenger is better by `difference` in T1, U and S, negative where worse.

    In `group` it is worse by `loss`, and in the others better by so much more that the mean is `difference`.
    """
    y, unseen, new, old = [], [], [], []
    start = 0
    for groups, pictures, side in (
        (size.unseen, size.pictures_unseen, True),
        (size.seen, size.pictures_seen, False),
    ):
        classes = len(groups)
        base = np.clip(chance.normal(0.6 if side else 0.75, 0.2, classes), 0.05, 0.97)
        own = _differences(groups, difference, spread, sampled, group, loss, chance)
        labels = np.repeat(np.arange(classes), pictures)
        common = chance.normal(size=len(labels))
        hard = [
            np.sqrt(correlation) * common + np.sqrt(1 - correlation) * chance.normal(size=len(labels))
            for _ in range(2)
        ]
        # Some pictures that are right among the unseen classes are given a seen class.
        among_all = base * (0.6 if side else 1.0)
        for answers, latent, more in ((new, hard[0], own), (old, hard[1], None)):
            shares = [each if more is None else _moved(each, more) for each in (among_all, base)]
            right = [latent < norm.ppf(share)[labels] for share in shares]
            answers.append(np.stack([right[0], right[1] & side], axis=1))
        y.append(labels + start)
        unseen.append(np.full(len(labels), side))
        start += classes
    label = np.array([f"class {number}" for number in np.concatenate(y)])
    sides = [np.concatenate(each).astype(float) for each in (new, old)]
    return Pair(label, np.concatenate(unseen), Answers(*sides[0].T), Answers(*sides[1].T))


def _differences(
    groups: Sequence[str],
    difference: float,
    spread: float,
    sampled: bool,
    group: str,
    loss: float,
    chance: np.random.Generator,
) -> np.ndarray:
    """Of each class (C,)."""
    own = chance.normal(0, spread, len(groups))
    if not sampled:
        own -= own.mean()
    inside = np.array(groups) == group if group else np.zeros(len(groups), dtype=bool)
    if inside.any():
        own[inside] -= own[inside].mean() + loss + difference
        own[~inside] -= own[~inside].mean() - (loss + difference) * inside.sum() / (~inside).sum()
    return difference + own


def _moved(share: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Shares (C,) of right answers moved by `more`, their mean exactly by its mean as far as 0 and 1 allow."""
    moved = np.clip(share + more, 0.005, 0.995)
    for _ in range(50):
        moved = np.clip(moved + more.mean() - (moved - share).mean(), 0.005, 0.995)
    return moved


def params_of(**release: Any) -> Params:
    return Params(evaluate=Evaluate(bootstrap=RESAMPLES), release=DEFAULTS.model_copy(update=release))


def promoted(losses: Sequence[gate.Loss], release: Release) -> bool:
    return gate.decide({}, release, champion=1, losses=losses).verdict == "promoted"


def power(
    size: Size,
    differences: Sequence[float],
    epsilons: Sequence[float],
    draws: int,
    seed: int,
    **how: Any,
) -> list[dict[str, Any]]:
    """The share of challengers that is promoted, without slices, for each true difference and each epsilon."""
    rows = []
    for difference in differences:
        chance = np.random.default_rng([seed, round(1000 * (difference + 1))])
        passed = np.zeros((draws, len(epsilons)))
        for number in range(draws):
            params = params_of(slices=False)
            losses = compared(draw(size, difference, chance, **how), params).losses
            passed[number] = [promoted(losses, params_of(epsilon=each).release) for each in epsilons]
        shares = dict(zip(map(str, epsilons), passed.mean(axis=0).tolist(), strict=True))
        rows.append({"difference": difference, "promoted": shares})
    return rows


RULES = {
    "upper bound above ε, each by itself": "upper",
    "lower bound above 0 and loss above ε, each by itself": "alone",
    "lower bound above ε, together": "lower",
    "lower bound above 0 and loss above ε, together (the gate)": "gate",
}


def sliced(pair: Pair, size: Size) -> Compared:
    return compared(pair, params_of(), slices_of(pair, size.groups, ()))


def refusals(pair: Pair, size: Size) -> dict[str, set[str]]:
    """The slices for which each of the RULES would refuse; that of the gate by its own checks."""
    together = [loss for loss in sliced(pair, size).losses if loss.slice]
    share = 1 - (1 - DEFAULTS.confidence) / max(1, len(together))
    # What the bounds would be if each slice were the only one.
    narrower = NormalDist().inv_cdf(DEFAULTS.confidence) / NormalDist().inv_cdf(share)
    alone = [
        replace(
            loss,
            lower=loss.value - narrower * (loss.value - loss.lower),
            upper=loss.value + narrower * (loss.upper - loss.value),
        )
        for loss in together
    ]
    epsilon = DEFAULTS.slice_epsilon
    checks = gate.relative(together, DEFAULTS, champion=1) if together else []
    return {
        "upper": {loss.slice for loss in alone if loss.upper > epsilon},
        "alone": {loss.slice for loss in alone if loss.value > epsilon and loss.lower > 0},
        "lower": {loss.slice for loss in together if loss.lower > epsilon},
        "gate": {loss.slice for loss, check in zip(together, checks, strict=True) if check.passed is False},
    }


def slices(size: Size, draws: int, seed: int) -> dict[str, Any]:
    """How often each rule refuses: equal models, models whose classes differ, and one that loses in a group."""
    victim = max(size.groups.values(), key=list(size.unseen).count)
    cases: dict[str, dict[str, Any]] = {
        "equal in every class": {"difference": 0.0, **OTHER, "spread": 0.0},
        "a retrain, equal as a whole": {"difference": 0.0, **RETRAIN},
        "another kind, equal as a whole": {"difference": 0.0, **OTHER},
        "another kind, better by 0.05": {"difference": 0.05, **OTHER},
    }
    found: dict[str, Any] = {"group": victim, "equal": {}, "losing": []}
    for name, case in cases.items():
        chance = np.random.default_rng([seed, len(name)])
        refused = [refusals(draw(size, chance=chance, **case), size) for _ in range(draws)]
        found["equal"][name] = {
            rule: float(np.mean([bool(r[rule]) for r in refused])) for rule in RULES.values()
        }
    for loss in LOSSES_IN_SLICE:
        chance = np.random.default_rng([seed, round(1000 * loss)])
        pairs = [draw(size, 0.05, chance, group=victim, loss=loss, **OTHER) for _ in range(draws)]
        refused = [refusals(pair, size) for pair in pairs]
        found["losing"].append(
            {"loss": loss}
            | {
                rule: float(np.mean([f"group {victim}" in r[rule] for r in refused]))
                for rule in RULES.values()
            }
        )
    return found


def whole(size: Size, draws: int, seed: int, **how: Any) -> list[dict[str, Any]]:
    """What the defaults do, slices and all."""
    rows = []
    for difference in FEW:
        chance = np.random.default_rng([seed, round(1000 * (difference + 1))])
        losses = [sliced(draw(size, difference, chance, **how), size).losses for _ in range(draws)]
        share = float(np.mean([promoted(each, DEFAULTS) for each in losses]))
        rows.append({"difference": difference, "promoted": share})
    return rows


def disagreement(draws: int = 20, **how: Any) -> float:
    """How often champion and challenger of equal worth differ about an unseen picture, in T1."""
    chance = np.random.default_rng(0)
    pairs = [draw(SIZES[0], 0.0, chance, **how) for _ in range(draws)]
    return float(
        np.mean([np.mean(p.new.among_unseen[p.unseen] != p.old.among_unseen[p.unseen]) for p in pairs])
    )


# ---- the page ----

HEAD = """# What the gate can tell

Made by `bench/release.py` with the gate's own code. Against the champion a challenger is refused when the \
one-sided 95 % upper bound of its loss, in T1 or in H, is above `release.epsilon`. How often does that \
promote a better model and refuse a worse one? That depends on how many pictures there are, and on how many \
of them the two disagree about. A *retrain* is the same kind of model after a few more pictures: the two \
disagree about {retrain} of the unseen pictures. *Another kind of model* disagrees about {other}, and its \
classes differ more. Both are as measured on CUB: ridge against ridge on nine tenths of the pictures (3.3 \
%), ridge against ESZSL (13.5 %).

![Share promoted and share refused for a slice, by size of the holdout](release-simulation.png)

## The whole

The share of challengers that is promoted, by their true difference in accuracy. A share from 80 draws is \
off by up to 0.11 (two standard errors). Two columns are of fewer differences: with the classes a sample, \
the true difference is that of all classes there might be, and the holdout's happen to be others; with \
slices, these may refuse too.
"""
SLICES = """## Slices

For slices the first rule, an upper bound as for the whole, would refuse nearly every model, an equal one as \
well: a slice has few pictures, so that its bound is wide. What refuses instead is a loss above \
`release.slice_epsilon` (0.05) whose lower bound is above 0, where all slices share one risk of error of 5 \
%. Each by itself, that risk would be taken once for every slice; a lower bound above ε would leave losses \
of 0.10 unnoticed. Models that are equal as a whole but not class by class do lose in some groups, by chance \
of the classes: to refuse these is no mistake.

The share of challengers that is refused for any slice; in the last rows for the group that they truly lose \
in.
"""
LIMITS = """## What follows

- **ε = 0.02, the default, protects production at every size**: a model that is worse by 0.02 is promoted in \
at most 1 % of the draws, one worse by 0.05 never, unless the holdout's classes happen to be those that it \
does better (1 % on the demo).
- It promotes what is clearly better: at a gain of 0.05 nearly always, at 0.02 a retrain nearly always and \
another kind of model in about four draws of five on the demo's 480 unseen pictures, nine of ten on the 799 \
of Grocery, always on the 2,967 of CUB.
- It cannot tell an equal model from a slightly worse one where there are few pictures: on the demo an equal \
retrain is promoted in three draws of five, an equal model of another kind in one of seven; on CUB it is \
every one and four of five. Nothing is lost by that, as the champion is no worse; but who replaces a model \
for another reason, such as speed, needs more pictures (the decision says how many) or `ayeaye promote \
--force`.
- ε = 0.05 would promote nearly every equal model, and on the demo a retrain that is worse by 0.02 in 84 % \
of the draws: week after week, that is a slow decline. ε = 0.01 refuses four of five equal retrains on demo \
and Grocery, ε = 0 every one.
- **Slices** rarely refuse a model that is equal in every class (5 to 6 % on demo and Grocery, as stated; \
never in the 32 draws of CUB), nearly always one that loses 0.20 in a group, mostly one that loses 0.10, and \
let a loss of 0.05 pass in most draws of demo and Grocery. Of models of another kind that are equal as a \
whole they refuse 38 to 59 %, since these do lose some group; the whole refuses most of them anyway. A \
retrain is hardly ever refused for a slice.
- The bounds are about the classes of the holdout, with more pictures of them. What a model does with \
classes that nobody has thought of yet they do not say, and more pictures would not either; more unseen \
classes with pictures would.
- A simulation is no proof: real models err in ways that go together with the picture, the class and the \
backbone at once. The disagreement that it was set by was measured on one data set.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _cell(promoted: float | Mapping[str, float] | None) -> str:
    if promoted is None:
        return ""
    return percent(promoted if isinstance(promoted, float) else promoted[str(DEFAULTS.epsilon)])


def percent(share: float, decimals: int = 0) -> str:
    return f"{100 * share:.{decimals}f} %"


TOLD = {"retrain": "a retrain", "other": "another kind of model"}


def drawn(result: Mapping[str, Any], path: Path) -> None:
    """Share promoted against the true difference for each epsilon, and share refused against a slice's loss."""
    from matplotlib.figure import Figure

    colours = ("#7A7A7A", "#0072B2", "#D55E00", "#009E73")
    figure = Figure(figsize=(11, 9.2), layout="constrained", facecolor="white")
    axes = figure.subplots(3, len(SIZES), sharey=True)
    for column, size in enumerate(SIZES):
        found = result["sizes"][size.name]
        for axis, (kind, said) in zip(axes[:2, column], TOLD.items(), strict=True):
            for epsilon, colour in zip(EPSILONS, colours, strict=True):
                shares = [row["promoted"][str(epsilon)] for row in found[kind]]
                label = f"ε = {epsilon:g}" + (" (default)" if epsilon == DEFAULTS.epsilon else "")
                axis.plot(DIFFERENCES, shares, "o-", ms=3.5, color=colour, label=label)
            axis.axvline(0, color="#B0B0B0", lw=0.8)
            axis.set_xlabel(f"true difference of {said}")
        counts = found["counts"]
        axes[0, column].set_title(
            f"{size.name}: {counts['unseen']:,} pictures of {len(size.unseen)} unseen,\n"
            f"{counts['seen']:,} of {len(size.seen)} seen classes",
            fontsize=9.5,
            loc="left",
        )
        bottom = axes[2, column]
        for (name, rule), colour in zip(RULES.items(), colours, strict=True):
            shares = [row[rule] for row in found["slices"]["losing"]]
            bottom.plot(LOSSES_IN_SLICE, shares, "o-", ms=3.5, color=colour, label=name)
            false = found["slices"]["equal"]["equal in every class"][rule]
            bottom.plot([-0.02], [false], "x", ms=8, mew=2, color=colour, clip_on=False)
        bottom.set_xlabel("true loss in one group; overall better by 0.05\n× equal models, any slice")
        for axis in axes[:, column]:
            axis.grid(True, color="#E4E4E4", lw=0.7)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_ylim(-0.02, 1.02)
    for row, said in enumerate(("share promoted", "share promoted", "share refused for a slice")):
        axes[row, 0].set_ylabel(said)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.legend(*axes[2, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130)


def page(result: Mapping[str, Any]) -> str:
    parts = [HEAD.format(**{kind: percent(share, 1) for kind, share in result["disagreement"].items()})]
    for size in SIZES:
        found = result["sizes"][size.name]
        parts.append(
            f"### {size.name}: {found['counts']['unseen']:,} pictures of {len(size.unseen)} unseen classes, "
            f"{found['counts']['seen']:,} of {len(size.seen)} seen ones\n\n{found['draws']} draws.\n"
        )
        for kind, said in TOLD.items():
            head = [f"true difference of {said}", *(f"ε = {epsilon:g}" for epsilon in EPSILONS)]
            more = {f"ε = {DEFAULTS.epsilon:g} and slices": found["default"][kind]}
            if kind == "other":
                more = {f"ε = {DEFAULTS.epsilon:g}, the classes a sample": found["sampled"], **more}
            columns = [{row["difference"]: row["promoted"] for row in rows} for rows in more.values()]
            rows = [
                [f"{row['difference']:+.2f}"]
                + [percent(row["promoted"][str(epsilon)]) for epsilon in EPSILONS]
                + [_cell(column.get(row["difference"])) for column in columns]
                for row in found[kind]
            ]
            parts.append(table([*head, *more], rows))
    parts.append(SLICES)
    for size in SIZES:
        found = result["sizes"][size.name]
        rows = [
            [name, *(percent(shares[rule]) for rule in RULES.values())]
            for name, shares in found["slices"]["equal"].items()
        ]
        rows += [
            [f"another kind, better by 0.05, worse by {row['loss']:.2f} in the group"]
            + [percent(row[rule]) for rule in RULES.values()]
            for row in found["slices"]["losing"]
        ]
        parts.append(f"### {size.name}: {len(set(size.groups.values()))} groups\n\n"
                     f"{found['draws']} draws.\n")  # fmt: skip
        parts.append(table(["challenger", *RULES], rows))
    parts.append(LIMITS)
    return "\n".join(parts)


def write_page(result: Mapping[str, Any], folder: Path) -> None:
    drawn(result, folder / "release-simulation.png")
    (folder / "release-simulation.md").write_text(page(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the JSON, too")
    parser.add_argument("--docs", type=Path, help="folder of release-simulation.md and .png")
    parser.add_argument("--of", type=Path, help="make the page of the JSON of an earlier call")
    arguments = parser.parse_args()
    if arguments.of and arguments.docs:
        write_page(json.loads(arguments.of.read_bytes()), arguments.docs)
        return
    draws, seed = arguments.draws, arguments.seed
    result: dict[str, Any] = {
        "draws": draws,
        "disagreement": {kind: disagreement(**how) for kind, how in KINDS.items()},
        "defaults": DEFAULTS.model_dump(include={"epsilon", "confidence", "slice_epsilon"}),
        "sizes": {},
    }
    for size in SIZES:
        number = round(size.share * draws)
        result["sizes"][size.name] = {
            "counts": {
                "unseen": len(size.unseen) * size.pictures_unseen,
                "seen": len(size.seen) * size.pictures_seen,
            },
            "draws": number,
            **{kind: power(size, DIFFERENCES, EPSILONS, number, seed, **how) for kind, how in KINDS.items()},
            "sampled": power(size, FEW, [DEFAULTS.epsilon], number, seed, sampled=True, **OTHER),
            "slices": slices(size, number, seed),
            "default": {kind: whole(size, number, seed, **how) for kind, how in KINDS.items()},
        }
        print(size.name, flush=True, file=sys.stderr)
        if arguments.out:
            arguments.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    if arguments.docs:
        write_page(result, arguments.docs)


if __name__ == "__main__":
    main()
