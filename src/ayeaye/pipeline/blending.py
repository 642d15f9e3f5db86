"""Choosing mappers, their settings and the weights of class-space sources, on folds of pretend-unseen classes.

Each family, a mapper on all of the class vectors or on those of one source, races its settings over the folds;
then the winners are blended, one after the other as long as that helps (ensemble selection, Caruana et al.
2004), which weighs mappers and sources alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ayeaye.evaluation.metrics import Fold, curve_figures
from ayeaye.mappers import AUTO, MAPPERS, Blend, create
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import HeldOut, hold_out

LAP = 3  # folds between two looks at which settings leave a race
BEHIND = 2.0  # standard errors behind the best of its family at which one leaves
STEPS = (0.25, 0.5, 1.0)  # shares of what is blended already with which another one may join
FIGURES = ("T1", "H", "AUSUC")

Settings = dict[str, Any]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Blended:
    """The best mapper and its settings, its cosines on every fold, and the best mapper of each family alone.

    `ranking` has a row for it, then by score the blends on the way to it and every setting of every family:
    mapper, settings, how many folds it was tried on, and the mean and spread over these of its figures.
    """

    mapper: str
    settings: Settings
    ranking: list[Figures]
    folds: list[Fold]
    alone: list[Settings]


class Candidate(NamedTuple):
    """A mapper, the one source whose class vectors it sees (none for all), and settings that are not tuned."""

    mapper: str
    source: str | None = None
    fixed: Mapping[str, Any] = MappingProxyType({})


def families(
    mapper: str | Sequence[str] | None, examples: Examples, *, weighted: bool = False
) -> list[Candidate]:
    """What there is to choose among: `mapper` is one name, several, or none for all of AUTO.

    Where class vectors are of several sources, a mapper in closed form also sees each of them alone, unless
    the user has `weighted` them.
    """
    names = [mapper] if isinstance(mapper, str) else mapper
    asked = AUTO if names is None else [(name, {}) for name in names]
    alone = () if weighted or len(examples.sources) < 2 else tuple(examples.sources)
    return [
        Candidate(name, source, fixed)
        for name, fixed in asked
        for source in (None, *(alone if MAPPERS[name].closed_form else ()))
    ]


def blended(
    among: Sequence[Candidate],
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    known: np.ndarray | None = None,
    tuned: bool = True,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Blended:
    """The blend of families that does best by mean AUSUC over the folds, each with its most regular settings
    among the good ones.

    `known` (C,) are the seen classes that may be looked at at all (none given: every seen class). Unless
    `tuned`, mappers keep their default settings.
    """
    known = examples.seen if known is None else known
    races = [SuccessiveElimination(family, examples, tuned) for family in among]
    open_races = [race for race in races if len(race.grid) > 1]
    steps, done = len(folds) * (len(open_races) + len(races)), 0

    def each_fold(entered: Sequence[SuccessiveElimination]) -> Iterator[tuple[int, HeldOut]]:
        # Folds outside: what mappers derive from the images alone they derive once a fold.
        nonlocal done
        for fold in folds if entered else ():
            held = hold_out(examples, fold & known, known)
            for place in range(len(entered)):
                yield place, held
                done += 1
                if progress:
                    progress(done, steps)

    for place, held in each_fold(open_races):
        open_races[place].run(held, seed, device)
    members = [race.member(race.chosen) for race in races]
    library: list[list[Part]] = [[] for _ in races]
    for place, held in each_fold(races):
        library[place].append(part_of(held, members[place], seed, device))
    for race, parts in zip(races, library, strict=True):
        if race not in open_races:
            race.figures = [[figures_of(part.fold) for part in parts]]
    path = blends(library)
    found = [mixed(library, weights) for weights in path]
    rows = [
        {**_as_mapper(members, weights), **summary([figures_of(fold) for fold in each])}
        for weights, each in zip(path, found, strict=True)
    ]
    alone = [_as_mapper([member], [1.0]) for member in members]
    return Blended(rows[-1]["mapper"], rows[-1]["settings"], _ranking(races, rows), found[-1], alone)


class SuccessiveElimination:
    """The settings of a family, tried fold by fold; those far behind the best leave early (Maron & Moore 1994)."""

    def __init__(self, family: Candidate, examples: Examples, tuned: bool = True) -> None:
        mapper = MAPPERS[family.mapper]
        self.family = family
        self.columns = None if family.source is None else examples.sources[family.source]
        fixed = family.fixed.items()
        grid = [each for each in mapper.grid() if all(each.get(key, value) == value for key, value in fixed)]
        # What is fixed may be none of the grid's: then there is nothing to choose.
        self.grid = [{**each, **family.fixed} for each in (grid or [{}] if tuned else [mapper.defaults()])]
        self.figures: list[list[Figures]] = [[] for _ in self.grid]
        self.running = list(range(len(self.grid)))

    def run(self, held: HeldOut, seed: int, device: str) -> None:
        """Try what is still running on one more fold."""
        for place in self.running:
            mapper = create(self.family.mapper, **self.grid[place])
            self.figures[place].append(figures_of(held.score(mapper, seed, device, self.columns)))
        if len(self.figures[self.running[0]]) % LAP == 0:
            found = [summary(self.figures[place]) for place in self.running]
            best = max(found, key=lambda each: each["score"])
            least = best["score"] - BEHIND * best["score_error"]
            self.running = [
                place for place, each in zip(self.running, found, strict=True) if each["score"] >= least
            ]

    @property
    def chosen(self) -> int:
        if len(self.grid) == 1:
            return 0
        decided = [[decided_by(each) for each in self.figures[place]] for place in self.running]
        return self.running[most_regular(np.array(decided))]

    def member(self, place: int) -> Settings:
        """The family with one of its settings, as a member of a blend."""
        member = {"mapper": self.family.mapper, "settings": self.grid[place]}
        return member if self.columns is None else {**member, "columns": list(self.columns)}


class Part(NamedTuple):
    """A member's cosines on one fold, and the scale that a blend gives them."""

    fold: Fold
    scale: float


def part_of(held: HeldOut, member: Settings, seed: int, device: str) -> Part:
    alone = Blend(members=[member])
    fold = held.score(alone, seed, device)
    return Part(fold, float(alone.factors_[0] ** 2))


def mixed(library: Sequence[Sequence[Part]], weights: np.ndarray) -> list[Fold]:
    """Fold by fold the cosines of the blend of members with these weights, as Blend would give them."""
    folds = []
    for parts in zip(*library, strict=True):
        factors = [weight * part.scale for weight, part in zip(weights, parts, strict=True)]
        scores = sum(
            np.float32(factor / sum(factors)) * part.fold.scores
            for factor, part in zip(factors, parts, strict=True)
            if factor
        )
        folds.append(parts[0].fold._replace(scores=scores))
    return folds


def blends(library: Sequence[Sequence[Part]]) -> list[np.ndarray]:
    """Weights of the members, from the best one alone to the best blend.

    Greedy: the best member, then whichever joins with the highest gain, while that is above its standard
    error over the folds.
    """

    def scores(weights: np.ndarray) -> np.ndarray:
        return np.array([decisive(fold) for fold in mixed(library, weights)])

    singles = np.eye(len(library))
    tried = [scores(row) for row in singles]
    first = int(np.argmax([each.mean() for each in tried]))
    path, best = [singles[first]], tried[first]
    while len(path) < len(library):
        joined = [(path[-1] + step * row) / (1 + step) for row in singles for step in STEPS]
        tried = [scores(weights) for weights in joined]
        first = int(np.argmax([each.mean() for each in tried]))
        gain = tried[first] - best
        if gain.mean() <= error_of(gain):
            break
        path.append(joined[first])
        best = tried[first]
    return path


def _as_mapper(members: Sequence[Settings], weights: Iterable[float]) -> Settings:
    """The mapper that the blend is, and its settings; a single member that sees everything is itself."""
    taken = [
        {**member, "weight": round(float(weight), 6)}
        for member, weight in zip(members, weights, strict=True)
        if weight
    ]
    if len(taken) == 1 and "columns" not in taken[0]:
        return {"mapper": taken[0]["mapper"], "settings": taken[0]["settings"]}
    return {"mapper": Blend.name, "settings": {"members": taken}}


def _ranking(races: Sequence[SuccessiveElimination], path: Sequence[Figures]) -> list[Figures]:
    rows = list(path[:-1])
    for race in races:
        for place, figures in enumerate(race.figures):
            row = _as_mapper([race.member(place)], [1.0])
            if row not in [{key: each[key] for key in row} for each in path]:
                rows.append({**row, **summary(figures)})
    return [path[-1], *sorted(rows, key=lambda row: -row["score"])]


def most_regular(scores: np.ndarray) -> int:
    """The first candidate, in the grid's order of regularity, that is as good as the best one; scores are
    (candidates, folds).

    As good is within one standard error of the best mean (Breiman et al. 1984), an error of the difference fold
    by fold, since folds differ in difficulty far more than candidates do: the very best of many settings is
    mostly the luckiest.
    """
    best = scores[scores.mean(axis=1).argmax()]
    return next(place for place, each in enumerate(scores) if np.mean(best - each) <= error_of(best - each))


def figures_of(fold: Fold) -> dict[str, float]:
    """T1, the best H along the curve and AUSUC; those of a side without pictures are left out."""
    return curve_figures(fold.scores, fold.y, fold.seen)


def summary(figures: Sequence[Figures]) -> Figures:
    """Mean and spread over folds of each figure; `score` is that of the figure that decides."""
    result: Figures = {"folds": len(figures)}
    for name in FIGURES:
        values = np.array([each[name] for each in figures if name in each], float)
        result[name] = float(values.mean()) if len(values) else None
        result[f"{name}_spread"] = float(values.std()) if len(values) else None
    decides = "T1" if result["AUSUC"] is None else "AUSUC"
    result["score"] = result[decides] or 0.0
    result["score_error"] = (result[f"{decides}_spread"] or 0.0) / np.sqrt(len(figures))
    return result


def decisive(fold: Fold) -> float:
    """The figure that decides, of one fold."""
    return decided_by(figures_of(fold))


def decided_by(figures: dict[str, float]) -> float:
    """AUSUC, or T1 where no picture of a seen class was held out and there is no curve."""
    return figures.get("AUSUC", figures.get("T1", 0.0))


def error_of(values: np.ndarray) -> float:
    """Standard error of the mean over folds."""
    return float(values.std() / np.sqrt(len(values)))
