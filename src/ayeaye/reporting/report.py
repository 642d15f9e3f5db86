"""The report: one self-contained HTML page of everything an evaluation found."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment

Row = Mapping[str, Any]

# name, what it means, whether less is better
TEMPLATES = Path(__file__).parent / "templates"
HEADLINES = (
    ("T1", "unseen pictures, told apart among unseen classes only", False),
    ("U", "unseen pictures, named among all classes", False),
    ("S", "seen pictures, named among all classes", False),
    ("H", "harmonic mean of U and S", False),
    ("AUSUC", "area under the seen–unseen curve, whatever the offset", False),
    ("unseen_auroc", "how well it tells that a class is new at all", False),
    ("seen_bias", "unseen pictures given a seen class", True),
    ("unseen_bias", "seen pictures given an unseen class", True),
)
PLOTS = (
    ("common_space", "Where pictures meet words", "Pictures and classes in the space in which they are compared, "
     "flattened by t-SNE: near here is near there, far apart says little. A line leads to the true class."),
    ("seen_unseen_curve", "Seen against unseen", "Every trade between the two that an offset γ can make."),
    ("per_class_accuracy", "Class by class", "Right among all classes, 95 % intervals; dashed mean, dotted chance."),
    ("confusion_unseen", "Who is taken for whom", "Unseen pictures, among unseen classes only."),
    ("hubness", "Hubs", "A class far above the grey band attracts pictures that are not its own."),
    ("class_space", "The class space", "What the words or attributes say, on two principal components."),
    ("reliability", "Can its confidence be trusted?", "On the dashed line it is right as often as it says; "
     "larger dots stand for more pictures. ECE is the mean distance from the line."),
)  # fmt: skip
# kind of a leakage flag, in words
LEAKS = {
    "exact": "is one of its classes",
    "synonym": "is one of its classes by another name",
    "descendant": "kinds of it are among its classes",
    "ancestor": "is a kind of one of its classes",
    "head": "possibly: one of its classes is called so, with more words",
}
CHOSEN_BY = ("T1", "H", "AUSUC")
MOST_CLASSES = 400
# Neighbour overlap beyond chance, as a share of what is possible, from which the class space is called so.
STRENGTHS = ((0.5, "strong"), (0.25, "fair"), (-1.0, "weak"))


class Near(NamedTuple):
    """A class near a picture: its rank, from 1, by its score."""

    rank: int
    label: str
    score: float
    seen: bool


@dataclass(frozen=True)
class Example:
    """One answered picture; `picture` is a data URI of the image `id` (see `thumbnail`), or None.

    `nearest` are the best classes, and the true one where it is not among them.
    """

    truth: str
    answer: str
    right: bool
    unseen: bool
    picture: str | None = None
    confidence: float | None = None
    nearest: Sequence[Near] = ()
    note: str = ""
    id: str = ""


@dataclass(frozen=True)
class Page:
    """What the report shows; a table is a list of rows with the same keys, which become its headings.

    measured   result of metrics.measure or metrics.measure_folds
    names      (C,) class names
    about      what it was measured on and with: label and value
    warnings   sentences that a reader must not miss
    quality    class-space quality figures, as classspace.quality.judge gives them
    pretrained what is known of the backbone's pretraining, in words
    leakage    unseen classes that the backbone was pretrained on, one a row
    apart      figures of the clean and of the flagged unseen classes
    selection  candidates {mapper, settings, chosen}, with the mean of each of CHOSEN_BY and its `_spread`
    left_out   classes of which words are not known, and these, one class a row
    hubs       hub corrections tried, as rows; in every table a row whose "chosen" is true is marked
    folds      how many folds the candidates were tried on
    data       summary of the dataset
    examples   right and wrong answers
    plots      PNG bytes by name, as plots.draw gives them
    """

    measured: Mapping[str, Any]
    names: Sequence[str]
    title: str = "ayeaye"
    about: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    pretraining_known: bool = True
    leakage: Sequence[Row] = ()
    apart: Sequence[Row] = ()
    selection: Sequence[Row] = ()
    left_out: Sequence[Row] = ()
    hubs: Sequence[Row] = ()
    folds: int = 0
    data: Sequence[Row] = ()
    examples: Sequence[Example] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What the page of two classifiers shows; tables as in Page.

    sentence   the outcome in words, warnings what a reader must not miss
    figures    a row per figure: both values, the difference, its interval, chance
    verdict    what the gate would say, and why
    slices     a row per slice and figure; not_judged: those too small, in words
    classes    a row per class, made_of and params what differs, roles classes whose role does
    plots      PNG bytes by name, as plots.compared gives them
    """

    title: str
    measured_on: str
    sentence: str
    confidence: float
    figures: Sequence[Row]
    verdict: str
    reasons: Sequence[str]
    slices: Sequence[Row]
    not_judged: Sequence[str]
    classes: Sequence[Row]
    made_of: Sequence[Row]
    params: Sequence[Row]
    roles: Sequence[Row]
    plots: Mapping[str, bytes]
    warnings: Sequence[str] = ()


COMPARED = (
    ("curves", "Seen against unseen", "Every trade between the two that an offset γ can make, of both."),
    ("classes", "Class by class", "Accuracy among all classes, the second less the first; 95 % intervals."),
)


def render_comparison(page: Comparison) -> str:
    """The page of two classifiers as HTML that needs nothing from outside."""
    plots = [
        (title, text, data_uri(page.plots[name], "image/png"))
        for name, title, text in COMPARED
        if name in page.plots
    ]
    return templates(TEMPLATES).get_template("comparison.html.j2").render(page=page, plots=plots)


def templates(folder: Path, *, html: bool = True) -> Environment:
    """The templates in a folder, of pages or of configuration files; a name that they do not know is an error.

    What pages show is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,  # noqa: S701 - a configuration file is no HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    environment.filters["shown"] = shown
    environment.filters["percent"] = percent
    return environment


def render(page: Page) -> str:
    """The page as HTML that needs nothing from outside: styles within, pictures as data URIs."""
    records = sorted(page.measured["per_class"], key=lambda r: (r["seen"], -r["accuracy"], r["class"]))
    return (
        templates(TEMPLATES)
        .get_template("report.html.j2")
        .render(
            page=page,
            m=page.measured,
            headlines=headlines(page.measured),
            sentence=sentence(page.measured),
            strength=strength(page.quality),
            quality=quality_rows(page.quality),
            chosen_by=CHOSEN_BY,
            spread=spread,
            right=[e for e in page.examples if e.right],
            wrong=[e for e in page.examples if not e.right],
            plots=[
                (name, title, text, data_uri(page.plots[name], "image/png"))
                for name, title, text in PLOTS
                if name in page.plots
            ],
            records=records[:MOST_CLASSES],
            left_out=max(0, len(records) - MOST_CLASSES),
        )
    )


def headlines(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures at the top of the page: value, interval and chance, all between 0 and 1."""
    return [
        {
            "name": name,
            "meaning": meaning,
            "lower_is_better": lower,
            "value": measured[name],
            "interval": measured["intervals"][name],
            "chance": measured["baselines"][name],
        }
        for name, meaning, lower in HEADLINES
    ]


def sentence(measured: Mapping[str, Any]) -> str:
    """The result in words."""
    counts, folds = measured["counts"], measured["estimated_on"] == "class folds"
    if measured["T1"] is None:
        return "There are no pictures of unseen classes, so nothing is known of how well it names them."
    kind = "classes kept from it for the test" if folds else "classes it never saw a picture of"
    choices = round(1 / measured["chance"])
    among = f"{choices} unseen class" + ("es" if choices != 1 else "")
    text = (
        f"Of {counts['pictures_unseen']:,} pictures from {counts['classes_unseen']} {kind}, it named "
        f"{percent(measured['T1'])} rightly when choosing among {among}; guessing would name "
        f"{percent(measured['chance'])}."
    )
    if measured["U"] is not None and counts["classes"] > choices:
        text += f" Among all {counts['classes']} classes it named {percent(measured['U'])} rightly."
    return text


def repeated(counts: Mapping[str, int]) -> list[str]:
    """What is to be said of pictures that the dataset holds twice, by the counts of dataset.json."""
    said = {
        "in_two_classes": "under more than one class, so that no label of them is right for all",
        "in_two_splits": "in more than one of the published splits, so that a test may ask for what was learned",
    }
    return [
        f"{count:,} picture{'s are' if count > 1 else ' is'} {said[name]}: kept as the data has it."
        for name, count in counts.items()
    ]


def strength(quality: Mapping[str, Any]) -> tuple[str, str]:
    """How well the class space agrees with the pictures, in a word and in sentences."""
    if quality.get("p") is None:
        return "not known", "Fewer than four seen classes have pictures: the class space cannot be judged."
    if quality["p"] > 0.05:
        return "no better than chance", (
            f"What the vectors say of the classes has nothing to do with how they look (p = {shown(quality['p'])}). "
            "Unseen classes will be named at random: look at their descriptions and at the source."
        )
    if (quality["descriptions_p"] or 0) > 0.05:
        return "names alone agree", (
            f"The descriptions, read without the names, have nothing to do with how the classes look (p = "
            f"{shown(quality['descriptions_p'])}): look whether they are those of other classes."
        )
    chance = quality["neighbour_overlap_chance"]
    beyond = (quality["neighbour_overlap"] - chance) / (1 - chance)
    word = next(word for least, word in STRENGTHS if beyond >= least)
    k, rank = quality["neighbours"], quality["leave_one_out_rank"]
    found = (
        f"Of the {k} classes nearest to one by their vectors, {percent(quality['neighbour_overlap'])} are among "
        f"the {k} that look most like it; chance would give {percent(chance)}."
    )
    left_out = (
        f"The looks of a class left out are place {shown(rank['mean'])} of {quality['classes']} for what its vector "
        f"predicts, on average; chance would give {shown(rank['chance'])}."
    )
    meaning = {
        "strong": "Alike in words is mostly alike in looks.",
        "fair": "Groups of classes are told apart well, near relatives less so.",
        "weak": "Groups of classes are told apart, but near relatives are easily taken for one another, as is usual "
        "of word vectors on fine-grained classes (14 to 22 % among birds). Attributes or more telling descriptions "
        "help most.",
    }[word]
    return word, f"{found} {meaning} {left_out}"


def quality_rows(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of the class space as a table, each beside what chance would give."""
    if quality.get("p") is None:
        return []
    rank, classes, alone = quality["leave_one_out_rank"], quality["classes"], quality["descriptions_p"]
    return [
        {
            "figure": "rank correlation of distances",
            "value": quality["rho"],
            "chance": 0,
            "what it is": "Spearman's ρ of how far classes are from one another by vectors and by looks; "
            f"permutation p = {shown(quality['p'])}"
            + ("" if alone is None else f", of descriptions without names {shown(alone)}"),
        },
        {
            "figure": "neighbour overlap",
            "value": quality["neighbour_overlap"],
            "chance": quality["neighbour_overlap_chance"],
            "what it is": f"share of a class's {quality['neighbours']} nearest that are the same in both",
        },
        {
            "figure": "rank of a class left out",
            "value": rank["mean"],
            "chance": rank["chance"],
            "what it is": "place of a class's own looks among those nearest to what its vector predicts when all "
            f"others were learned from, mean over {classes} classes; median {shown(rank['median'])}",
        },
    ]


def spread(row: Row) -> tuple[float, float]:
    """A candidate's AUSUC less and plus its spread over folds, within 0 and 1."""
    mean, deviation = row["AUSUC"], row.get("AUSUC_spread") or 0.0
    return max(0.0, mean - deviation), min(1.0, mean + deviation)


def described(
    name: str, settings: Mapping[str, Any], sources: Mapping[str, tuple[int, int]] | None = None
) -> str:
    """A mapper or a correction with its settings, on one line; a blend by its members, each with its weight and
    the one of `sources`, by first and last column, that it sees."""
    if members := settings.get("members"):
        named = {columns: source for source, columns in (sources or {}).items()}
        total = sum(each.get("weight", 1) for each in members)
        parts = []
        for each in members:
            share = f"{100 * each.get('weight', 1) / total:.0f} % " if len(members) > 1 else ""
            columns = tuple(each.get("columns", ()))
            seen = f" on {named.get(columns, columns)}" if columns else ""
            parts.append(f"{share}{described(each['mapper'], each.get('settings', {}))}{seen}")
        return " + ".join(parts)
    said = ", ".join(f"{key} {shown(value)}" for key, value in settings.items() if value is not None)
    return f"{name} ({said})" if said else name


def thumbnail(image: Image.Image, side: int = 168) -> str:
    """A small square JPEG of the middle of a picture, as a data URI."""
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    small = image.convert("RGB").resize(
        (side, side), Image.Resampling.LANCZOS, (left, top, left + edge, top + edge)
    )
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, optimize=True)
    return data_uri(out.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def percent(value: float | None) -> str:
    """A share as a person reads it: no decimals, but never a 0 or 100 that is not one."""
    if value is None:
        return "–"
    share = round(100 * value, 9)  # a mean of ones may be a little less than one
    if 0 < share < 0.1 or 99.9 < share < 100:
        text = "< 0.1" if share < 50 else "> 99.9"
    else:
        text = f"{share:.1f}" if 0 < share < 1 or 99 < share < 100 else f"{share:.0f}"
    return f"{text} %".replace(" ", "\N{NO-BREAK SPACE}")


def shown(value: Any) -> str:
    """Any value of a table: three significant digits, thousands apart, a dash for nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    return str(value)
