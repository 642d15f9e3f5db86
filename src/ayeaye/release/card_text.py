"""The words of a model card: its sections, and these as Markdown. The HTML page shows the same sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ayeaye.release import gate
from ayeaye.reporting import report
from ayeaye.reporting.report import percent, shown

Row = dict[str, Any]

NOT_STATED, NOT_MEASURED = "not stated", "not measured"
NAMED = 5  # classes that a sentence names


@dataclass(frozen=True)
class Section:
    """A part of the card in words: paragraphs, or `points` of a list, labelled facts, and tables by their captions."""

    id: str
    title: str
    text: Sequence[str] = ()
    points: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)


def sections(card: Mapping[str, Any]) -> list[Section]:
    """The card in words, the most important first."""
    return [
        _for_what(card),
        _how_good(card),
        Section("limits", "Limits", points=card["limits"]),
        _the_data(card),
        _the_class_space(card),
        _the_backbone(card),
        _how_it_decides(card),
        _its_confidence(card),
        _the_gate(card),
        _how_it_was_made(card),
    ]


def _for_what(card: Mapping[str, Any]) -> Section:
    data, sources = card["data"], [each["source"] for each in card["class_space"]["sources"]]
    learned = next((each["pictures"] for each in data["splits"] if each["split"] == "train"), None)
    trained = f", trained on {learned:,} {data['kind']}" if learned else ""
    points = [
        f"It labels {data['kind']} with one of {data['seen'] + data['unseen']:,} classes: "
        f"{count(data['seen'], 'seen one', 'seen ones')}{trained}, and "
        f"{count(data['unseen'], 'unseen one', 'unseen ones')}, which it knows by {_and(sources)} alone.",
        f"Below a confidence of {card['method']['threshold']:.3g} it says that it is none of them."
        if card["method"]["threshold"] > 0
        else "It never says that it is none of them.",
    ]
    return Section("purpose", "What it is for", points=points)


def _how_good(card: Mapping[str, Any]) -> Section:
    counts, folds = card["measured_on"], card["estimated_on"] == "class folds"
    unseen = "seen classes that stood in for unseen ones" if folds else "unseen classes"
    on = (
        f"Measured on {counts['pictures_unseen']:,} pictures of {counts['classes_unseen']} {unseen} and "
        f"{counts['pictures_seen']:,} held-out pictures of {counts['classes_seen']} seen classes."
    )
    of = f" from {card['resamples']:,} bootstrap resamples of the pictures" if card["resamples"] else ""
    level = percent(card["confidence"])
    rows = [
        {
            "figure": each["name"].replace("_", " "),
            "value": _decimal(each["value"]),
            f"{level} interval": _range(each["interval"]),
            "chance": _decimal(each["chance"]),
            "what it is": each["meaning"] + ("; less is better" if each["lower_is_better"] else ""),
        }
        for each in card["figures"]
    ]
    said = f"Figures are means over classes, from 0 to 1; intervals are of {level},{of or ' by bootstrap'}. "
    said += "Chance is what guessing would reach."
    return Section("figures", "How good it is", text=[on, said], tables={"figures": rows})


def _the_data(card: Mapping[str, Any]) -> Section:
    data = card["data"]
    facts = {
        "source": _said(data["source"]),
        "digest": _said(data["digest"]),
        data["kind"]: _said(data["pictures"]),
        "rejected": _said(data["rejected"]),
        "classes": f"{data['seen']:,} seen, {data['unseen']:,} unseen",
    }
    return Section("data", "Data", facts=facts, tables={"splits": data["splits"]} if data["splits"] else {})


def _the_class_space(card: Mapping[str, Any]) -> Section:
    space, quality = card["class_space"], card["class_space"]["quality"]
    text = [f"The class space is {space['strength']}. {space['judgement']}"]
    if quality.get("p") is not None:
        p, alone = quality["p"], quality["descriptions_p"]
        without_names = (
            "" if alone in (None, p) else f", of the descriptions without the names of {shown(alone)}"
        )
        text.append(
            f"Were the vectors dealt to the {quality['classes']} seen classes at random, their distances would agree "
            f"with how the classes look as well as they do (ρ = {shown(quality['rho'])}) with a probability of "
            f"{shown(p)}{without_names}."
        )
    rows = [
        {
            "source": each["source"],
            "dimensions": each["dimensions"],
            "weight": percent(each["weight"]),
            "known": f"{percent(each['known'] / each['said'])} of {each['said']:,}"
            if each["said"]
            else NOT_STATED,
            "classes with unknown words": len(each["incomplete"]),
        }
        for each in space["sources"]
    ]
    tables: dict[str, Sequence[Row]] = {"sources": rows}
    if measured := report.quality_rows(quality):
        tables["agreement of vectors and looks"] = measured
    facts = {"dimensions": f"{space['dimensions']:,}"}
    return Section("class-space", "Class space", text=text, facts=facts, tables=tables)


def _the_backbone(card: Mapping[str, Any]) -> Section:
    backbone, leakage = card["backbone"], card["leakage"]
    facts = {"network": "none: the model takes features"}
    if backbone:
        facts = {
            "network": f"{backbone['name']}, {backbone['width']:,} features",
            "weights": backbone["weights"],
            "digest": backbone["digest"],
            "licence of the weights": _said(backbone["licence"]),
            "engine": backbone["engine"],
        }
    facts["pretrained on"] = _said(leakage["pretrained_on"])
    tables: dict[str, Sequence[Row]] = {}
    text = []
    if listed_flags := leakage["flags"] | leakage["possible"]:
        tables["unseen classes that leak"] = [
            {
                "unseen class": name,
                "leak": report.LEAKS.get(flag["kind"], flag["kind"]),
                "pretraining class": flag["match"],
            }
            for name, flag in listed_flags.items()
        ]
    if leakage["flags"]:
        sides = {side: leakage[side] for side in ("clean", "flagged") if leakage[side]}
        if sides:
            tables["clean and flagged classes"] = [_side(name, figures) for name, figures in sides.items()]
            text.append("T1 of each side is among the classes of that side alone.")
        else:
            text.append("Clean and flagged classes apart: not measured, as unseen classes have no pictures.")
    elif leakage["pretraining_classes"] or (backbone and backbone["trained_here"]):
        text.append("No unseen class is known to be among what it was pretrained on.")
    else:
        text.append("Whether unseen classes leak from its pretraining is not known.")
    return Section("backbone", "Backbone and leakage", text=text, facts=facts, tables=tables)


def _side(name: str, figures: Mapping[str, Any]) -> Row:
    return {
        "unseen classes": name,
        "classes": figures["classes"],
        "pictures": figures["pictures"],
        **{
            key: ranged({"value": figures[key], "interval": figures["intervals"][key]})
            for key in ("T1", "U", "H")
        },
        "chance of T1": _decimal(figures["chance"]),
    }


def _how_it_decides(card: Mapping[str, Any]) -> Section:
    method = card["method"]
    if method["folds"]:
        tuned = (
            f"Mapper and settings were chosen among {count(method['candidates'], 'candidate', 'candidates')}, the hub "
            f"correction among {method['corrections']}"
            if method["tuned"]
            else "No setting of the mapper was tuned"
        )
        text = (
            f"{tuned}; offset, temperature and threshold were fitted. All of it on {method['folds']} folds of seen "
            "classes that played unseen ones: no test picture was looked at."
        )
    else:
        text = "How mapper and settings were chosen is not stated."
    uncalibrated = card["uncalibrated"]
    facts = {
        "mapper": method["mapper"],
        "hub correction": method["hub_correction"],
        "offset γ": f"{method['seen_offset']:.3g}, taken off the score of every seen class",
        "without the offset": ", ".join(f"{name} {_decimal(uncalibrated[name])}" for name in ("U", "S", "H")),
        "temperature": f"{method['temperature']:.3g}",
    }
    if method["on_folds"]:
        facts["on these folds"] = ", ".join(
            f"{n} {_decimal(value)}" for n, value in method["on_folds"].items()
        )
    return Section("method", "How it decides", text=[text], facts=facts)


def _its_confidence(card: Mapping[str, Any]) -> Section:
    calibration, none_of_these = card["calibration"] or {}, card["none_of_these"]
    facts = {
        "calibration error (ECE)": ", ".join(
            f"{said} {_decimal(calibration.get(key))}"
            for key, said in (("ece", "all"), ("seen", "seen"), ("unseen", "unseen"))
        )
        if calibration.get("ece") is not None
        else NOT_MEASURED,
        "none of these": f"below a confidence of {card['method']['threshold']:.3g}",
    }
    if none_of_these:
        shares = none_of_these["accepted"]
        facts["stated false-accept rate"] = f"at most {percent(none_of_these['false_accept'])}"
        facts["measured false-accept rate"] = (
            NOT_MEASURED
            if shares["unknown"] is None
            else f"{percent(shares['unknown'])} of {none_of_these['pictures']:,} judgements on pictures whose class "
            "was taken away"
        )
        facts["accepted where it was given"] = ", ".join(
            f"{side} {NOT_MEASURED if shares[side] is None else percent(shares[side])}"
            for side in ("seen", "unseen")
        )
    return Section("confidence", "Confidence", facts=facts)


def _the_gate(card: Mapping[str, Any]) -> Section:
    found = card["gate"]
    if found is None:
        return Section("gate", "Gate", text=["The gate has not judged these figures."])
    checks = gate.from_dict({"champion": None, **found})
    read = f"Floors and ceilings are held against the figures of {found['figures_of']}."
    text = [read if checks.checks else "No floor or ceiling is set."]
    if "verdict" in found:
        text.insert(0, f"{_VERDICTS[checks.verdict]} {_champion(found['champion'])}")
        text += [f"In the trial {found['stand_in']}."] if found["stand_in"] else []
        text += [f"{gate.too_small(checks)}."] if checks.not_judged else []
    else:
        text.append("How it did against the champion of the time and in its trial is told in the registry.")
    return Section("gate", "Gate", text=text, tables={"checks": gate.table(checks)} if checks.checks else {})


_VERDICTS = {
    "promoted": "Passed.",
    "refused": "Refused.",
    "untried": "Passed so far; its trial is not over.",
}


def _champion(number: int | None) -> str:
    return gate.ALONE.capitalize() + "." if number is None else f"Compared with version {number}."


def _how_it_was_made(card: Mapping[str, Any]) -> Section:
    made, backbone = card["made"], card["backbone"]
    facts = {
        "registered": card["date"],
        "ayeaye": _said(made["ayeaye_version"]),
        "parameters": _said(made["params_digest"]),
        "git commit": _said(made["git_commit"]),
        "lock file": _said(made["lock"]),
        "dataset": _said(card["data"]["digest"]),
        "bundle": _said(made["bundle_digest"]),
        "evaluation": _said(made["evaluation_digest"]),
        "engine": backbone["engine"] if backbone else "none",
    }
    return Section("made", "How it was made", facts=facts)


def _said(value: Any) -> str:
    return NOT_STATED if value in (None, "") else shown(value)


def _decimal(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}" if value == 0 or value >= 0.001 else "< 0.001"


def _range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def ranged(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return NOT_MEASURED
    return f"{figure['value']:.3f} ({_range(figure['interval'])})"


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Markdown


def markdown(section: Section) -> str:
    blocks = [f"## {section.title}", *map(escaped, section.text)]
    if section.points:
        blocks.append("\n".join(f"- {escaped(point)}" for point in section.points))
    if section.facts:
        rows = [{"": label, " ": value} for label, value in section.facts.items()]
        blocks.append(_table(rows))
    blocks += [_table(rows) for rows in section.tables.values()]
    return "\n\n".join(blocks) + "\n"


def _table(rows: Sequence[Row]) -> str:
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([shown(row[key]) for key in keys] for row in rows)]
    return "\n".join(
        "| " + " | ".join(cell if number == 1 else escaped(cell) for cell in line) + " |"
        for number, line in enumerate(lines)
    )


def escaped(text: str) -> str:
    """Text as Markdown shows it: no name of a class makes a link, a tag or another column."""
    marked = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", re.sub(r"[\r\n\t]+", " ", text))
    return marked.replace("&", "&amp;").replace("<", "&lt;")
