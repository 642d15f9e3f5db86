"""Choosing everything that is chosen: the blend of mappers, and how its scores are read, on the same class folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ayeaye.classifier import calibration, hubs, open_set
from ayeaye.classifier.hubs import Correction
from ayeaye.core.params import Params
from ayeaye.evaluation.metrics import Fold
from ayeaye.mappers import Mapper, create
from ayeaye.mappers.base import frozen
from ayeaye.pipeline.blending import Blended, Candidate, blended, decisive, error_of, families
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import class_folds, hold_out

FINE = 10  # folds of classes


@dataclass(frozen=True)
class Choice:
    """The settings chosen, with the hub correction, offset, temperature and threshold that go with them.

    `threshold` is the confidence below which a picture is of none of the classes. `ranking` has one row per
    candidate, the chosen one first, then by score: settings, and the mean and spread over folds of its
    figures; `corrections` the same of the hub corrections tried on the chosen settings, with the mean gain in
    the figure that decides. `H_regret` is what a fold loses of H at the offset of the other folds, on average.
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
    H_regret: float | None = None

    def fit(self, examples: Examples, rows: np.ndarray, *, seed: int, device: str) -> Mapper:
        mapper = create(self.mapper, **self.settings)
        # Frozen: members of a blend share what they find in the images.
        X, y = frozen(examples.X[rows]), frozen(examples.y[rows])
        return mapper.fit(X, y, examples.A, seed=seed, device=device)

    def correct(
        self, examples: Examples, known: np.ndarray, columns: np.ndarray, *, seed: int, device: str
    ) -> Correction:
        """The hub correction of the classes `columns`, by a bank of pictures of the `known` classes (C,).

        The bank are their validation pictures, at most `hubs.MOST`, under a mapper fitted on their training
        pictures alone: under one that has learned them they would be nearer to their classes than any picture that
        is to come. Without a validation picture nothing is corrected.
        """
        of_known = known[examples.y]
        if self.hubs == "none" and not (of_known & examples.rows("validation")).any():
            return Correction()
        mapper = self.fit(examples, of_known & examples.rows("train"), seed=seed, device=device)
        rows = np.flatnonzero(of_known & examples.rows("validation"))
        rows = rows[hubs.sample(examples.y[rows])]
        number = np.full(len(known), -1)
        number[columns] = np.arange(len(columns))
        bank = hubs.Bank.of(mapper, examples.X[rows], number[examples.y[rows]])
        return hubs.fit_on(self.hubs, self.hub_settings, bank, examples.A[columns])


def select(
    among: Sequence[Candidate],
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    correction: str = "none",
    false_accept: float = 1.0,
    unseen: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Choice:
    """The best blend of the families by mean AUSUC over the folds (see `blended`, which takes the options), and
    how its scores are read (see `read`), its confidence on finer folds.

    `unseen` is how many unseen classes there will be (none given: those of the examples).
    """
    before = 0

    def choosing(done: int, total: int) -> None:
        nonlocal before
        before = total
        progress(done, total + FINE)

    found = blended(among, examples, folds, progress=choosing, **options)
    fine = []
    for fold in finer(found, examples, folds, **options):
        fine.append(fold)
        progress(before + len(fine), before + FINE)
    progress(before + FINE, before + FINE)  # where there are fewer classes
    unseen = int((~examples.seen).sum()) if unseen is None else unseen
    return calibrate_scores(found, correction, false_accept, fine, unseen)


def finer(
    found: Blended,
    examples: Examples,
    folds: Sequence[np.ndarray],
    *,
    known: np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    **options: Any,
) -> Iterator[Fold]:
    """What was found on FINE folds of the same classes: its mapper has learned nearly all of them, as the one that
    is released has.

    With a third of them held out it is less sure than that one will be, and a temperature that was fitted on it says
    so of pictures of which nothing is unsure.
    """
    known = examples.seen if known is None else known
    parts = class_folds(np.any(folds, axis=0) & known, FINE, seed=seed)
    for part in parts:
        yield hold_out(examples, part, known).score(create(found.mapper, **found.settings), seed, device)


def by_params(params: Params, examples: Examples, folds: Sequence[np.ndarray], **options: Any) -> Choice:
    """What `select` finds with the knobs of the section `train`; `options` are those that are not knobs."""
    chosen = params.train
    return select(
        families(chosen.mapper, examples, weighted=bool(params.classes.weights)),
        examples,
        folds,
        tuned=chosen.select == "auto",
        correction=chosen.hubs,
        false_accept=chosen.false_accept,
        seed=chosen.seed,
        **options,
    )


def calibrate_scores(
    found: Blended,
    correction: str = "none",
    false_accept: float = 1.0,
    fine: Sequence[Fold] | None = None,
    unseen: int | None = None,
) -> Choice:
    """The hub correction, the offset, the temperature and the threshold for what was found, the temperature on `fine`
    folds where they are given. The threshold is of the others: of classes that are taken out of the candidates there
    more are near to those that stay, as in a world of which most is unknown.

    `correction` is a kind of hub correction, of which the settings with the highest mean AUSUC are taken, or
    `auto` for the best of all kinds; of these another than `none` must gain more than the standard error of its
    gain, fold by fold. `false_accept` is the share of pictures of unknown classes that may be accepted. The offset
    is for so many `unseen` classes, which are seldom as many as a fold holds out.
    """
    corrections = _candidates(correction, found.folds)
    each_corrected = [corrected(found.folds, each["hubs"], each["settings"]) for each in corrections]
    tried = _gains(found.folds, each_corrected)
    best = max(range(len(tried)), key=lambda place: tried[place]["gain"])
    if correction == "auto" and tried[best]["gain"] <= tried[best]["gain_error"]:
        best = 0
    taken = each_corrected[best]
    gamma = offset(taken, unseen)
    how = corrections[best]
    sure = taken if fine is None else corrected(fine, how["hubs"], how["settings"])
    temperature = _temperature(sure, gamma)
    trials = (trial for fold in taken for trial in open_set.trials(fold._replace(gamma=gamma), temperature))
    return Choice(
        found.mapper,
        found.settings,
        gamma,
        temperature,
        open_set.threshold(trials, false_accept),
        how["hubs"],
        how["settings"],
        found.ranking,
        [{**each, **gain} for each, gain in zip(corrections, tried, strict=True)],
        calibration.regret_over([fold[:3] for fold in balanced(taken)], unseen),
    )


def _candidates(correction: str, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """The hub corrections to try, `none` the first of `auto`, and the only one without a bank to fit others on."""
    with_bank = all(fold.seen[fold.y].any() for fold in folds)
    kinds: Sequence[str] = (correction,)
    if correction == "auto":
        kinds = hubs.KINDS if with_bank else ("none",)
    return [{"hubs": kind, "settings": settings} for kind in kinds for settings in hubs.GRIDS[kind]]


def corrected(folds: Sequence[Fold], kind: str, settings: dict[str, Any]) -> list[Fold]:
    """Folds as a correction leaves them, its bank held-out pictures of the classes that stayed.

    These are scored, too, and lie among their own neighbours, which speaks against the correction a little.
    """
    found = []
    for fold in folds:
        rows = np.flatnonzero(fold.seen[fold.y])
        bank = fold.scores[rows[hubs.sample(fold.y[rows])]]
        found.append(fold._replace(scores=hubs.fit(kind, settings, bank).apply(fold.scores)))
    return found


def _gains(plain: Sequence[Fold], tried: Sequence[Sequence[Fold]]) -> list[dict[str, float]]:
    """The mean gain of each over the plain folds in the figure that decides, and its standard error."""
    before = np.array([decisive(fold) for fold in plain])
    gains = [np.array([decisive(fold) for fold in folds]) - before for folds in tried]
    return [{"gain": float(each.mean()), "gain_error": error_of(each)} for each in gains]


def offset(folds: Sequence[Fold], unseen: int | None = None) -> float:
    """The offset with the best mean H, as expected with so many `unseen` classes (none given: as many as a fold has);
    0 where no picture of a seen class was held out to balance against."""
    both = [fold[:3] for fold in balanced(folds)]
    return calibration.choose_gamma_over(both, unseen) if both else 0.0


def balanced(folds: Sequence[Fold]) -> list[Fold]:
    """Those of the folds that have pictures of seen and of unseen classes."""
    return [fold for fold in folds if fold.seen[fold.y].any() and not fold.seen[fold.y].all()]


def _temperature(folds: Sequence[Fold], gamma: float) -> float:
    """On all pictures of the folds; those of seen and of unseen classes weigh the same, however many they are."""
    scores = np.concatenate([calibration.stack(fold.scores, fold.seen, gamma) for fold in folds])
    of_seen = np.concatenate([fold.seen[fold.y] for fold in folds])
    weight = 1 / np.bincount(of_seen, minlength=2)[of_seen.astype(int)]
    return calibration.fit_temperature(scores, np.concatenate([fold.y for fold in folds]), weight)
