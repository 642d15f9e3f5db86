"""Any two registered versions side by side: figures, classes, slices, and what differs between them.

The first is compared as a champion would be, the second as its challenger, by what the gate itself uses
(`release.compare`), on the dataset as it is now. Nothing is changed but the cache of embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ayeaye.classifier.model import Classifier
from ayeaye.core.errors import Incomparable, ReleaseError
from ayeaye.core.files import write_atomic
from ayeaye.core.params import Evaluate
from ayeaye.core.workspace import Workspace
from ayeaye.data.table import Dataset
from ayeaye.evaluation import bootstrap, metrics
from ayeaye.evaluation.bootstrap import class_weights, harmonic_mean, resample, strata_of
from ayeaye.pipeline.progress import Progress
from ayeaye.release import compare, gate, promotion
from ayeaye.release.compare import Answers, Pair
from ayeaye.release.promotion import registry_of
from ayeaye.release.registry import Registry, Version
from ayeaye.reporting import plots, report

FIGURES = ("T1", "U", "S", "H", "AUSUC")
CONFIDENCE = 0.95
KINDS = (".html", ".png")


def versions_of(workspace: Workspace, *names: str) -> list[Version]:
    """Two different versions by number, or as `champion` and `previous`; raises ReleaseError."""
    versions = [promotion.version_called(workspace, name) for name in names]
    numbers = [version.number for version in versions]
    if len(set(numbers)) < len(numbers):
        raise ReleaseError(f"both are version {numbers[0]}: name two different ones, see `ayeaye status`")
    return versions


def compared(workspace: Workspace, a: str, b: str, progress: Progress) -> dict[str, Any]:
    """Version `a` against version `b`, ready for JSON; differences are b less a, losses a less b.

    `measured_on` says on what, `figures` each of FIGURES with its chance, `classes` a record per class, largest
    gain first, `gate` what the relative part of the gate would say of b were a the champion, `slices` and
    `not_judged` its slices, `curves` the seen–unseen curves, `differs` parameters, data and classes.
    Raises ReleaseError for a name that is no version, and Incomparable where there is nothing to compare on.
    """
    registry = registry_of(workspace)
    first, second = versions_of(workspace, a, b)
    params = workspace.params
    dataset = Dataset.load(workspace.dataset)
    groups = compare.groups_of(dataset.classes)
    try:
        pair = compare.between(workspace, registry, second, first, progress)
    except Incomparable as error:
        raise Incomparable(
            f"versions {first.number} and {second.number} cannot be compared: {error}"
        ) from None
    evaluations = [compare.figures_of(registry, version) for version in (first, second)]
    leaked = compare.leaked(*evaluations)
    losses, not_judged = compare.compared(pair, params, compare.slices_of(pair, groups, leaked))
    checks = gate.relative(losses, params.release, first.number)
    decision = gate.Decision(tuple(checks), pair.on, first.number, not_judged=tuple(not_judged))
    figures, curves, chance = _measured(pair, evaluations, params.evaluate)
    return {
        "a": _about(first),
        "b": _about(second),
        "measured_on": _counts(pair) | {"dataset": dataset.digest()},
        "confidence": CONFIDENCE,
        "figures": {name: {**figures[name], "chance": chance.get(name)} for name in FIGURES},
        "gate": {
            "verdict": "pass" if decision.verdict == "promoted" else "refuse",
            "reasons": decision.reasons,
            "checks": decision.as_dict()["checks"],
        },
        "slices": [
            {
                "slice": loss.slice,
                "figure": loss.name,
                "loss": loss.value,
                "at_least": loss.lower,
                "at_most": loss.upper,
                "pictures": loss.pictures,
                "classes": loss.classes,
                "refuses": check.passed is False,
            }
            for loss, check in zip(losses, checks, strict=True)
            if loss.slice
        ],
        "not_judged": not_judged,
        "leaked": sorted(leaked),
        "classes": _classes(pair, groups),
        "curves": curves,
        "differs": _differences(registry, first, second),
    }


def _about(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "created": version.created,
        "aliases": list(version.aliases),
        **{name: version.tags.get(name) for name in ("gate", "data_digest", "git_commit")},
    }


def _counts(pair: Pair) -> dict[str, Any]:
    sides = {"unseen": pair.take(pair.unseen).counts(), "seen": pair.take(~pair.unseen).counts()}
    counts = {f"{what}_{side}": sides[side][place] for side in sides
              for place, what in enumerate(("pictures", "classes"))}  # fmt: skip
    return {"on": pair.on, **counts}


Measured = tuple[dict[str, dict[str, Any]], list[dict[str, Any]], dict[str, float | None]]


def _measured(pair: Pair, evaluations: Sequence[Mapping[str, Any]], evaluate: Evaluate) -> Measured:
    """Each figure of both with its difference; what is drawn of each; and chance."""
    if pair.scored is None:
        figures = _of_answers(pair, evaluate)
        # Of folds there are answers, no scores: each curve is that of its own evaluation, of whatever folds it had.
        curves = [{"curve": found.get("curve"), "AUSUC": found.get("AUSUC")} for found in evaluations]
        chance = dict(evaluations[1].get("baselines") or {})
    else:
        options: dict[str, Any] = {"resamples": evaluate.bootstrap, "seed": evaluate.seed}
        old, new = (
            metrics.measure(*fold, k=evaluate.neighbours, confidence=CONFIDENCE, **options)
            for fold in reversed(pair.scored)
        )
        more = metrics.paired_differences(*pair.scored, confidence=CONFIDENCE, **options)
        figures = {
            name: {
                "a": old[name],
                "a_interval": old["intervals"][name],
                "b": new[name],
                "b_interval": new["intervals"][name],
                **more.get(name, {"difference": None, "interval": None}),
            }
            for name in FIGURES
        }
        curves = [
            {"curve": found["curve"] if found["AUSUC"] is not None else None, "AUSUC": found["AUSUC"]}
            for found in (old, new)
        ]
        chance = dict(old["baselines"])
    for side, curve in zip(("a", "b"), curves, strict=True):
        curve |= {name: figures[name][side] for name in ("U", "S", "H")}
    return figures, curves, chance


def _of_answers(pair: Pair, evaluate: Evaluate) -> dict[str, dict[str, Any]]:
    """T1, U, S and H from answers alone; AUSUC would need scores."""
    y = np.unique(pair.label, return_inverse=True)[1].reshape(-1)
    side = pair.unseen.astype(np.int64)
    weights = class_weights(y, side)
    blocks = [block * weights for block in resample(strata_of(y, side), evaluate.bootstrap, evaluate.seed)]
    point = {which: _figures(answers, weights[None], pair.unseen) for which, answers in _sides(pair)}
    drawn = {which: _figures(answers, np.concatenate(blocks), pair.unseen) for which, answers in _sides(pair)}
    found: dict[str, dict[str, Any]] = {}
    for name in FIGURES:
        if name not in point["a"]:
            found[name] = dict.fromkeys(("a", "a_interval", "b", "b_interval", "difference", "interval"))
            continue
        a, b = (float(point[which][name][0]) for which in ("a", "b"))
        intervals = [bootstrap.interval(drawn[which][name], CONFIDENCE) for which in ("a", "b")]
        found[name] = {
            "a": a,
            "a_interval": intervals[0],
            "b": b,
            "b_interval": intervals[1],
            "difference": b - a,
            "interval": bootstrap.interval(drawn["b"][name] - drawn["a"][name], CONFIDENCE),
        }
    return found


def _sides(pair: Pair) -> tuple[tuple[str, Answers], tuple[str, Answers]]:
    return ("a", pair.old), ("b", pair.new)


def _figures(answers: Answers, weights: np.ndarray, unseen: np.ndarray) -> dict[str, np.ndarray]:
    """Of weights (b, n); those of a side without pictures are left out."""
    found: dict[str, np.ndarray] = {}
    if unseen.any():
        found["T1"] = weights[:, unseen] @ answers.among_unseen[unseen]
        found["U"] = weights[:, unseen] @ answers.among_all[unseen]
    if not unseen.all():
        found["S"] = weights[:, ~unseen] @ answers.among_all[~unseen]
    if "U" in found and "S" in found:
        found["H"] = harmonic_mean(found["U"], found["S"])
    return found


def _classes(pair: Pair, groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """A record per class and role, the largest gain first."""
    records = []
    for unseen in (True, False):
        for name in np.unique(pair.label[pair.unseen == unseen]).tolist():
            part = pair.take((pair.label == name) & (pair.unseen == unseen))
            more, interval = bootstrap.paired_share(part.new.among_all, part.old.among_all, CONFIDENCE)
            t1 = [float(each.among_unseen.mean()) if unseen else None for each in (part.old, part.new)]
            records.append(
                {
                    "class": name,
                    "seen": not unseen,
                    "group": groups.get(name),
                    "pictures": len(part.label),
                    "a": float(part.old.among_all.mean()),
                    "b": float(part.new.among_all.mean()),
                    "difference": more,
                    "interval": interval,
                    "T1_a": t1[0],
                    "T1_b": t1[1],
                }
            )
    return sorted(records, key=lambda r: (-r["difference"], r["class"]))


def _differences(registry: Registry, first: Version, second: Version) -> dict[str, Any]:
    """What the two were made of, the parameters in which they differ, and the classes whose role differs."""
    before, after = (registry.params(version) for version in (first, second))
    old, new = (Classifier.load(registry.bundle(version)) for version in (first, second))
    roles = [dict(zip(each.labels, each.seen.tolist(), strict=True)) for each in (old, new)]
    moved = [name for name in roles[0] if name in roles[1] and roles[0][name] != roles[1][name]]
    described = [_made_of(version, made) for version, made in ((first, old), (second, new))]
    return {
        "made_of": {name: [each[name] for each in described] for name in described[0]},
        "params": {
            key: [before.get(key), after.get(key)]
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        },
        "same_data": first.tags.get("data_digest") == second.tags.get("data_digest"),
        "unseen_to_seen": [name for name in moved if roles[1][name]],
        "seen_to_unseen": [name for name in moved if roles[0][name]],
        "only_in_a": [name for name in roles[0] if name not in roles[1]],
        "only_in_b": [name for name in roles[1] if name not in roles[0]],
    }


def _made_of(version: Version, made: Classifier) -> dict[str, Any]:
    backbone, mapper = made.backbone, made.mapper
    return {
        "data": (version.tags.get("data_digest") or "")[:12],
        "commit": (version.tags.get("git_commit") or "")[:12],
        "classes": f"{int(made.seen.sum()):,} seen, {int((~made.seen).sum()):,} unseen",
        "backbone": f"{backbone.name}, {backbone.origin}" if backbone else "features as given",
        "mapper": report.described(mapper.name, mapper.settings, made.space.sources),
        "hub correction": report.described(made.correction.kind, made.correction.settings),
        "seen offset γ": made.gamma,
    }


# The page and the picture


def write(found: Mapping[str, Any], out: Path) -> None:
    """The comparison as a self-contained page, or its picture alone, by the ending of `out`."""
    check_out(out)
    drawn = plots.compared(
        plots.Compared(_names(found), found["curves"], found["classes"], _chance(found), measured_on(found))
    )
    if out.suffix.lower() == ".png":
        write_atomic(out, drawn.get("both", drawn["classes"]))
    else:
        write_atomic(out, report.render_comparison(_page(found, drawn)).encode())


def check_out(out: Path) -> None:
    """Raise ReleaseError for a file that `write` would not know how to write."""
    if out.suffix.lower() not in KINDS:
        raise ReleaseError(f"--out is {out}: expected a file that ends in {' or '.join(KINDS)}")


def _names(found: Mapping[str, Any]) -> tuple[str, str]:
    return f"version {found['a']['version']}", f"version {found['b']['version']}"


def _chance(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: figure["chance"] for name, figure in found["figures"].items()}


def measured_on(found: Mapping[str, Any]) -> str:
    """On what it was measured, in words."""
    counts = found["measured_on"]
    where = {
        compare.PICTURES: "test pictures that neither was trained on",
        compare.FOLDS: "seen classes that stood in for unseen ones in the folds of both evaluations",
    }[counts["on"]]
    sides = [
        f"{counts[f'pictures_{side}']:,} pictures of {counts[f'classes_{side}']} {side} classes"
        for side in ("unseen", "seen")
        if counts[f"pictures_{side}"]
    ]
    chance = [
        f"{name} {value:.3f}"
        for name, value in _chance(found).items()
        if value is not None and name in ("T1", "H")
    ]
    said = f"{where}: {' and '.join(sides)}"
    return said + (f"; chance: {', '.join(chance)}" if chance else "")


def sentence(found: Mapping[str, Any]) -> str:
    """The outcome in words, by H or, where that was not measured, by what was."""
    name = next(name for name in ("H", "T1", "S") if found["figures"][name]["difference"] is not None)
    figure = found["figures"][name]
    old, new = _names(found)
    low, high = figure["interval"]
    said = f"{name} goes from {figure['a']:.3f} in {old} to {figure['b']:.3f} in {new}"
    way = "better beyond chance" if low > 0 else "worse beyond chance" if high < 0 else "which may be chance"
    return f"{said}, {way}: the difference is {figure['difference']:+.3f} ({low:+.3f} to {high:+.3f})."


def verdict(found: Mapping[str, Any]) -> str:
    """What the relative part of the gate says, in words."""
    old, new = _names(found)
    says = "would pass" if found["gate"]["verdict"] == "pass" else "would be refused"
    return f"Against {old} as champion, {new} {says} by the relative part of the gate."


def figure_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per figure that was measured."""
    old, new = _names(found)
    return [
        {
            "figure": name,
            old: _with_interval(figure["a"], figure["a_interval"]),
            new: _with_interval(figure["b"], figure["b_interval"]),
            "difference": _signed(figure["difference"]),
            "interval": f"{figure['interval'][0]:+.3f} … {figure['interval'][1]:+.3f}",
            "chance": f"{figure['chance']:.3f}" if figure["chance"] is not None else None,
        }
        for name, figure in found["figures"].items()
        if figure["difference"] is not None
    ]


def slice_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per slice and figure, the largest loss first."""
    return [
        {
            "slice": row["slice"],
            "figure": row["figure"],
            "loss": _signed(row["loss"]),
            "at least": _signed(row["at_least"]),
            "at most": _signed(row["at_most"]),
            "pictures": row["pictures"],
            "classes": row["classes"],
            "refuses": row["refuses"],
        }
        for row in sorted(found["slices"], key=lambda row: -row["loss"])
    ]


def class_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per class, the largest gain first."""
    old, new = _names(found)
    return [
        {
            "class": row["class"],
            "role": "seen" if row["seen"] else "unseen",
            "group": row["group"],
            "pictures": row["pictures"],
            old: report.percent(row["a"]),
            new: report.percent(row["b"]),
            "difference": _signed(row["difference"]),
            "interval": f"{row['interval'][0]:+.2f} … {row['interval'][1]:+.2f}",
        }
        for row in found["classes"]
    ]


def role_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Classes whose role differs, by how."""
    old, new = _names(found)
    kinds = {
        "unseen_to_seen": f"unseen in {old}, seen in {new}",
        "seen_to_unseen": f"seen in {old}, unseen in {new}",
        "only_in_a": f"only in {old}",
        "only_in_b": f"only in {new}",
    }
    return [
        {"classes": said, "number": len(names), "which": names}
        for key, said in kinds.items()
        if (names := found["differs"][key])
    ]


def made_of_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each was made of."""
    return _two_columns(found, found["differs"]["made_of"])


def differing_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of that differs, and the parameters that do."""
    made = {name: both for name, both in found["differs"]["made_of"].items() if both[0] != both[1]}
    return _two_columns(found, made | found["differs"]["params"])


def _two_columns(found: Mapping[str, Any], pairs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    old, new = _names(found)
    return [{"of": name, old: both[0], new: both[1]} for name, both in pairs.items()]


def _page(found: Mapping[str, Any], drawn: Mapping[str, bytes]) -> report.Comparison:
    old, new = _names(found)
    on_folds = found["measured_on"]["on"] == compare.FOLDS
    warnings = []
    if on_folds:
        warnings.append(
            "An estimate: the unseen classes have no pictures, seen ones stand in for them. Each curve is that of "
            "the version's own evaluation; all else is on the pictures that both estimated."
        )
    if not found["differs"]["same_data"]:
        warnings.append(
            "The two were trained on different data; both are measured on the dataset as it is now."
        )
    return report.Comparison(
        title=f"{new} against {old}".capitalize(),
        measured_on=measured_on(found),
        sentence=sentence(found),
        confidence=found["confidence"],
        figures=figure_rows(found),
        verdict=verdict(found),
        reasons=found["gate"]["reasons"],
        slices=slice_rows(found),
        not_judged=found["not_judged"],
        classes=class_rows(found),
        made_of=made_of_rows(found),
        params=_two_columns(found, found["differs"]["params"]),
        roles=role_rows(found),
        plots=drawn,
        warnings=warnings,
    )


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3f}"


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} … {interval[1]:.3f})"
