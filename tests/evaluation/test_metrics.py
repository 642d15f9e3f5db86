"""The figures against hand-computed cases, brute force over every offset, and properties that always hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayeaye.core.errors import DataError
from ayeaye.evaluation.metrics import (
    FIGURES,
    Fold,
    confusion,
    curve,
    curve_figures,
    measure,
    measure_folds,
    paired_differences,
    per_class_accuracy,
    reliability,
)

QUICK = {"resamples": 20, "k": 1}


def brute_force(scores, y, seen, gamma):
    """U, S, T1, biases by answering one picture at a time."""
    answers = {c: [] for c in set(y.tolist())}
    t1 = {c: [] for c in answers}
    crossed = {c: [] for c in answers}
    unseen = np.flatnonzero(~seen)
    for row, c in zip(scores, y.tolist(), strict=True):
        answer = int(np.argmax(row.astype(np.float64) - gamma * seen))
        answers[c].append(answer == c)
        crossed[c].append(seen[answer] != seen[c])
        t1[c].append(unseen[np.argmax(row[unseen])] == c)

    def mean(found, want_seen):
        values = [np.mean(v) for c, v in found.items() if seen[c] == want_seen]
        return float(np.mean(values)) if values else None

    return {
        "T1": mean(t1, False),
        "U": mean(answers, False),
        "S": mean(answers, True),
        "seen_bias": mean(crossed, False),
        "unseen_bias": mean(crossed, True),
    }


def brute_area(scores, y, seen):
    gaps = np.sort([r[seen].max().astype(np.float64) - r[~seen].max().astype(np.float64) for r in scores])
    offsets = [gaps[0] - 1, *((gaps[1:] + gaps[:-1]) / 2), gaps[-1] + 1]
    points = [brute_force(scores, y, seen, gamma) for gamma in offsets]
    return float(-np.trapezoid([p["U"] for p in points], [p["S"] for p in points]))


def brute_auroc(scores, y, seen):
    gaps = scores[:, seen].max(1) - scores[:, ~seen].max(1)
    total = []
    for a in np.unique(y[seen[y]]):
        for b in np.unique(y[~seen[y]]):
            first, second = gaps[y == a][:, None], gaps[y == b][None]
            total.append(np.mean((first > second) + 0.5 * (first == second)))
    return float(np.mean(total))


def case(seed, classes=5, pictures=14, n_seen=None):
    rng = np.random.default_rng(seed)
    seen = np.arange(classes) < (n_seen or rng.integers(1, classes))
    rng.shuffle(seen)
    y = np.concatenate(
        [np.flatnonzero(seen)[:1], np.flatnonzero(~seen)[:1], rng.integers(0, classes, pictures)]
    )
    scores = rng.normal(size=(len(y), classes)).astype(np.float32)
    scores[np.arange(len(y)), y] += rng.uniform(0, 2)
    return scores, y, seen, float(rng.normal(0, 0.5))


@pytest.mark.parametrize("seed", range(12))
def test_every_figure_is_what_answering_one_picture_at_a_time_gives(seed):
    scores, y, seen, gamma = case(seed)
    found, wanted = measure(scores, y, seen, gamma, **QUICK), brute_force(scores, y, seen, gamma)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value), name
    u, s = wanted["U"], wanted["S"]
    assert found["H"] == pytest.approx(2 * u * s / (u + s) if u + s else 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), pictures=st.integers(0, 12))
def test_ausuc_is_the_area_over_all_offsets(seed, classes, pictures):
    scores, y, seen, _ = case(seed, classes, pictures)
    found = measure(scores, y, seen, 0.3, **QUICK)
    assert found["AUSUC"] == pytest.approx(brute_area(scores, y, seen))
    assert found["unseen_auroc"] == pytest.approx(brute_auroc(scores, y, seen))


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), levels=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_figures_of_the_whole_curve_are_those_of_its_points(seed, classes, levels):
    scores, y, seen, _ = case(seed, classes)
    scores = np.round(scores * levels) / levels
    found, whole = curve_figures(scores, y, seen), measure(scores, y, seen, 0.0, **QUICK)
    points = curve(scores, y, seen)
    total = points["unseen"] + points["seen"]
    harmonic = 2 * points["unseen"] * points["seen"] / np.where(total > 0, total, 1)
    assert found["T1"] == pytest.approx(whole["T1"])
    assert found["AUSUC"] == pytest.approx(whole["AUSUC"])
    assert found["H"] == pytest.approx(harmonic.max())


@pytest.mark.parametrize(("kept", "names"), [(True, set()), (False, {"T1"})])
def test_figures_of_a_curve_that_there_is_not_are_left_out(kept, names):
    scores, y, seen, _ = case(1)
    side = seen[y] == kept
    assert curve_figures(scores[side], y[side], seen).keys() == names


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), pictures=st.integers(0, 20))
def test_the_order_of_pictures_and_classes_changes_no_figure(seed, classes, pictures):
    scores, y, seen, gamma = case(seed, classes, pictures)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(y)), rng.permutation(classes)
    place = np.argsort(columns)
    first = measure(scores, y, seen, gamma, **QUICK)
    second = measure(scores[rows][:, columns], place[y[rows]], seen[columns], gamma, **QUICK)
    for name in FIGURES:
        assert first[name] == pytest.approx(second[name]), name
    assert first["hubness"]["skewness"] == pytest.approx(second["hubness"]["skewness"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), levels=st.integers(1, 4))
def test_figures_stay_in_their_bounds_with_ties(seed, classes, levels):
    scores, y, seen, gamma = case(seed, classes)
    found = measure(np.round(scores * levels) / levels, y, seen, gamma, **QUICK)
    json.dumps(found, allow_nan=False)
    for name in FIGURES:
        assert 0 <= found[name] <= 1, name
        low, high = found["intervals"][name]
        assert 0 <= low <= high <= 1, name
    assert min(found["U"], found["S"]) <= found["H"] + 1e-12
    assert found["H"] <= max(found["U"], found["S"]) + 1e-12
    assert found["AUSUC"] <= found["T1"] + 1e-12
    assert found["U"] <= 1 - found["seen_bias"] + 1e-12


def test_hand_computed_example():
    seen = np.array([True, True, False, False])
    y = np.array([0, 0, 1, 2, 2, 3])
    scores = np.array(
        [
            [0.9, 0.1, 0.2, 0.3],  # right
            [0.5, 0.1, 0.8, 0.3],  # an unseen class
            [0.1, 0.7, 0.2, 0.3],  # right
            [0.9, 0.1, 0.6, 0.3],  # a seen class; right among the unseen, and with an offset of 0.5
            [0.1, 0.2, 0.3, 0.9],  # the other unseen class
            [0.1, 0.2, 0.3, 0.9],  # right
        ]
    )
    plain = measure(scores, y, seen, 0.0, **QUICK)
    assert plain["T1"] == pytest.approx((1 / 2 + 1) / 2)
    assert plain["U"] == pytest.approx((0 + 1) / 2)
    assert plain["S"] == pytest.approx((1 / 2 + 1) / 2)
    assert plain["H"] == pytest.approx(0.6)
    assert plain["seen_bias"] == pytest.approx((1 / 2 + 0) / 2)
    assert plain["unseen_bias"] == pytest.approx((1 / 2 + 0) / 2)
    assert plain["chance"] == pytest.approx(0.5)
    assert plain["T1_above_chance"] == pytest.approx(0.5)
    # Gaps: .6 and -.3, .4 of the seen classes, .3 and -.7, -.7 of the unseen ones: -.3 < .3 is out of order.
    assert plain["unseen_auroc"] == pytest.approx((3 / 4 + 1 + 1 + 1) / 4)
    # From S = 1, U = 0: U rises to 1/2, S falls to 3/4, U rises to 3/4, S falls to 0.
    assert plain["AUSUC"] == pytest.approx(1 / 4 * 1 / 2 + 3 / 4 * 3 / 4)
    moved = measure(scores, y, seen, 0.35, **QUICK)
    assert moved["U"] == pytest.approx(3 / 4)
    assert moved["S"] == pytest.approx(3 / 4)
    assert moved["uncalibrated"]["H"] == pytest.approx(0.6)


def test_a_perfect_classifier_reaches_every_end():
    seen = np.arange(10) < 6
    y = np.repeat(np.arange(10), 7)
    found = measure(np.eye(10)[y], y, seen, 0.0, k=1, resamples=50)
    for name in ("T1", "U", "S", "H", "AUSUC", "unseen_auroc", "T1_above_chance"):
        assert found[name] == pytest.approx(1), name
        assert found["intervals"][name] == pytest.approx([1, 1]), name
    assert found["seen_bias"] == found["unseen_bias"] == 0
    assert found["hubness"]["excess"] <= 0


def test_a_chance_classifier_meets_its_baselines():
    rng = np.random.default_rng(1)
    seen = np.arange(12) < 8
    y = np.repeat(np.arange(12), 800)
    found = measure(rng.normal(size=(len(y), 12)), y, seen, 0.0, k=3, resamples=100)
    for name in FIGURES:
        assert found[name] == pytest.approx(found["baselines"][name], abs=0.015), name
    assert abs(found["T1_above_chance"]) < 0.02
    assert found["intervals"]["T1"][0] < found["chance"] < found["intervals"]["T1"][1]


def test_a_big_class_weighs_no_more_than_a_small_one():
    seen = np.array([True, False, False])
    y = np.array([1] * 99 + [2] + [0])
    scores = np.tile([0.0, 1.0, 0.0], (len(y), 1))
    assert measure(scores, y, seen, 0.0, **QUICK)["T1"] == pytest.approx(0.5)


def test_a_class_without_pictures_is_left_out_and_not_zero():
    seen = np.array([True, False, False])
    y = np.array([0, 0, 1, 1])
    found = measure(np.eye(3)[y], y, seen, 0.0, **QUICK)
    assert found["T1"] == found["U"] == 1
    assert found["chance"] == pytest.approx(0.5)
    assert found["counts"]["classes_without_pictures"] == 1
    assert [record["class"] for record in found["per_class"]] == [1, 0]
    assert np.isnan(per_class_accuracy(y, y, 3)[2])


@pytest.mark.parametrize("side", ["seen", "unseen", "both"])
def test_an_empty_side_is_null_and_not_nan(side):
    seen = np.array([True, True, False])
    y = {"seen": np.array([2, 2]), "unseen": np.array([0, 1]), "both": np.array([], dtype=int)}[side]
    found = measure(np.eye(3)[y], y, seen, 0.0, **QUICK)
    json.dumps(found, allow_nan=False)
    empty = {"seen": ["S", "unseen_bias"], "unseen": ["T1", "U", "seen_bias", "chance"], "both": FIGURES}[
        side
    ]
    for name in [*empty, "H", "AUSUC", "unseen_auroc"]:
        assert found[name] is None, name
    if side == "seen":
        assert found["U"] == 1


def test_all_classes_unseen_gives_an_unseen_accuracy():
    y = np.array([0, 1, 1])
    found = measure(np.eye(2)[y], y, np.array([False, False]), 0.0, **QUICK)
    assert (found["T1"], found["U"], found["S"], found["AUSUC"]) == (1, 1, None, None)


def test_two_classes_and_one_unseen_class_have_no_scale_above_chance():
    y = np.array([0, 0, 1, 1])
    found = measure(np.eye(2)[y], y, np.array([True, False]), 0.0, k=5, resamples=20)
    assert found["T1"] == found["chance"] == 1
    assert found["T1_above_chance"] is None
    assert found["H"] == 1
    assert found["hubness"]["k"] == 1


def test_equal_scores_go_to_the_unseen_side_and_the_lower_index():
    seen = np.array([True, True, False, False])
    y = np.array([0, 1, 2, 3])
    found = measure(np.ones((4, 4)), y, seen, 0.0, **QUICK)
    assert (found["T1"], found["U"], found["S"], found["seen_bias"]) == (0.5, 0.5, 0, 0)
    assert found["unseen_auroc"] == 0.5
    assert found["AUSUC"] == pytest.approx(0.5 * 0.5 / 2)


def test_evaluated_classes_are_all_that_counts_as_unseen():
    scores, y, seen, gamma = case(3, classes=8, pictures=80, n_seen=4)
    evaluated = ~seen
    evaluated[np.flatnonzero(~seen)[0]] = False
    found = measure(scores, y, seen, gamma, evaluated=evaluated, **QUICK)
    mine = evaluated[y]
    narrow = scores[mine][:, evaluated].argmax(1)
    accuracy = per_class_accuracy(np.flatnonzero(evaluated)[narrow], y[mine], 8)
    assert found["T1"] == pytest.approx(np.nanmean(accuracy))
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["U"] == pytest.approx(
        np.nanmean(per_class_accuracy((scores - gamma * seen)[mine].argmax(1), y[mine], 8))
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores, y, seen, gamma = case(0)
    scores[2, 1] = bad
    with pytest.raises(DataError, match="1 of 16 pictures hold NaN"):
        measure(scores, y, seen, gamma, **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": np.nan}, "offset is nan"),
        ({"y": np.full(16, 5)}, "0 to 4"),
        ({"y": np.zeros(3, dtype=int)}, "do not fit"),
        ({"seen": np.ones(4, dtype=bool)}, "do not fit"),
        ({"evaluated": np.ones(5, dtype=bool)}, "seen and as unseen"),
    ],
)
def test_input_that_does_not_fit_is_refused(change, message):
    scores, y, seen, gamma = case(0)
    with pytest.raises(DataError, match=message):
        measure(**{"scores": scores, "y": y, "seen": seen, "gamma": gamma, **change})


def test_the_curve_runs_from_all_seen_to_all_unseen_and_passes_the_chosen_offset():
    scores, y, seen, gamma = case(5, classes=6, pictures=60)
    found, points = measure(scores, y, seen, gamma, **QUICK), curve(scores, y, seen)
    assert points["unseen"][0] == 0 and points["seen"][-1] == pytest.approx(0)
    assert points["unseen"][-1] == pytest.approx(found["T1"])
    assert (np.diff(points["unseen"]) >= -1e-12).all() and (np.diff(points["seen"]) <= 1e-12).all()
    at = np.searchsorted(points["gamma"], gamma, side="right") - 1
    assert points["unseen"][at] == pytest.approx(found["U"])
    assert points["seen"][at] == pytest.approx(found["S"])
    assert found["curve"]["seen"][-1] == pytest.approx(0)


def folds_of(seed, classes=6, per_class=8, noise=1.0):
    """Three folds of two classes each, the same pictures scored by three classifiers."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), per_class)
    for first in range(0, classes, 2):
        scores = rng.normal(0, noise, (len(y), classes))
        scores[np.arange(len(y)), y] += 2
        seen = np.ones(classes, dtype=bool)
        seen[first : first + 2] = False
        yield scores, y, seen, float(rng.normal(0, 0.2))


def test_class_folds_count_each_pretend_unseen_class_once():
    folds = list(folds_of(0))
    found = measure_folds(folds, **QUICK)
    single = [brute_force(*fold) for fold in folds]
    assert found["T1"] == pytest.approx(np.mean([each["T1"] for each in single]))
    assert found["U"] == pytest.approx(np.mean([each["U"] for each in single]))
    assert found["S"] == pytest.approx(np.mean([each["S"] for each in single]))
    assert found["estimated_on"] == "class folds"
    assert found["chance"] == pytest.approx(1 / 2)
    assert found["counts"]["classes_unseen"] == 6
    assert found["counts"]["pictures_unseen"] == 48
    assert found["counts"]["pictures_seen"] == 48
    json.dumps(found, allow_nan=False)


def test_folds_of_unequal_size_weigh_classes_and_not_folds():
    folds = list(folds_of(1))
    joined = np.ones(6, dtype=bool)
    joined[2:] = False
    uneven = [folds[0], (*folds[1][:2], joined, folds[1][3])]
    first, second = (brute_force(*fold) for fold in uneven)
    found = measure_folds(uneven, **QUICK)
    assert found["T1"] == pytest.approx((2 * first["T1"] + 4 * second["T1"]) / 6)
    assert found["chance"] == pytest.approx((2 * 1 / 2 + 4 * 1 / 4) / 6)


def test_one_fold_gives_the_figures_of_a_plain_measurement():
    scores, y, seen, gamma = case(7, classes=6, pictures=60)
    plain, folded = (
        measure(scores, y, seen, gamma, **QUICK),
        measure_folds([(scores, y, seen, gamma)], **QUICK),
    )
    assert {**plain, "estimated_on": None} == {**folded, "estimated_on": None}


def test_the_same_pictures_in_every_fold_are_not_taken_for_more_pictures():
    scores, y, seen, gamma = next(folds_of(2, per_class=30))
    once = measure(scores, y, seen, gamma, k=1, resamples=400)
    same_seen = measure_folds([(scores, y, seen, gamma)] * 3, k=1, resamples=400)
    assert same_seen["S"] == pytest.approx(once["S"])
    assert np.ptp(same_seen["intervals"]["S"]) == pytest.approx(np.ptp(once["intervals"]["S"]), rel=0.15)


def test_folds_over_different_classes_are_refused():
    with pytest.raises(DataError, match="same columns"):
        measure_folds([case(0), case(0, classes=4)], **QUICK)
    with pytest.raises(DataError, match="no class folds"):
        measure_folds([])


def test_confusion_counts_answers_among_unseen_classes_only():
    seen = np.array([True, False, False, False])
    y = np.array([0, 1, 1, 2])
    scores = np.array([[9, 0, 0, 0], [9, 1, 0, 0], [9, 0, 0, 1], [9, 0, 1, 0.0]])
    shares = confusion([(scores, y, seen, 0.0)], [1, 2, 3])
    assert shares[0].tolist() == [0.5, 0, 0.5]
    assert shares[1].tolist() == [0, 1, 0]
    assert np.isnan(shares[2]).all()


def test_reliability_of_hand_computed_bins():
    found = reliability(np.array([0.1, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 1]), bins=2)
    assert found["confidence"] == pytest.approx([0.1, 0.975])
    assert found["accuracy"] == pytest.approx([0.5, 1.0])
    assert found["ece"] == pytest.approx((0.4 + 0.025) / 2)
    assert reliability(np.array([]), np.array([]))["ece"] is None


def test_paired_differences_are_those_of_the_figures_and_narrower_than_unpaired_ones():
    rng = np.random.default_rng(0)
    seen = np.arange(8) < 5
    y = np.repeat(np.arange(8), 20)
    scores = rng.normal(size=(160, 8)) + 1.5 * np.eye(8)[y]
    old = Fold(scores, y, seen, 0.1)
    new = Fold(scores + 0.2 * rng.normal(size=scores.shape) + 0.3 * np.eye(8)[y], y, seen, 0.0)
    more = paired_differences(new, old, resamples=200)
    figures = [measure(*fold, resamples=200) for fold in (new, old)]
    assert more.keys() == set(FIGURES)
    for name, found in more.items():
        assert found["difference"] == pytest.approx(figures[0][name] - figures[1][name])
        assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    width = [float(np.ptp(figures[0]["intervals"]["H"])), float(np.ptp(more["H"]["interval"]))]
    assert width[1] < width[0]
    assert paired_differences(old, old, resamples=50)["H"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    with pytest.raises(DataError, match="different pictures or roles"):
        paired_differences(new, old._replace(seen=~seen))
