"""Choosing mappers, class-space weights, settings and how scores are read, on folds of pretend-unseen classes.

Each family, a mapper on all of the class vectors or on those of one source, races its settings over the folds;
then the winners are blended, one after the other as long as that helps (ensemble selection, Caruana et al.
2004), which weighs mappers and sources alike; then the blend's hub correction, offset, temperature and
threshold are chosen on the same folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ayeaye.evaluation.metrics import Fold, point_figures
from ayeaye.labelling import calibration, hubs, nearest, unknown
from ayeaye.labelling.hubs import Correction
from ayeaye.mapping import AUTO, MAPPERS, Blend, Mapper, create
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import HeldOut, hold_out

LAP = 3  # folds between two looks at which settings leave a race
BEHIND = 2.0  # standard errors behind the best of its family at which one leaves
STEPS = (0.25, 0.5, 1.0)  # shares of what is blended already with which another one may join

FIGURES = ("T1", "H", "AUSUC")

Settings = dict[str, Any]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The settings chosen, with the hub correction, offset, temperature and threshold that go with them.

    `threshold` is the confidence below which a picture is of none of the classes. `ranking` has one row per
    candidate, the chosen one first, then by score: settings, and the mean and spread over folds of its
    figures; `corrections` the same of the hub corrections tried on the chosen settings, with the mean gain in
    the figure that decides.
    """

    mapper: str
    settings: dict[str, Any]
    gamma: float
    temperature: float
    threshold: float = 0.0
    hubs: str = "none"
    hub_settings: dict[str, Any] = field(default_factory=dict)
    ranking: list[dict[str, Any]] = field(default_factory=list)
    corrections: list[dict[str, Any]] = field(default_factory=list)

    def fit(self, examples: Examples, rows: np.ndarray, *, seed: int, device: str) -> Mapper:
        mapper = create(self.mapper, **self.settings)
        return mapper.fit(examples.X[rows], examples.y[rows], examples.A, seed=seed, device=device)

    def correct(
        self, examples: Examples, known: np.ndarray, columns: np.ndarray, *, seed: int, device: str
    ) -> Correction:
        """The hub correction of the classes `columns`, by a bank of pictures of the `known` classes (C,).

        The bank are their validation pictures under a mapper fitted on their training pictures alone: under
        one that has learned them they would be nearer to their classes than any picture that is to come.
        """
        if self.hubs == "none":
            return Correction()
        of_known = known[examples.y]
        mapper = self.fit(examples, of_known & examples.rows("train"), seed=seed, device=device)
        bank = of_known & examples.rows("validation")
        classes = mapper.map_classes(examples.A[columns])
        scores = nearest.scores(mapper.map_images(examples.X[bank]), classes)
        return hubs.fit(self.hubs, self.hub_settings, scores)


class Family(NamedTuple):
    """A mapper, and the one source whose class vectors it sees: none for all."""

    mapper: str
    source: str | None = None


def families(
    mapper: str | Sequence[str] | None, examples: Examples, *, weighted: bool = False
) -> list[Family]:
    """What there is to choose among: `mapper` is one name, several, or none for all of AUTO.

    Where class vectors are of several sources, a mapper in closed form also sees each of them alone, unless
    the user has `weighted` them.
    """
    names = AUTO if mapper is None else (mapper,) if isinstance(mapper, str) else tuple(mapper)
    alone = () if weighted or len(examples.sources) < 2 else tuple(examples.sources)
    return [
        Family(name, source)
        for name in names
        for source in (None, *(alone if MAPPERS[name].closed_form else ()))
    ]


def select(
    among: Sequence[Family],
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    known: np.ndarray | None = None,
    tuned: bool = True,
    correction: str = "none",
    false_accept: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """The blend of families that does best by mean AUSUC over the folds, each with its most regular settings
    among the good ones, and the hub correction, the offset, the temperature and the threshold for it.

    `known` (C,) are the seen classes that may be looked at at all (none given: every seen class). Unless
    `tuned`, mappers keep their default settings. `correction` is a kind of hub correction, of which the
    settings with the highest mean AUSUC are taken, or `auto` for the best of all kinds; of these another than
    `none` must gain more than the standard error of its gain, fold by fold. `false_accept` is the share of
    pictures of unknown classes that may be accepted.
    """
    known = examples.seen if known is None else known
    races = [Race(family, examples, tuned) for family in among]
    steps = 2 * len(folds) * len(races)

    def each_fold(first: int) -> Iterator[tuple[int, HeldOut]]:
        # Folds outside: what mappers derive from the images alone they derive once a fold.
        for number, fold in enumerate(folds):
            held = hold_out(examples, fold & known, known)
            for place in range(len(races)):
                yield place, held
                if progress:
                    progress(first + number * len(races) + place + 1, steps)

    for place, held in each_fold(0):
        races[place].run(held, seed, device)
    members = [race.member(race.chosen) for race in races]
    library: list[list[Part]] = [[] for _ in races]
    for place, held in each_fold(steps // 2):
        library[place].append(part_of(held, members[place], seed, device))
    path = blends(library)
    plain = mixed(library, path[-1])
    rows = []
    for weights in reversed(path):
        mapper, settings = _as_mapper(members, weights)
        figures = summary([figures_of(fold) for fold in mixed(library, weights)])
        rows.append({"mapper": mapper, "settings": settings, **figures})

    corrections = _candidates(correction, plain)
    corrected = [_corrected(plain, each["hubs"], each["settings"]) for each in corrections]
    tried = _gains(plain, corrected)
    best = max(range(len(tried)), key=lambda place: tried[place]["gain"])
    if correction == "auto" and tried[best]["gain"] <= tried[best]["gain_error"]:
        best = 0
    taken = corrected[best]
    gamma = _offset(taken)
    temperature = _temperature(taken, gamma)
    trials = (trial for fold in taken for trial in unknown.trials(fold._replace(gamma=gamma), temperature))
    return Choice(
        rows[0]["mapper"],
        rows[0]["settings"],
        gamma,
        temperature,
        unknown.threshold(trials, false_accept),
        corrections[best]["hubs"],
        corrections[best]["settings"],
        _ranking(races, rows),
        [{**each, **gain} for each, gain in zip(corrections, tried, strict=True)],
    )


class Race:
    """The settings of a family, tried fold by fold; those far behind the best leave early (Maron & Moore 1994)."""

    def __init__(self, family: Family, examples: Examples, tuned: bool = True) -> None:
        mapper = MAPPERS[family.mapper]
        self.family = family
        self.columns = None if family.source is None else examples.sources[family.source]
        self.grid = mapper.grid() if tuned else [mapper.defaults()]
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
        return self.running[most_regular([summary(self.figures[place]) for place in self.running])]

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


def _as_mapper(members: Sequence[Settings], weights: Sequence[float]) -> tuple[str, Settings]:
    """Name and settings of the mapper that the blend is; a single member that sees everything is itself."""
    taken = [
        {**member, "weight": round(float(weight), 6)}
        for member, weight in zip(members, weights, strict=True)
        if weight
    ]
    if len(taken) == 1 and "columns" not in taken[0]:
        return taken[0]["mapper"], taken[0]["settings"]
    return Blend.name, {"members": taken}


def _ranking(races: Sequence[Race], rows: list[Figures]) -> list[Figures]:
    """The blend chosen, then by score the others on its way and every setting of every family."""
    alone = [
        {
            **dict(zip(("mapper", "settings"), _as_mapper([race.member(place)], [1.0]), strict=True)),
            **summary(each),
        }
        for race in races
        for place, each in enumerate(race.figures)
    ]
    chosen, *others = rows
    known = [(row["mapper"], row["settings"]) for row in rows]
    others += [row for row in alone if (row["mapper"], row["settings"]) not in known]
    return [chosen, *sorted(others, key=lambda row: -row["score"])]


def most_regular(figures: Sequence[Figures]) -> int:
    """The first candidate, in the grid's order of regularity, that is as good as the best one.

    As good is within one standard error of the best mean over folds (Breiman et al. 1984): a few classes
    differ so much that the very best of many settings is mostly the luckiest.
    """
    best = max(figures, key=lambda each: each["score"])
    margin = best["score_error"]
    return next(place for place, each in enumerate(figures) if each["score"] >= best["score"] - margin)


def _candidates(correction: str, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """The hub corrections to try, `none` the first of `auto`, and the only one without a bank to fit others on."""
    with_bank = all(fold.seen[fold.y].any() for fold in folds)
    kinds: Sequence[str] = (correction,)
    if correction == "auto":
        kinds = hubs.KINDS if with_bank else ("none",)
    return [{"hubs": kind, "settings": settings} for kind in kinds for settings in hubs.GRIDS[kind]]


def _corrected(folds: Sequence[Fold], kind: str, settings: dict[str, Any]) -> list[Fold]:
    """Folds as a correction leaves them, its bank the held-out pictures of the classes that stayed.

    These are scored, too, and lie among their own neighbours, which speaks against the correction a little.
    """
    return [
        fold._replace(scores=hubs.fit(kind, settings, fold.scores[fold.seen[fold.y]]).apply(fold.scores))
        for fold in folds
    ]


def _gains(plain: Sequence[Fold], corrected: Sequence[Sequence[Fold]]) -> list[dict[str, float]]:
    """The mean gain of each over the plain folds in the figure that decides, and its standard error."""
    before = np.array([decisive(fold) for fold in plain])
    gains = [np.array([decisive(fold) for fold in folds]) - before for folds in corrected]
    return [{"gain": float(each.mean()), "gain_error": error_of(each)} for each in gains]


def figures_of(fold: Fold) -> Figures:
    """T1, the best H along the curve and AUSUC; those of a side without pictures are left out."""
    figures = point_figures(fold.scores, fold.y, fold.seen, _offset([fold]))
    return {name: figures[name] for name in FIGURES if name in figures}


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
    """AUSUC, or T1 where no picture of a seen class was held out and there is no curve."""
    figures = point_figures(fold.scores, fold.y, fold.seen, 0.0)
    return figures.get("AUSUC", figures.get("T1", 0.0))


def error_of(values: np.ndarray) -> float:
    """Standard error of the mean over folds."""
    return float(values.std() / np.sqrt(len(values)))


def _offset(folds: Sequence[Fold]) -> float:
    """The offset with the best mean H; 0 where no picture of a seen class was held out to balance against."""
    both = [fold for fold in folds if fold.seen[fold.y].any() and not fold.seen[fold.y].all()]
    return calibration.choose_gamma_over([(fold.scores, fold.y, fold.seen) for fold in both]) if both else 0.0


def _temperature(folds: Sequence[Fold], gamma: float) -> float:
    scores = np.concatenate([calibration.stack(fold.scores, fold.seen, gamma) for fold in folds])
    return calibration.fit_temperature(scores, np.concatenate([fold.y for fold in folds]))
