"""The gate: what it lets through, what it refuses, and how it says so."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ayeaye.core.errors import ParamsError
from ayeaye.core.params import Release
from ayeaye.evaluation.bootstrap import paired_loss
from ayeaye.release import gate
from ayeaye.release.gate import Loss

RELEASE = Release(
    minimum={"T1_above_chance": 0.1, "H": 0.1},
    maximum={"seen_bias": 0.75, "hubness_excess": 1.0, "class_space_p": 0.05},
)
GOOD: dict[str, Any] = {
    "T1": 0.6,
    "T1_above_chance": 0.55,
    "H": 0.5,
    "seen_bias": 0.4,
    "hubness": {"excess": -0.3},
    "class_space": {"p": 0.001},
    "intervals": {"H": [0.45, 0.55], "seen_bias": None},
    "estimated_on": "class folds",
}


def loss(upper: float, value: float = 0.0, needed: int | None = None) -> Loss:
    return Loss("H", value, upper, pictures=400, classes=20, needed=needed)


def check(decision: gate.Decision, name: str) -> gate.Check:
    return next(check for check in decision.checks if check.name == name)


def test_good_figures_without_a_champion_are_promoted() -> None:
    decision = gate.decide(GOOD, RELEASE)
    assert decision.verdict == "promoted"
    assert decision.reasons == []
    assert decision.estimated_on == "class folds"


def test_the_point_estimate_decides_and_its_interval_is_shown() -> None:
    metrics = {**GOOD, "H": 0.11, "intervals": {"H": [0.02, 0.2]}}
    decision = gate.decide(metrics, RELEASE)
    assert decision.verdict == "promoted"
    assert check(decision, "H").interval == (0.02, 0.2)


@pytest.mark.parametrize(("name", "value"), [("H", 0.0999), ("T1_above_chance", 0.0), ("seen_bias", 0.7501)])
def test_a_figure_beyond_its_threshold_refuses(name: str, value: float) -> None:
    decision = gate.decide({**GOOD, name: value}, RELEASE)
    assert decision.verdict == "refused"
    assert [reason.split(":")[0] for reason in decision.reasons] == [name]


@pytest.mark.parametrize("name", ["H", "seen_bias"])
def test_a_figure_at_its_threshold_passes(name: str) -> None:
    threshold = {**RELEASE.minimum, **RELEASE.maximum}[name]
    assert gate.decide({**GOOD, name: threshold}, RELEASE).verdict == "promoted"


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5", True])
@pytest.mark.parametrize("name", ["H", "seen_bias"])
def test_what_is_not_a_finite_number_fails(name: str, value: Any) -> None:
    decision = gate.decide({**GOOD, name: value}, RELEASE)
    assert decision.verdict == "refused"
    assert check(decision, name).value is None


def test_a_missing_nested_figure_fails() -> None:
    metrics = {key: value for key, value in GOOD.items() if key != "hubness"}
    decision = gate.decide(metrics, RELEASE)
    assert check(decision, "hubness_excess").passed is False


@pytest.mark.parametrize(("upper", "verdict"), [(0.02, "promoted"), (0.0201, "refused")])
def test_the_upper_bound_of_the_loss_decides_against_the_champion(upper: float, verdict: str) -> None:
    assert gate.decide(GOOD, RELEASE, champion=4, losses=[loss(upper)]).verdict == verdict


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bound_that_is_not_a_number_refuses(bad: float) -> None:
    assert gate.decide(GOOD, RELEASE, champion=4, losses=[loss(bad)]).verdict == "refused"


def test_a_champion_that_cannot_be_compared_with_refuses() -> None:
    decision = gate.decide(GOOD, RELEASE, champion=4, incomparable="it takes features")
    assert decision.verdict == "refused"
    assert decision.reasons == ["loss: nothing to compare with champion 4 on: it takes features"]


def test_one_of_several_losses_is_enough_to_refuse() -> None:
    losses = [loss(0.01), Loss("T1", 0.05, 0.09, 100, 8)]
    decision = gate.decide(GOOD, RELEASE, champion=4, losses=losses)
    assert [reason.split(":")[0] for reason in decision.reasons] == ["loss of T1"]


def test_an_undecided_comparison_says_how_many_pictures_it_would_take() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(8), 12)
    paired = paired_loss(rng.random(96) < 0.6, rng.random(96) < 0.6, y)
    decision = gate.decide(GOOD, RELEASE, champion=4, losses=[Loss.of("T1", {**paired, "loss": 0.0}, 0.02)])
    assert decision.verdict == "refused"
    assert "96 pictures of 8 classes" in decision.reasons[0]
    assert "an equal model needs about" in decision.reasons[0]


LATENCY = Release(minimum={"H": 0.1}, maximum={"latency_ratio": 2.0})


def test_the_latency_stays_open_until_the_trial() -> None:
    decision = gate.decide(GOOD, LATENCY, champion=4, losses=[loss(0.0)])
    assert decision.verdict == "untried"
    assert gate.with_latency(decision, 19.9, 10.0).verdict == "promoted"
    assert gate.with_latency(decision, 20.1, 10.0).verdict == "refused"
    assert gate.with_latency(decision, math.nan, 10.0).verdict == "refused"


def test_the_first_model_has_no_latency_to_compare_with() -> None:
    decision = gate.decide(GOOD, LATENCY)
    assert decision.verdict == "promoted"
    assert gate.with_latency(decision, 12.0, None).verdict == "promoted"


def test_a_champion_that_cannot_be_measured_is_said_to_be_the_reason() -> None:
    decision = gate.decide(GOOD, LATENCY, champion=4, losses=[loss(0.0)])
    decision = gate.with_latency(decision, 12.0, None, "not compared: the champion's Bento is gone")
    assert decision.verdict == "promoted"
    assert check(decision, "latency_ratio").why == "12.0 ms; not compared: the champion's Bento is gone"


def test_a_refused_candidate_stays_refused_however_fast_it_is() -> None:
    decision = gate.decide({**GOOD, "H": 0.0}, LATENCY, champion=4, losses=[loss(0.0)])
    assert decision.verdict == "refused"
    assert gate.with_latency(decision, 1.0, 10.0).verdict == "refused"


def test_a_failed_trial_refuses_with_its_reason() -> None:
    decision = gate.with_trial_failure(gate.decide(GOOD, RELEASE), "labels okapi zebra")
    assert decision.reasons == ["trial: labels okapi zebra"]


@pytest.mark.parametrize("champion", [None, 4])
def test_what_a_trial_decided_is_open_again_before_the_next_one(champion: int | None) -> None:
    before = gate.decide(GOOD, LATENCY, champion, [loss(0.0)])
    assert gate.untried(gate.with_trial_failure(before, "not ready after 120 s")) == before
    assert gate.untried(gate.with_latency(before, 90.0, champion and 10.0)) == before


def test_unknown_figures_are_answered_at_once_with_the_nearest_known_ones() -> None:
    release = Release(minimum={"T1_above_chanse": 0.1}, maximum={"hubness_exces": 1.0, "latency": 2.0})
    with pytest.raises(ParamsError) as error:
        gate.check_thresholds(release)
    for near in ("T1_above_chance?", "hubness_excess?", "latency_ratio?"):
        assert f"did you mean {near}" in str(error.value)


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_that_is_not_finite_raises_meaningful_error(threshold: float) -> None:
    with pytest.raises(ParamsError, match=r"release\.minimum\.H is (nan|inf): expected a finite number"):
        gate.decide(GOOD, Release(minimum={"H": threshold}))


AGREEING: dict[str, Any] = {
    "rho": 0.2,
    "p": 0.001,
    "neighbour_overlap": 0.3,
    "leave_one_out_rank": {"mean": 4.0, "median": 3.0, "chance": 10.5, "relative": 0.38},
}


@pytest.mark.parametrize(
    ("section", "name", "passing", "refusing"),
    [
        ("minimum", "class_space_rho", 0.2, 0.21),
        ("minimum", "class_space_overlap", 0.3, 0.31),
        ("maximum", "class_space_rank", 0.38, 0.37),
        ("maximum", "class_space_p", 0.05, 0.0005),
    ],
)
def test_the_class_space_itself_can_be_held_to_thresholds(
    section: str, name: str, passing: float, refusing: float
) -> None:
    metrics = {**GOOD, "class_space": AGREEING}
    for threshold, verdict in ((passing, "promoted"), (refusing, "refused")):
        decision = gate.decide(metrics, Release.model_validate({section: {name: threshold}}))
        assert decision.verdict == verdict
    unknown = {**GOOD, "class_space": {"classes": 3, "rho": None, "p": None}}
    assert gate.decide(unknown, Release.model_validate({section: {name: passing}})).verdict == "refused"


def test_the_default_thresholds_are_all_known() -> None:
    from pathlib import Path

    from ayeaye.core import params

    gate.check_thresholds(params.load(Path(__file__).parents[2] / "params.yaml").release)


def test_a_decision_survives_strict_json() -> None:
    metrics = {**GOOD, "H": math.nan}
    decision = gate.decide(metrics, RELEASE, champion=4, losses=[loss(math.inf), loss(0.01)])
    text = json.dumps(decision.as_dict(), allow_nan=False)
    assert gate.from_dict(json.loads(text)) == decision


def test_a_decision_that_was_written_before_there_were_slices_is_read() -> None:
    decision = gate.decide(GOOD, RELEASE, champion=4, losses=[loss(0.01)])
    raw = decision.as_dict()
    for later in ("not_judged", "stand_in", "figures_of"):
        del raw[later]
    assert gate.from_dict(raw) == decision


def in_slice(value: float, lower: float) -> Loss:
    return Loss("T1", value, value + 0.1, pictures=96, classes=4, slice="group fruit", lower=lower)


@pytest.mark.parametrize(
    ("value", "lower", "verdict"),
    [
        pytest.param(0.051, 0.001, "refused", id="worse by more, and beyond chance"),
        pytest.param(0.051, 0.0, "promoted", id="but it may be chance"),
        pytest.param(0.05, 0.04, "promoted", id="beyond chance, but not by more"),
        pytest.param(-0.2, -0.3, "promoted", id="better"),
        pytest.param(math.nan, 0.1, "refused", id="not a number"),
        pytest.param(0.051, math.nan, "refused", id="not a number either"),
    ],
)
def test_a_slice_refuses_where_it_is_worse_by_more_than_its_epsilon_and_for_certain(
    value: float, lower: float, verdict: str
) -> None:
    decision = gate.decide(GOOD, RELEASE, champion=4, losses=[loss(0.01), in_slice(value, lower)])
    assert decision.verdict == verdict
    assert all(reason.startswith("loss of T1 in group fruit: ") for reason in decision.reasons)
    assert gate.from_dict(json.loads(json.dumps(decision.as_dict(), allow_nan=False))) == decision


def test_the_table_has_a_row_per_check_and_markdown_one_per_row() -> None:
    decision = gate.decide(GOOD, RELEASE, champion=4, losses=[loss(0.013)])
    rows = gate.table(decision)
    assert len(rows) == 6
    assert rows[1] == {
        "figure": "H",
        "value": "0.5",
        "interval": "0.45 … 0.55",
        "threshold": "≥ 0.1",
        "passed": "yes",
        "why": "0.5 is at least 0.1",
    }
    assert rows[-1]["interval"] == "≤ 0.013"
    lines = gate.markdown(decision).splitlines()
    assert lines[0].startswith("**promoted** · estimated on class folds · champion: version 4")
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(rows)


def test_an_engine_that_stands_in_is_told_and_does_not_refuse() -> None:
    decision = gate.decide(GOOD, RELEASE)
    told = replace(decision, stand_in="torch fp32 runs instead of openvino bf16: openvino is not installed")
    assert told.verdict == decision.verdict
    assert gate.from_dict(json.loads(json.dumps(told.as_dict()))) == told
    assert "In the trial torch fp32 runs instead of openvino bf16" in gate.markdown(told)
    assert "In the trial" not in gate.markdown(decision)
    assert gate.untried(told).stand_in is None


@pytest.mark.parametrize(
    ("equal", "labels", "verdict"), [(398, 400, "promoted"), (397, 400, "refused"), (0, 0, "refused")]
)
def test_reduced_precision_that_changes_labels_is_refused(equal: int, labels: int, verdict: str) -> None:
    share = equal / labels if labels else None
    found = {"engine": "openvino bf16", "equal": equal, "labels": labels, "share": share}
    decision = gate.decide({**GOOD, "reduced_precision": found}, RELEASE)
    assert decision.verdict == verdict
    assert all("openvino bf16" in reason and "embed.precision=fp32" in reason for reason in decision.reasons)
    assert gate.decide({**GOOD, "reduced_precision": None}, RELEASE) == gate.decide(GOOD, RELEASE)


# ---- leakage ----


def leaking(clean: dict[str, Any] | None, flags: int = 2) -> dict[str, Any]:
    found = {f"kind {number}": {"kind": "exact", "match": "kind"} for number in range(flags)}
    return {**GOOD, "leakage": {"flags": found, "clean": clean, "flagged": None}}


CLEAN = {"T1_above_chance": 0.05, "H": 0.3, "seen_bias": 0.5, "intervals": {"H": [0.2, 0.4]}}


def test_with_enough_clean_classes_the_gate_reads_their_figures_and_says_so() -> None:
    decision = gate.decide(leaking({**CLEAN, "classes": 5}), RELEASE)
    assert [reason.split(":")[0] for reason in decision.reasons] == ["T1_above_chance"]
    assert (check(decision, "H").value, check(decision, "H").interval) == (0.3, (0.2, 0.4))
    assert check(decision, "hubness_excess").value == -0.3
    assert decision.figures_of == "5 clean unseen classes; 2 leak from the backbone's pretraining"
    assert "Figures of 5 clean unseen classes" in gate.markdown(decision)
    assert gate.from_dict(json.loads(json.dumps(decision.as_dict()))) == decision


def test_with_too_few_clean_classes_it_reads_all_and_says_so() -> None:
    decision = gate.decide(leaking({**CLEAN, "classes": 4}), RELEASE)
    assert decision.verdict == "promoted"
    assert check(decision, "H").value == 0.5
    assert decision.figures_of.endswith("but 4 clean are too few: release.clean_classes is 5")
    fewer = RELEASE.model_copy(update={"clean_classes": 4})
    assert gate.decide(leaking({**CLEAN, "classes": 4}), fewer).verdict == "refused"


def test_leaks_without_pictures_leave_the_figures_and_are_said() -> None:
    decision = gate.decide(leaking(None, flags=1), RELEASE)
    assert decision.verdict == "promoted"
    assert decision.figures_of == (
        "all classes; 1 leaks from the backbone's pretraining, but no unseen class has pictures to measure on"
    )


def test_without_leaks_all_classes_count_and_nothing_is_said() -> None:
    decision = gate.decide(leaking({**CLEAN, "classes": 9}, flags=0), RELEASE)
    assert decision.figures_of == gate.ALL
    assert "Figures of" not in gate.markdown(decision)


# ---- checks without a subject ----


@pytest.mark.parametrize(
    ("found", "row"),
    [
        ({"p": 0.001, "descriptions_p": 0.01}, ("0.01", "yes")),
        ({"p": 0.001, "descriptions_p": 0.2}, ("0.2", "no")),
        ({"p": 0.001, "descriptions_p": None}, ("–", "–")),
        ({"p": 0.001}, ("–", "no")),
        ({"p": None, "descriptions_p": None}, ("–", "no")),
        ({"p": 0.001, "descriptions_p": None, "unread": "9 descriptions are not read"}, ("–", "no")),
    ],
)
def test_without_descriptions_to_judge_nothing_is_shown_to_have_passed(
    found: dict[str, Any], row: tuple[str, str]
) -> None:
    release = Release(minimum={}, maximum={"descriptions_p": 0.05})
    decision = gate.decide({**GOOD, "class_space": found}, release)
    (shown,) = gate.table(decision)
    assert (shown["value"], shown["passed"]) == row
    assert (decision.verdict == "promoted") == (row[1] != "no")
    assert ("not applicable" in shown["why"]) == (row == ("–", "–"))
    assert found.get("unread", "") in shown["why"]


def test_a_latency_without_a_champion_has_nothing_to_pass() -> None:
    decision = gate.decide(GOOD, Release(minimum={}, maximum={gate.LATENCY: 1.5}))
    (row,) = gate.table(gate.with_latency(decision, 12.0, None))
    assert (row["value"], row["passed"]) == ("–", "–")
    assert row["why"] == "12.0 ms; no champion to compare with"
