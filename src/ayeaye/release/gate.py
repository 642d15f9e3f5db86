"""The gate: figures against floors, ceilings and the champion, as a decision that can be read.

Absolute checks: the point estimate decides and its interval is shown. Relative ones: refused when the
one-sided upper bound of the loss exceeds epsilon. What is missing or not a number fails.

Slices, such as a group of classes, are asked the other way round: one refuses when the challenger is worse in
it beyond chance (the one-sided lower bound of the loss is above 0, all slices together at `confidence`) and by
more than `slice_epsilon`. An upper bound would be above any epsilon in most slices, which have few pictures, and
refuse equal models (docs/release-simulation.md). So a challenger may win as a whole and be refused for a slice.
A slice too small to be judged is listed and does not refuse.

Where the backbone was pretrained on some of the unseen classes, the absolute checks are on the others, the
clean ones, as long as there are `release.clean_classes` of them; the decision says what it read.

The latency ratio is known only once the Bento was tried; until then its check stands open (`passed` is
None) and so does the verdict:

    decision = decide(metrics, params.release, champion=4, losses=losses)     # refused | untried
    decision = with_latency(decision, trial.latency_ms, champion_trial.latency_ms)   # refused | promoted
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ayeaye.backbones.engines import AGREEMENT
from ayeaye.core.errors import ParamsError, listed
from ayeaye.core.params import Release
from ayeaye.core.unicode_checks import near
from ayeaye.evaluation.bootstrap import bounds, pictures_needed

Kind = Literal["minimum", "maximum", "relative"]
Verdict = Literal["promoted", "refused", "untried"]

LATENCY, TRIAL, PRECISION = "latency_ratio", "trial", "reduced_precision"
ALONE = "no champion to compare with"
DESCRIPTIONS = "descriptions_p"

# Name of a threshold -> where its figure lies in metrics.json.
FIGURES: dict[str, tuple[str, ...]] = {
    name: (name,)
    for name in (
        "T1", "T1_above_chance", "U", "S", "H", "AUSUC",
        "seen_bias", "unseen_bias", "unseen_auroc",
    )
} | {
    "hubness_skewness": ("hubness", "skewness"),
    "hubness_excess": ("hubness", "excess"),
    "hubness_robin_hood": ("hubness", "robin_hood"),
    "hubness_antihubs": ("hubness", "antihubs"),
    "hubness_hub_occurrence": ("hubness", "hub_occurrence"),
    "class_space_rho": ("class_space", "rho"),
    "class_space_p": ("class_space", "p"),
    DESCRIPTIONS: ("class_space", "descriptions_p"),
    "class_space_overlap": ("class_space", "neighbour_overlap"),
    "class_space_rank": ("class_space", "leave_one_out_rank", "relative"),
}  # fmt: skip
THRESHOLDS = (*FIGURES, LATENCY)
ALL = "all classes"


@dataclass(frozen=True)
class Loss:
    """How much the champion is better, on the same pictures: an estimate and its one-sided bounds.

    `slice` is the slice it was found in, empty for the whole.
    """

    name: str
    value: float
    upper: float
    pictures: int
    classes: int
    # Pictures with which a model as good as the champion would be expected to pass; None: not estimated.
    needed: int | None = None
    slice: str = ""
    lower: float = -math.inf

    @classmethod
    def of(cls, name: str, paired: Mapping[str, Any], epsilon: float) -> Loss:
        """From what `evaluation.bootstrap.paired_loss` gave."""
        return cls(
            name=name,
            value=paired["loss"],
            upper=paired["upper"],
            pictures=paired["pictures"],
            classes=paired["classes"],
            needed=pictures_needed(dict(paired), epsilon),
        )

    @classmethod
    def of_slice(cls, name: str, where: str, paired: Mapping[str, Any], confidence: float) -> Loss:
        """The same in a slice, with both bounds at `confidence`."""
        lower, upper = bounds(dict(paired), confidence)
        return cls(name, paired["loss"], upper, paired["pictures"], paired["classes"], None, where, lower)


@dataclass(frozen=True)
class Check:
    name: str
    kind: Kind
    value: float | None
    # Ends that are None are open: a bound has one end only.
    interval: tuple[float | None, float | None] | None
    threshold: float
    passed: bool | None  # also where there is no `value`: nothing to judge is no reason to refuse
    why: str


@dataclass(frozen=True)
class Decision:
    checks: tuple[Check, ...]
    estimated_on: str
    champion: int | None
    figures_of: str = ALL  # the classes whose figures the absolute checks read, and why
    stand_in: str | None = (
        None  # which engine the trial ran with instead of the one that was measured, and why
    )
    not_judged: tuple[str, ...] = ()  # slices that are too small, each with what it has

    @property
    def verdict(self) -> Verdict:
        passed = [check.passed for check in self.checks]
        if False in passed:
            return "refused"
        return "untried" if None in passed else "promoted"

    @property
    def reasons(self) -> list[str]:
        """Why it was refused, a line per failed check; empty when nothing failed."""
        return [f"{check.name}: {check.why}" for check in self.checks if check.passed is False]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: no NaN, no tuples."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "estimated_on": self.estimated_on,
            "figures_of": self.figures_of,
            "champion": self.champion,
            "stand_in": self.stand_in,
            "not_judged": list(self.not_judged),
            "checks": [
                {**asdict(check), "interval": list(check.interval) if check.interval else None}
                for check in self.checks
            ],
        }


def from_dict(raw: Mapping[str, Any]) -> Decision:
    """The decision that `as_dict` wrote."""
    checks = (
        Check(**{**check, "interval": tuple(check["interval"]) if check["interval"] else None})
        for check in raw["checks"]
    )
    return Decision(
        tuple(checks),
        raw["estimated_on"],
        raw["champion"],
        raw.get("figures_of", ALL),
        raw.get("stand_in"),
        tuple(raw.get("not_judged", ())),
    )


def check_thresholds(release: Release) -> None:
    """Raise ParamsError for thresholds of figures that nobody measures, each with the nearest known name."""
    faults = []
    for section, thresholds in (("minimum", release.minimum), ("maximum", release.maximum)):
        for name, threshold in thresholds.items():
            if name not in THRESHOLDS:
                alike = near(name, THRESHOLDS, 1, cutoff=0.5)
                hint = f"did you mean {alike[0]}?" if alike else f"known: {', '.join(THRESHOLDS)}"
                faults.append(f"unknown figure release.{section}.{name}; {hint}")
            elif not math.isfinite(threshold):
                faults.append(f"release.{section}.{name} is {threshold}: expected a finite number")
        if section == "minimum" and LATENCY in thresholds:
            faults.append(f"release.minimum.{LATENCY} would refuse a fast service: it belongs under maximum")
    if faults:
        raise ParamsError("params.yaml: " + "; ".join(faults))


def decide(
    metrics: Mapping[str, Any],
    release: Release,
    champion: int | None = None,
    losses: Iterable[Loss] = (),
    incomparable: str = "",
    not_judged: Iterable[str] = (),
) -> Decision:
    """Judge a candidate by its metrics.json and, where there is a champion, by its losses against it.

    champion is the version number it is compared with; without one the absolute part decides. One without
    losses, `incomparable` says why, refuses: nothing shows that production would not get worse. `not_judged` are
    slices without a loss. Raises ParamsError for an unknown threshold.
    """
    check_thresholds(release)
    read, figures_of = without_leaks(metrics, release.clean_classes)
    checks = [
        _absolute(kind, name, threshold, read, champion)
        for kind, thresholds in (("minimum", release.minimum), ("maximum", release.maximum))
        for name, threshold in thresholds.items()
    ]
    if metrics.get(PRECISION):
        checks.append(_precision(metrics[PRECISION]))
    if champion is not None:
        checks += relative(list(losses), release, champion, incomparable)
    where = str(metrics.get("estimated_on") or "unseen classes")
    return Decision(tuple(checks), where, champion, figures_of, not_judged=tuple(not_judged))


def without_leaks(metrics: Mapping[str, Any], enough: int) -> tuple[Mapping[str, Any], str]:
    """The metrics whose figures are those of the clean classes, where these are enough, and which they are.

    Figures that are not of unseen classes, such as hubness, stay.
    """
    leakage = metrics.get("leakage") or {}
    flagged, clean = len(leakage.get("flags", ())), leakage.get("clean")
    if not flagged:
        return metrics, ALL
    leak = f"{flagged} leak{'s' if flagged == 1 else ''} from the backbone's pretraining"
    if clean is None:
        return metrics, f"{ALL}; {leak}, but no unseen class has pictures to measure on"
    classes = clean["classes"]
    if classes < enough:
        return metrics, f"{ALL}; {leak}, but {classes} clean are too few: release.clean_classes is {enough}"
    own = {name: clean.get(name) for name, path in FIGURES.items() if path == (name,)}
    return {**metrics, **own, "intervals": clean.get("intervals")}, f"{classes} clean unseen classes; {leak}"


def with_latency(
    decision: Decision, candidate_ms: float, champion_ms: float | None, without: str = ALONE
) -> Decision:
    """The decision with its latency check settled; champion_ms is from a trial in the same run.

    None: there is nothing to compare with, `without` says why, and the check passes.
    """
    return replace(
        decision,
        checks=tuple(
            _latency(check, candidate_ms, champion_ms, without) if check.name == LATENCY else check
            for check in decision.checks
        ),
    )


def untried(decision: Decision) -> Decision:
    """The decision as it stood before its trial."""
    return replace(
        decision,
        checks=tuple(
            _open_latency(check.threshold, decision.champion) if check.name == LATENCY else check
            for check in decision.checks
            if check.name != TRIAL
        ),
        stand_in=None,
    )


def with_trial_failure(decision: Decision, why: str) -> Decision:
    """The decision after a trial that failed: refused, for the reason the trial gave."""
    failed = Check(TRIAL, "minimum", 0.0, None, 1.0, False, why)
    return replace(decision, checks=(*decision.checks, failed))


def _absolute(
    kind: Any, name: str, threshold: float, metrics: Mapping[str, Any], champion: int | None
) -> Check:
    if name == LATENCY:
        return _open_latency(threshold, champion)
    value, interval = figure(metrics, name), _interval(metrics, name)
    space = metrics.get("class_space") or {}
    unread = space.get("unread") if name == DESCRIPTIONS else None
    if name == DESCRIPTIONS and not unread and space.get("p") is not None and space.get(name, 0) is None:
        why = "not applicable: the class space does not read descriptions beside names"
        return Check(name, kind, None, None, threshold, True, why)
    if value is None:
        why = unread or "missing or not a number in the metrics"
        return Check(name, kind, None, interval, threshold, False, why)
    passed = value >= threshold if kind == "minimum" else value <= threshold
    side = {"minimum": ("at least", "below"), "maximum": ("at most", "above")}[kind]
    why = f"{_short(value)} is {side[0] if passed else side[1]} {_short(threshold)}"
    return Check(name, kind, value, interval, threshold, passed, why)


def _precision(found: Mapping[str, Any]) -> Check:
    """Whether an engine of reduced precision leaves pictures their labels."""
    share = _finite(found["share"])
    if share is None:
        why = f"no validation pictures show whether {found['engine']} keeps the labels: set embed.precision=fp32"
        return Check(PRECISION, "minimum", None, None, AGREEMENT, False, why)
    passed = share >= AGREEMENT
    why = f"{found['engine']} keeps {found['equal']:,} of {found['labels']:,} labels"
    why += "" if passed else f", less than {AGREEMENT:.1%}: set embed.precision=fp32"
    return Check(PRECISION, "minimum", share, None, AGREEMENT, passed, why)


def relative(losses: Sequence[Loss], release: Release, champion: int, incomparable: str = "") -> list[Check]:
    """The checks against the champion, those of slices last; without a loss a failed one."""
    if not losses:
        why = f"nothing to compare with champion {champion} on"
        why += f": {incomparable}" if incomparable else ""
        return [Check("loss", "relative", None, None, release.epsilon, False, why)]
    whole = [_bound(loss, release, champion) for loss in losses if not loss.slice]
    return whole + [_in_slice(loss, release, champion) for loss in losses if loss.slice]


def _bound(loss: Loss, release: Release, champion: int) -> Check:
    name = f"loss of {loss.name}"
    on = f"on {loss.pictures:,} pictures of {loss.classes} classes"
    if not math.isfinite(loss.upper) or not math.isfinite(loss.value):
        why = f"the loss against champion {champion} is not a number {on}"
        return Check(name, "relative", None, None, release.epsilon, False, why)
    passed = loss.upper <= release.epsilon
    why = (
        f"against champion {champion} at most {_short(loss.upper)} "
        f"(one-sided {release.confidence:.0%}, {on}), {'within' if passed else 'above'} epsilon "
        f"{_short(release.epsilon)}"
    )
    if not passed and loss.value <= release.epsilon and loss.needed:
        why += f"; an equal model needs about {loss.needed:,} pictures to show it"
    return Check(name, "relative", loss.value, (None, loss.upper), release.epsilon, passed, why)


def _in_slice(loss: Loss, release: Release, champion: int) -> Check:
    name = f"loss of {loss.name} in {loss.slice}"
    on = f"on {loss.pictures:,} pictures of {loss.classes} classes"
    epsilon = release.slice_epsilon
    if not math.isfinite(loss.lower) or not math.isfinite(loss.value):
        why = f"the loss against champion {champion} is not a number {on}"
        return Check(name, "relative", None, None, epsilon, False, why)
    above, certain = loss.value > epsilon, loss.lower > 0
    side = "above" if above else "within"
    why = f"{_short(loss.value)} against champion {champion} {on}, {side} slice epsilon {_short(epsilon)}"
    if above:
        why += ", and worse beyond chance" if certain else ", but that may be chance"
        why += f": at least {_short(loss.lower)} (one-sided, {release.confidence:.0%} over all slices)"
    return Check(name, "relative", loss.value, (loss.lower, None), epsilon, not (above and certain), why)


def _open_latency(threshold: float, champion: int | None) -> Check:
    if champion is None:
        return Check(LATENCY, "maximum", None, None, threshold, True, ALONE)
    return Check(LATENCY, "maximum", None, None, threshold, None, "measured in the trial")


def _latency(check: Check, candidate_ms: float, champion_ms: float | None, without: str) -> Check:
    if champion_ms is None:
        return replace(check, passed=True, why=f"{candidate_ms:.1f} ms; {without}")
    ratio = candidate_ms / champion_ms if champion_ms > 0 else math.nan
    if not math.isfinite(ratio):
        return replace(check, passed=False, why="a latency is not a number")
    passed = ratio <= check.threshold
    why = f"{candidate_ms:.1f} ms against the champion's {champion_ms:.1f} ms"
    return replace(check, value=ratio, passed=passed, why=why)


def figure(metrics: Mapping[str, Any], name: str) -> float | None:
    """The figure a threshold is about; None when it is missing or not a number."""
    node: Any = metrics
    for key in FIGURES[name]:
        node = node.get(key) if isinstance(node, Mapping) else None
    return _finite(node)


def _interval(metrics: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    intervals = metrics.get("intervals")
    if not isinstance(intervals, Mapping):
        return None
    pair = intervals.get(name, intervals.get(".".join(FIGURES[name])))
    if isinstance(pair, Mapping):
        pair = [pair.get("low"), pair.get("high")]
    if not isinstance(pair, Sequence) or len(pair) != 2:
        return None
    low, high = _finite(pair[0]), _finite(pair[1])
    return None if low is None or high is None else (low, high)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


# Printing

NOTHING = "–"
COLUMNS = ("figure", "value", "interval", "threshold", "passed", "why")
_SIGNS = {"minimum": "≥", "maximum": "≤", "relative": "≤"}
_PASSED = {True: "yes", False: "no", None: "open"}


def table(decision: Decision) -> list[dict[str, str]]:
    """A row of short texts per check, under COLUMNS."""
    return [
        {
            "figure": check.name,
            "value": NOTHING if check.value is None else _short(check.value),
            "interval": _range(check.interval),
            "threshold": f"{_SIGNS[check.kind]} {_short(check.threshold)}",
            "passed": NOTHING if check.passed and check.value is None else _PASSED[check.passed],
            "why": check.why,
        }
        for check in decision.checks
    ]


def markdown(decision: Decision) -> str:
    """The decision as a markdown table with its verdict above."""
    against = ALONE if decision.champion is None else f"champion: version {decision.champion}"
    lines = [
        f"**{decision.verdict}** · estimated on {decision.estimated_on} · {against}",
        *([] if decision.figures_of == ALL else ["", f"Figures of {decision.figures_of}."]),
        *(["", f"In the trial {decision.stand_in}."] if decision.stand_in else []),
        *(["", f"{too_small(decision)}."] if decision.not_judged else []),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    lines += [
        "| " + " | ".join(row[column].replace("|", "\\|") for column in COLUMNS) + " |"
        for row in table(decision)
    ]
    return "\n".join(lines) + "\n"


def too_small(decision: Decision, most: int = 5) -> str:
    """The slices that were not judged, in words."""
    return f"Too small to be judged: {listed(decision.not_judged, most)}"


def _range(interval: tuple[float | None, float | None] | None) -> str:
    if interval is None:
        return ""
    low, high = ("" if end is None else _short(end) for end in interval)
    return f"{low} … {high}" if low and high else f"≤ {high}" if high else f"≥ {low}"


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
