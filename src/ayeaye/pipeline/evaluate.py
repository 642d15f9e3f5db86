"""The stage `evaluate`: figures, predictions, plots and the report.

Where unseen classes have photographs, these are the test. Where they have none, the normal case in
production, seen classes stand in for them fold by fold: settings and offset are chosen and the mapper is
fitted without the fold, so that nothing about its classes was known.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ayeaye.class_vectors import quality
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.classifier import calibration, open_set
from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import DataError, PictureError
from ayeaye.core.files import replacing, write_atomic
from ayeaye.core.params import Evaluate
from ayeaye.core.workspace import Workspace
from ayeaye.data import repeats
from ayeaye.data.decode import Limits, decode
from ayeaye.data.table import Dataset
from ayeaye.evaluation import metrics
from ayeaye.evaluation.drift import Reference
from ayeaye.evaluation.metrics import Fold
from ayeaye.mappers import create
from ayeaye.pipeline import examples, pretraining, reference, selection
from ayeaye.pipeline.engine import label_agreement
from ayeaye.pipeline.examples import Examples
from ayeaye.pipeline.folds import TUNING, class_folds, hold_out
from ayeaye.pipeline.progress import Progress
from ayeaye.reporting import plots, report

HEADLINE = ("T1", "U", "S", "H", "AUSUC", "seen_bias")
GALLERY = {"unseen": 10, "seen": 5}  # pictures of right and of wrong answers each, by the side of their class
NEAREST = 4  # classes shown beside each
PLANE = 500  # pictures drawn in the common space, and classes


@dataclass(frozen=True)
class Measured:
    """Folds with the rows they scored: `rows[i]` (n_i,) are row numbers of the examples in fold i.

    `columns` are the classes, by their number, that the columns of every fold stand for. Each fold has the
    temperature and the threshold that were chosen without it; `temperature` is the median.
    """

    folds: list[Fold]
    rows: list[np.ndarray]
    columns: np.ndarray
    temperatures: list[float]
    thresholds: list[float]
    on: str

    @property
    def temperature(self) -> float:
        return float(np.median(self.temperatures))


def evaluate(workspace: Workspace, progress: Progress) -> dict[str, Any]:
    """Measure the bundle, write metrics, predictions, plots and the report; returns the headline."""
    chosen = workspace.params.evaluate
    data = examples.load(workspace)
    classifier = Classifier.load(workspace.classifier)
    dataset = Dataset.load(workspace.dataset)
    # First, so that a file that cannot be read is named before anything is measured.
    leaks = find_leaks(workspace, dataset, classifier)
    if data.unseen_pictures:
        measured = on_unseen(data, classifier)
        figures = metrics.measure(
            *measured.folds[0], k=chosen.neighbours, resamples=chosen.bootstrap, seed=chosen.seed
        )
    else:
        with progress.done_of("measuring on class folds") as advance:
            measured = on_folds(workspace, data, chosen, advance)
        figures = metrics.measure_folds(
            measured.folds, k=chosen.neighbours, resamples=chosen.bootstrap, seed=chosen.seed
        )
    figures["H_regret"] = regret(measured, classifier)
    figures["none_of_these"] = none_of_these(measured, workspace.params.train.false_accept)
    figures["class_space"] = class_space_quality(data, classifier.space, chosen.seed)
    figures["leakage"] = leaks | split_figures(measured, data, figures, leaks, chosen)
    figures["repeated"] = {name: dataset.about[name] for name in repeats.COUNTS if name in dataset.about}
    names = [data.names[c] for c in measured.columns]
    answers = predictions(data, measured, names)
    figures["reliability"] = reliability(answers)
    figures["reduced_precision"] = label_agreement(
        dataset,
        classifier.backbone,
        lambda X: classifier.scores(X).argmax(axis=1),
        data.ids,
        data.X,
        Limits.of(workspace.params.prepare),
    )

    _write(workspace, data, dataset, classifier, measured, figures, answers, names)
    return {**{name: figures[name] for name in HEADLINE}, "estimated_on": figures["estimated_on"]}


def on_unseen(data: Examples, classifier: Classifier) -> Measured:
    """The bundle itself on held-out pictures of seen classes and all pictures of unseen ones."""
    rows = np.flatnonzero(data.rows("test_seen", "test_unseen"))
    scores = classifier.raw_scores(data.X[rows])
    fold = Fold(scores, data.y[rows], data.seen, classifier.gamma)
    return Measured(
        folds=[fold],
        rows=[rows],
        columns=np.arange(len(data.names)),
        temperatures=[classifier.temperature],
        thresholds=[classifier.threshold],
        on="unseen classes",
    )


def on_folds(workspace: Workspace, data: Examples, chosen: Evaluate, progress: Any = None) -> Measured:
    """Each fold of pretend-unseen classes, scored by a mapper chosen and fitted without it."""
    training = workspace.params.train
    outer = class_folds(data.pool, chosen.folds)
    columns = np.flatnonzero(data.seen)
    folds, rows, choices = [], [], []
    for number, fold in enumerate(outer):
        known = data.seen & ~fold
        pool = data.pool & ~fold
        inner = class_folds(pool, training.folds, training.repeats, training.seed)
        choice = selection.by_params(
            workspace.params, data, inner, known=known, unseen=int(fold.sum()), device=training.device
        )
        correction = choice.correct(data, known, columns, seed=training.seed, device=training.device)
        held = hold_out(
            data,
            fold,
            data.seen,
            fit=TUNING,
            pretend=("train", "validation", "test_seen"),
            held_out=("test_seen",),
        )
        scored = held.score(create(choice.mapper, **choice.settings), training.seed, training.device)
        folds.append(scored._replace(scores=correction.apply(scored.scores), gamma=choice.gamma))
        rows.append(held.rows)
        choices.append(choice)
        if progress:
            progress(number + 1, len(outer))
    return Measured(
        folds=folds,
        rows=rows,
        columns=columns,
        temperatures=[choice.temperature for choice in choices],
        thresholds=[choice.threshold for choice in choices],
        on="class folds",
    )


def regret(measured: Measured, classifier: Classifier) -> float | None:
    """H that the offset loses on class folds, at which it was chosen without the fold, against the best one.

    Of those that are measured, or else of those that the bundle's own offset was chosen on: never of test pictures,
    on which nobody may choose.
    """
    if measured.on == "unseen classes":
        return (classifier.about or {}).get("H_regret")
    lost = [calibration.regret(fold[:3], fold.gamma) for fold in selection.balanced(measured.folds)]
    return float(np.mean(lost)) if lost else None


def none_of_these(measured: Measured, stated: float) -> dict[str, Any]:
    """How often a picture is said to be of a known class, where its class is taken out of the candidates and
    where it is not, beside the rate that was `stated` for the first.

    Half of each fold's unseen classes is taken away, then the other half.
    """
    judged = (
        (trial, threshold)
        for fold, temperature, threshold in zip(
            measured.folds, measured.temperatures, measured.thresholds, strict=True
        )
        for trial in open_set.trials(fold, temperature)
    )
    return {
        "false_accept": stated,
        "threshold": float(np.median(measured.thresholds)),
        **open_set.accepted(judged),
    }


def find_leaks(workspace: Workspace, dataset: Dataset, classifier: Classifier) -> dict[str, Any]:
    """`pretrained_on` in words, whether that is `known`, how many `pretraining_classes`, and by unseen class the kind
    and match of those that leak (`flags`) and of others that may (`possible`)."""
    chosen = workspace.params.embed
    known = pretraining.known_of(chosen, classifier.backbone, workspace.resolve)
    if not chosen.hierarchy:
        known = pretraining.comparable(dataset.classes, known)
    pairs = pretraining.read_pairs(workspace.resolve(chosen.hierarchy)) if chosen.hierarchy else []
    flags, possible = pretraining.flags(dataset.classes, known, pairs)
    return {
        "pretrained_on": known.said,
        "known": known.known,
        "pretraining_classes": len(known.classes),
        "flags": {name: flag._asdict() for name, flag in flags.items()},
        "possible": {name: flag._asdict() for name, flag in possible.items()},
    }


def split_figures(
    measured: Measured, data: Examples, figures: dict[str, Any], leaks: dict[str, Any], chosen: Evaluate
) -> dict[str, Any]:
    """Figures of `clean` and `flagged` unseen classes.

    None on class folds, which no unseen class is in, and where nobody knows which are clean; without flags all are,
    as measured already.
    """
    flags = leaks["flags"]
    if measured.on != "unseen classes" or not leaks["known"]:
        return {"clean": None, "flagged": None}
    if not flags:
        return {"clean": pretraining.kept(figures), "flagged": None}
    return pretraining.apart(measured.folds[0], np.isin(data.names, list(flags)), chosen)


def class_space_quality(data: Examples, space: ClassSpace, seed: int) -> dict[str, Any]:
    """How well the class space agrees with the mean training pictures of the seen classes."""
    train = data.rows("train")
    present = [c for c in np.flatnonzero(data.seen) if (train & (data.y == c)).any()]
    visual = np.array([data.X[train & (data.y == c)].mean(axis=0) for c in present])
    # Centred, as an embedding's common part says nothing of its class.
    described = space.by_descriptions()
    alone = None if described is None else described[present]
    found = quality.judge(data.A[present], visual - visual.mean(axis=0), alone, seed)
    return {**found, "unread": space.unread} if space.unread else found


def reliability(answers: pd.DataFrame) -> dict[str, Any]:
    """Of all pictures, and under `seen` and `unseen` of those of each side."""
    sides = {"seen": answers[~answers["unseen"]], "unseen": answers[answers["unseen"]]}
    whole, *parts = (
        metrics.reliability(part["confidence"].to_numpy(), part["right"].to_numpy())
        for part in (answers, *sides.values())
    )
    return {**whole, **dict(zip(sides, parts, strict=True))}


def common_space(data: Examples, classifier: Classifier, seed: int) -> plots.Mapped:
    """The bundle's common space: its classes, unseen ones first where they are too many, and of the pictures that
    it has not learned a sample in which every class has its turn."""
    classes = np.sort(np.argsort(data.seen, kind="stable")[:PLANE])
    held = np.flatnonzero(data.rows("test_seen", "test_unseen") & np.isin(data.y, classes))
    held = np.random.default_rng(seed).permutation(held)
    turn = pd.Series(data.y[held]).groupby(data.y[held]).cumcount().to_numpy()
    rows = held[np.argsort(turn, kind="stable")[:PLANE]]
    return plots.Mapped(
        pictures=classifier.mapper.map_images(data.X[rows]),
        y=np.searchsorted(classes, data.y[rows]),
        classes=classifier.mapped_classes[classes],
        names=[data.names[c] for c in classes],
        seen=data.seen[classes],
    )


def predictions(data: Examples, measured: Measured, names: list[str]) -> pd.DataFrame:
    """One row per scored picture and fold: id, label, side, answers among all and among unseen classes."""
    parts = []
    for number, (fold, rows) in enumerate(zip(measured.folds, measured.rows, strict=True)):
        stacked = calibration.stack(fold.scores, fold.seen, fold.gamma)
        best = stacked.argmax(axis=1)
        among = np.where(fold.seen, -np.inf, fold.scores).argmax(axis=1)
        confidence = calibration.probabilities(stacked, measured.temperature)
        named = np.array(names)
        parts.append(
            pd.DataFrame(
                {
                    "id": data.ids[rows],
                    "fold": number,
                    "label": named[fold.y],
                    "unseen": ~fold.seen[fold.y],
                    "answer": named[best],
                    "among_unseen": named[among],
                    "confidence": confidence[np.arange(len(rows)), best].astype(float),
                    "right": best == fold.y,
                    "right_among_unseen": (among == fold.y) & ~fold.seen[fold.y],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def held_out(data: Examples, classifier: Classifier, measured: Measured, seed: int) -> Reference:
    """What the bundle answers on held-out pictures, for the watch of its answers in production."""
    if measured.on == "unseen classes":
        return reference.of_pictures(data, classifier, seed)
    return reference.of_folds(
        data,
        classifier,
        measured.folds,
        measured.temperatures,
        measured.thresholds,
        measured.columns,
        seed,
    )


def _write(
    workspace: Workspace,
    data: Examples,
    dataset: Dataset,
    classifier: Classifier,
    measured: Measured,
    figures: dict[str, Any],
    answers: pd.DataFrame,
    names: list[str],
) -> None:
    reports = workspace.reports
    seen = data.seen[measured.columns]
    # In folds every column is a seen class; for the pictures, those that once stood in are the unseen ones.
    stood_in = (
        seen if measured.on == "unseen classes" else ~np.any([~fold.seen for fold in measured.folds], axis=0)
    )
    confused = _confusion(measured, stood_in)
    drawn = plots.draw(
        figures,
        names,
        stood_in,
        vectors=data.A[measured.columns],
        confused=confused,
        reliable=figures["reliability"],
        mapped=common_space(data, classifier, workspace.params.evaluate.seed),
    )
    shutil.rmtree(reports / "plots", ignore_errors=True)
    for name, picture in drawn.items():
        write_atomic(reports / "plots" / f"{name}.png", picture)
    with replacing(reports / "predictions.parquet") as part:
        answers.to_parquet(part, index=False)
    held = held_out(data, classifier, measured, workspace.params.evaluate.seed)
    reference.save(held, reports / "reference.parquet")
    page = report.Page(
        measured=figures,
        names=names,
        about=_about(workspace, dataset, classifier),
        warnings=_warnings(figures, data),
        quality=figures["class_space"],
        pretrained=figures["leakage"]["pretrained_on"],
        pretraining_known=figures["leakage"]["known"],
        leakage=_leaks(figures, names),
        apart=_apart(figures["leakage"]),
        left_out=[
            {"class": name, "not known": ", ".join(missing)}
            for name, missing in classifier.space.left_out.items()
        ],
        selection=_selection(classifier),
        hubs=_hubs(classifier),
        folds=len((classifier.about or {}).get("folds", ())),
        data=_data(dataset),
        examples=_gallery(workspace, dataset, measured, answers, names),
        plots=drawn,
    )
    write_atomic(reports / "index.html", report.render(page).encode())
    content = {**figures, "names": names}
    write_atomic(reports / "metrics.json", json.dumps(content, indent=1, allow_nan=False).encode())


def _confusion(measured: Measured, seen: np.ndarray) -> tuple[list[int], np.ndarray] | None:
    classes = np.flatnonzero(~seen).tolist()
    return (classes, metrics.confusion(measured.folds, classes)) if classes else None


def _about(workspace: Workspace, dataset: Dataset, classifier: Classifier) -> dict[str, Any]:
    backbone = classifier.backbone
    return {
        "backbone": f"{backbone.name}, {backbone.origin}" if backbone else "features as given",
        "class space": ", ".join(workspace.params.classes.sources),
        "mapper": report.described(
            classifier.mapper.name, classifier.mapper.settings, classifier.space.sources
        ),
        "seen offset γ": classifier.gamma,
        "hub correction": report.described(classifier.correction.kind, classifier.correction.settings),
        "temperature": classifier.temperature,
        "none of the classes": f"below a confidence of {report.shown(classifier.threshold)}",
        "dataset": dataset.digest()[:12],
    }


def _warnings(figures: dict[str, Any], data: Examples) -> list[str]:
    found = []
    leaked = len(figures["leakage"]["flags"])
    if leaked:
        found.append(
            f"The backbone has most likely seen pictures of {leaked} of the {(~data.seen).sum()} unseen classes "
            "before: see the table of leakage, and the figures without them."
        )
    if max(figures["class_space"][name] or 0 for name in ("p", "descriptions_p")) > 0.05:
        found.append(report.strength(figures["class_space"])[1])
    if unread := figures["class_space"].get("unread"):
        found.append(f"{unread}.")
    return found + report.repeated(figures["repeated"])


def _leaks(figures: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """A row per class that leaks or may: the pretraining class it leaks by, and how well it is named."""
    found = {names[record["class"]]: record for record in figures["per_class"] if not record["seen"]}
    return [
        {
            "unseen class": name,
            "leak": report.LEAKS[flag["kind"]],
            "pretraining class": flag["match"],
            "T1": found.get(name, {}).get("T1"),
            "U": found.get(name, {}).get("accuracy"),
        }
        for name, flag in (figures["leakage"]["flags"] | figures["leakage"]["possible"]).items()
    ]


def _apart(leaks: dict[str, Any]) -> list[dict[str, Any]]:
    if not leaks["flags"] or leaks["clean"] is None:
        return []
    return [
        {
            "unseen classes": side,
            **{key: leaks[side][key] for key in ("classes", "pictures")},
            **{name: _with_interval(leaks[side], name) for name in ("T1", "U", "H")},
            "chance of T1": leaks[side]["chance"],
        }
        for side in ("clean", "flagged")
    ]


def _with_interval(figures: dict[str, Any], name: str) -> str | None:
    value, interval = figures[name], figures["intervals"][name]
    return None if value is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _selection(classifier: Classifier) -> list[dict[str, Any]]:
    ranking = (classifier.about or {}).get("selection", [])
    return [
        {
            **row,
            "settings": report.described(row["mapper"], row["settings"], classifier.space.sources),
            "chosen": place == 0,
        }
        for place, row in enumerate(ranking[:20])
    ]


def _hubs(classifier: Classifier) -> list[dict[str, Any]]:
    taken = (classifier.correction.kind, classifier.correction.settings)
    return [
        {
            "hub correction": report.described(row["hubs"], row["settings"]),
            "gain": f"{row['gain']:+.4f}",
            "standard error": f"{row['gain_error']:.4f}",
            "chosen": (row["hubs"], row["settings"]) == taken,
        }
        for row in (classifier.about or {}).get("corrections", [])
    ]


def _data(dataset: Dataset) -> list[dict[str, Any]]:
    seen = dict(zip(dataset.classes.names, dataset.classes.seen, strict=True))
    rows: list[dict[str, Any]] = [
        {"split": split, "pictures": len(part), "classes": part["label"].nunique()}
        for split, part in dataset.manifest.groupby("split", sort=True)
    ]
    rows.append({"split": "all classes", "pictures": len(dataset.manifest), "classes": len(seen)})
    return rows


def _gallery(
    workspace: Workspace, dataset: Dataset, measured: Measured, answers: pd.DataFrame, names: list[str]
) -> list[report.Example]:
    """The surest right and the surest wrong answers, of unseen classes first, one a class before a second."""
    sure = answers.sort_values("confidence", ascending=False)
    return [
        report.Example(
            truth=str(row.label),
            answer=str(row.answer),
            right=right,
            unseen=bool(row.unseen),
            picture=_thumbnail(workspace, dataset, str(row.id)),
            id=str(row.id),
            confidence=float(row.confidence),  # type: ignore[arg-type]
            nearest=_nearest(measured, names, int(row.Index)),  # type: ignore[arg-type]
        )
        for right in (True, False)
        for side, most in GALLERY.items()
        for row in _one_a_class(sure[(sure["right"] == right) & (sure["unseen"] == (side == "unseen"))])
        .head(most)
        .itertuples()
    ]


def _nearest(measured: Measured, names: list[str], row: int) -> list[report.Near]:
    """The best classes of a row of the predictions, which lie fold after fold, and the true one."""
    starts = np.cumsum([0, *(len(rows) for rows in measured.rows)])
    number = int(np.searchsorted(starts, row, side="right")) - 1
    fold = measured.folds[number]
    place = row - starts[number]
    scores = calibration.stack(fold.scores[place], fold.seen, fold.gamma)
    order = np.argsort(-scores, kind="stable")
    return [
        report.Near(rank, names[c], float(scores[c]), bool(fold.seen[c]))
        for rank, c in enumerate(order, 1)
        if rank <= NEAREST or c == fold.y[place]
    ]


def _one_a_class(answers: pd.DataFrame) -> pd.DataFrame:
    turn = answers.groupby("label").cumcount()
    return answers.assign(turn=turn).sort_values(["turn", "confidence"], ascending=[True, False])


def _thumbnail(workspace: Workspace, dataset: Dataset, id: str) -> str | None:
    if dataset.kind == "features":
        return None
    chosen = workspace.params.prepare
    try:
        return report.thumbnail(decode(dataset.picture(id), Limits.of(chosen), target=168))
    except (PictureError, DataError):
        return None
