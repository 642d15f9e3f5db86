"""What a reader of a model card must not miss, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ayeaye.class_vectors.text import shown_left_out
from ayeaye.release.card_text import NAMED, NOT_MEASURED, count, listed, ranged
from ayeaye.reporting.report import percent, repeated

DRAWN = "bestiary"


def limits(card: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must not miss, in plain words; each from the figures of `content`."""
    yield from _limits_of_the_test(card)
    yield from _limits_of_classes(card)
    yield from _limits_of_sources(card)
    yield from _limits_of_confidence(card)


def _limits_of_the_test(card: Mapping[str, Any]) -> Iterator[str]:
    counts, figures = card["measured_on"], {each["name"]: each for each in card["figures"]}
    if card["data"]["source"] == DRAWN:
        yield "Its pictures are drawn: nothing here says how it does on photographs."
    if card["estimated_on"] == "class folds":
        yield (
            f"Not measured on real unseen classes, of which there are no pictures: the figures are an estimate from "
            f"{counts['classes_unseen']} seen classes that were kept aside in turn, in {counts['folds']} folds, and "
            "stood in for them."
        )
    yield from repeated(card["data"]["repeated"])
    T1 = figures["T1"]
    if T1["value"] is None:
        yield "How well it names unseen classes is not measured: there is no picture of any."
    elif T1["interval"][0] <= T1["chance"]:
        yield (
            f"Among unseen classes it is not shown to be better than guessing: T1 is {ranged(T1)}, chance "
            f"{T1['chance']:.3f}."
        )
    if counts["classes_without_pictures"]:
        yield (
            f"Nothing is measured of {count(counts['classes_without_pictures'], 'unseen class', 'unseen classes')} "
            "without a test picture."
        )
    measured = [*card["classes"]["unseen"], *card["classes"]["seen"]]
    if measured:
        fewest, most = (pick(each["pictures"] for each in measured) for pick in (min, max))
        widths = [(each["interval"][1] - each["interval"][0]) / 2 for each in measured]
        pictures = f"{fewest} to {most}" if fewest < most else f"{fewest}"
        yield (
            f"Each class was measured on {pictures} picture{'s' * (most > 1)}, so that its own accuracy is known to "
            f"± {100 * sum(widths) / len(widths):.0f} percentage points on average."
        )


def _limits_of_classes(card: Mapping[str, Any]) -> Iterator[str]:
    figures = {each["name"]: each["value"] for each in card["figures"]}
    biased = [
        f"{percent(figures[name])} of the pictures of {side} classes get the label of {other} one"
        for name, side, other in (("seen_bias", "unseen", "a seen"), ("unseen_bias", "seen", "an unseen"))
        if figures[name] is not None
    ]
    if biased:
        yield f"{' and '.join(biased)}."
    stood_in = card["estimated_on"] == "class folds"
    for side, said in (("unseen", "classes that stood in for unseen ones" if stood_in else "unseen classes"),
                       ("seen", "seen classes")):  # fmt: skip
        worst = [each for each in card["classes"][side] if each["accuracy"] < 1][:NAMED]
        if worst:
            named = "; ".join(
                f"{each['class']} ({percent(each['accuracy'])} of {each['pictures']})" for each in worst
            )
            yield f"Of the {said} the least often right among all: {named}."
    unreached, hubness = card["classes"]["unreached"], card["hubness"]
    if unreached:
        verb = "is" if len(unreached) == 1 else "are"
        yield (
            f"{count(len(unreached), 'class', 'classes')} {verb} never among the {hubness['k']} nearest of a test "
            f"picture, and so hardly ever an answer: {listed(unreached)}."
        )
    if hubness.get("excess") is not None and hubness["excess"] > 0 and card["classes"]["nearest"]:
        named = "; ".join(f"{e['class']} ({e['times']:.1f} times)" for e in card["classes"]["nearest"])
        yield (
            f"Some classes attract pictures beyond chance (skewness {hubness['skewness']:.2f}, chance reaches "
            f"{hubness['null']:.2f}). Among the {hubness['k']} nearest more often than the mean: {named}."
        )


def _limits_of_sources(card: Mapping[str, Any]) -> Iterator[str]:
    leakage, backbone, space = card["leakage"], card["backbone"], card["class_space"]
    if flags := list(leakage["flags"]):
        yield (
            f"{len(flags)} of {card['data']['unseen']} unseen classes are no news to the backbone, which was "
            f"pretrained on pictures of them or of their kind: {listed(flags)}."
        )
    elif not leakage["pretraining_classes"] and not (backbone and backbone["trained_here"]):
        yield (
            "What the backbone was pretrained on is not known, so that some unseen classes may be no news to it."
            if backbone
            else "What the features were made with is not stated, so that some unseen classes may be no news to it."
        )
    quality = space["quality"]
    if quality.get("p") is None or max(quality["p"], quality["descriptions_p"] or 0) > 0.05:
        yield f"{space['judgement']}"
    if unread := quality.get("unread"):
        yield f"{unread}."
    for source in space["sources"]:
        if lacking := source["incomplete"]:
            verb = "has" if len(lacking) == 1 else "have"
            yield (
                f"{count(len(lacking), 'class', 'classes')} {verb} words that {source['source']} does not know: "
                f"{shown_left_out(lacking)}."
            )
    if backbone and backbone["licence"] is None:
        yield "The licence of the backbone's weights is not stated (serve.weights_licence)."
    if found := card["reduced_precision"]:
        kept = (
            NOT_MEASURED
            if found["share"] is None
            else f"{found['equal']:,} of {found['labels']:,} are the same"
        )
        yield f"The network runs on {found['engine']}; of its labels against those in full precision {kept}."


def _limits_of_confidence(card: Mapping[str, Any]) -> Iterator[str]:
    calibration, none_of_these = card["calibration"], card["none_of_these"]
    if calibration and calibration["ece"] is not None:
        sides = ", ".join(
            f"{calibration[side]:.3f} on {side} classes"
            for side in ("seen", "unseen")
            if calibration[side] is not None
        )
        yield f"Its confidence is off by {calibration['ece']:.3f} on average{sides and f' ({sides})'}."
    if none_of_these and (shares := none_of_these["accepted"])["unknown"] is not None:
        turned = " and ".join(
            f"{percent(max(0.0, 1 - shares[side]))} of those of {side} classes"
            for side in ("unseen", "seen")
            if shares[side] is not None
        )
        yield (
            f"Of the pictures of classes that it was not given {percent(shares['unknown'])} get a label all the same"
            f"{f', while {turned} are turned away as none of its classes' if turned else ''}."
        )
