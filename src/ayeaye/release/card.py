"""The model card of a registered version: what it is for, what it was made of, how good it is and where it fails.

After Mitchell et al., "Model Cards for Model Reporting" (2019). It is a function of what the registry holds of a
version, so that it can be made again at any time and is the same each time: `content` holds the figures as they
were measured, ready for JSON, `sections` say them in words, and both pages, Markdown and HTML, show these. Each
sentence follows from a figure or a parameter; what nobody stated or measured is said to be so.

What a trial and a champion of the time had to say of a version is known only once its Bento was packed. The card
in the Bento leaves it out, so that the Bento stays what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ayeaye.backbones.backbones import TRAINED_HERE
from ayeaye.backbones.engines import Engine
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.core.errors import ClassSpaceError, NoCard
from ayeaye.core.params import Params
from ayeaye.release import card_text, gate
from ayeaye.release.card_limits import limits
from ayeaye.release.card_text import Row, sections
from ayeaye.release.registry import Registry, Version
from ayeaye.reporting import report

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = {
    "seen_unseen_curve": "Accuracy on unseen classes against accuracy on seen ones, for every offset.",
    "per_class_accuracy": "Right among all classes, class by class, with 95 % intervals; dashed mean, dotted chance.",
}
OF_ITS_PICTURES = "of the pictures it was trained on"
DESCRIPTION = 5000  # characters that MLflow's column takes


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a version.

    params   of its run, flat, as text
    dataset  of its run: name, digest, pictures, rejected
    metrics  metrics.json
    splits   a row per split: split, pictures, classes
    bundle   bundle.json
    backbone backbone.json; None for a model of features
    decision decision.json on the current evaluation; None before there is one
    licence  of the backbone's weights, as far as somebody stated it
    """

    model: str
    version: Version
    params: Mapping[str, str]
    dataset: Mapping[str, Any]
    metrics: Mapping[str, Any]
    splits: Sequence[Row]
    bundle: Mapping[str, Any]
    space: ClassSpace
    backbone: Mapping[str, Any] | None
    decision: Mapping[str, Any] | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Card:
    """`content` is ready for JSON; `pictures` are PNG bytes by the names of PICTURES."""

    content: dict[str, Any]
    pictures: Mapping[str, bytes]

    @property
    def title(self) -> str:
        return f"{self.content['model']}, version {self.content['version']}"

    def digest(self) -> str:
        """SHA-256 of all that it shows."""
        drawn = {name: hashlib.sha256(picture).hexdigest() for name, picture in self.pictures.items()}
        text = json.dumps([self.content, drawn], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def json(self) -> str:
        return json.dumps(self.content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def markdown(self) -> str:
        return "\n".join([self._head(), *map(card_text.markdown, sections(self.content))])

    def description(self) -> str:
        """As much of the Markdown, section by section, as fits into DESCRIPTION characters."""
        found = self._head()
        more = "\nMore is in `card.html` among the artifacts of the run.\n"
        left_out = False
        for section in map(card_text.markdown, sections(self.content)):
            if len(found) + len(section) + 1 + len(more) <= DESCRIPTION:
                found += f"\n{section}"
            else:
                left_out = True
        return found + more if left_out else found

    def _head(self) -> str:
        return f"# {card_text.escaped(self.title)}\n\n{card_text.escaped(self.content['sentence'])}\n"

    def html(self) -> str:
        """One page that needs nothing from outside, and no style beside that of its one element `style`."""
        return (
            report.templates(TEMPLATES)
            .get_template("card.html.j2")
            .render(
                card=self.content,
                title=self.title,
                sections=sections(self.content),
                pictures=[
                    (name, text, report.data_uri(self.pictures[name], "image/png"))
                    for name, text in PICTURES.items()
                    if name in self.pictures
                ],
            )
        )

    def files(self) -> dict[str, bytes]:
        """As they lie beside a run."""
        texts = {"card.md": self.markdown(), "card.html": self.html(), "card.json": self.json()}
        return {name: text.encode() for name, text in texts.items()}


def of(registry: Registry, version: Version, params: Params, *, packed: bool = False) -> Card:
    """The card of a version; `packed` as it goes into a Bento.

    The licence of the weights is the one that was stated when the version was registered or, where the same
    weights are still in use, since then. Raises NoCard where the registry lacks what a card is made of, as it may
    of a version of an earlier ayeaye, and RegistryError where it cannot be asked.
    """
    try:
        return Card(
            content(_recorded(registry, version, params), packed=packed), _pictures(registry, version)
        )
    except (OSError, ValueError, KeyError, TypeError, ClassSpaceError) as error:
        raise NoCard(
            f"what is recorded of version {version.number} makes no card ({error}): `ayeaye retrain` records it again"
        ) from None


def _recorded(registry: Registry, version: Version, params: Params) -> Recorded:
    bundle, given = registry.bundle(version), registry.params(version)
    figures, manifest = (registry.artifact(version, name) for name in ("metrics.json", "manifest.parquet"))
    if figures is None:
        raise KeyError("metrics.json")
    backbone = bundle / "backbone" / "backbone.json"
    return Recorded(
        model=registry.model,
        version=version,
        params=given,
        dataset=registry.dataset(version),
        metrics=json.loads(figures.read_bytes()),
        splits=_splits(manifest) if manifest else (),
        bundle=json.loads((bundle / "bundle.json").read_bytes()),
        space=ClassSpace.load(bundle / "class_space"),
        backbone=json.loads(backbone.read_bytes()) if backbone.is_file() else None,
        decision=_decision(registry, version),
        licence=_licence(given, params),
    )


def _pictures(registry: Registry, version: Version) -> dict[str, bytes]:
    drawn = {name: registry.artifact(version, f"plots/{name}.png") for name in PICTURES}
    return {name: path.read_bytes() for name, path in drawn.items() if path}


def _splits(manifest: Path) -> list[Row]:
    import pandas as pd

    frame = pd.read_parquet(manifest, columns=["label", "split"])
    return [
        {"split": str(split), "pictures": len(part), "classes": int(part["label"].nunique())}
        for split, part in frame.groupby("split", sort=True)
    ]


def _decision(registry: Registry, version: Version) -> dict[str, Any] | None:
    """The one on the current evaluation; a file that a kill left unfinished is none."""
    path = registry.artifact(version, "decision.json")
    try:
        found: dict[str, Any] = json.loads(path.read_bytes()) if path else {}
    except ValueError:
        return None
    return found if found and found.get("evaluation") == version.tags.get("evaluation_digest") else None


def _licence(recorded: Mapping[str, str], params: Params) -> str | None:
    given = recorded.get("serve.weights_licence")
    if given not in (None, "", "None"):
        return given
    same = (recorded.get("embed.backbone"), recorded.get("embed.weights"))
    return params.serve.weights_licence if same == (params.embed.backbone, params.embed.weights) else None


# Figures


def content(recorded: Recorded, *, packed: bool = False) -> dict[str, Any]:
    """All that the card tells, in figures and names; None stands for what nobody stated or measured."""
    metrics, bundle, version = recorded.metrics, recorded.bundle, recorded.version
    seen = sum(bundle["seen"])
    found = {
        "model": recorded.model,
        "version": version.number,
        "date": datetime.fromtimestamp(version.created, UTC).date().isoformat(),
        "estimated_on": metrics["estimated_on"],
        "sentence": report.sentence(metrics),
        "data": {
            "source": recorded.dataset.get("name"),
            "digest": version.tags.get("data_digest"),
            "pictures": recorded.dataset.get("pictures"),
            "rejected": recorded.dataset.get("rejected"),
            "repeated": metrics.get("repeated", {}),
            "kind": "pictures" if recorded.backbone else "rows of features",
            "seen": seen,
            "unseen": len(bundle["seen"]) - seen,
            "splits": list(recorded.splits),
        },
        "class_space": _class_space(recorded),
        "backbone": _backbone(recorded),
        "leakage": _leakage(metrics),
        "method": _method(recorded),
        "figures": report.headlines(metrics),
        "chance": metrics["chance"],
        "T1_above_chance": metrics.get("T1_above_chance"),
        "confidence": metrics["confidence"],
        "resamples": _number(recorded.params.get("evaluate.bootstrap")),
        "uncalibrated": metrics["uncalibrated"],
        "measured_on": metrics["counts"],
        "calibration": _calibration(metrics),
        "none_of_these": metrics.get("none_of_these"),
        "reduced_precision": metrics.get("reduced_precision"),
        "hubness": {key: value for key, value in metrics["hubness"].items() if key != "relative"},
        "classes": _classes(metrics),
        "gate": _gate(recorded.decision, packed),
        "made": {
            **{
                name: version.tags.get(name)
                for name in ("params_digest", "git_commit", "lock", "ayeaye_version")
            },
            "bundle_digest": version.bundle_digest,
            "evaluation_digest": version.tags.get("evaluation_digest"),
        },
    }
    return {**found, "limits": list(limits(found))}


def _class_space(recorded: Recorded) -> dict[str, Any]:
    space, total = recorded.space, sum(recorded.space.encoder.weights)
    covered = [dict(zip(space.sources, each["parts"], strict=False)) for each in space.coverage]
    sources = []
    for (source, (start, end)), weight in zip(space.sources.items(), space.encoder.weights, strict=True):
        parts = [
            (name, each[source]) for name, each in zip(space.names, covered, strict=True) if source in each
        ]
        sources.append(
            {
                "source": source,
                "dimensions": end - start,
                "weight": weight / total,
                "said": sum(part["tokens"] for _, part in parts),
                "known": sum(part["known"] for _, part in parts),
                "incomplete": {name: part["missing"] for name, part in parts if part["missing"]},
            }
        )
    quality = recorded.metrics["class_space"]
    word, text = report.strength(quality)
    return {
        "sources": sources,
        "dimensions": int(space.vectors.shape[1]),
        "quality": quality,
        "strength": word,
        "judgement": text,
    }


def _backbone(recorded: Recorded) -> dict[str, Any] | None:
    found = recorded.backbone
    if found is None:
        return None
    here = found["origin"].startswith(TRAINED_HERE)
    return {
        "name": found["name"],
        "weights": found["origin"],
        "trained_here": here,
        "digest": found["digest"],
        "width": found["width"],
        "licence": recorded.licence or (OF_ITS_PICTURES if here else None),
        "engine": str(Engine(found.get("engine", "torch"), found.get("precision", "fp32"))),
    }


def _leakage(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the backbone was pretrained on, the flagged classes, and the figures without and of them."""
    found = metrics.get("leakage") or {}
    return {
        "pretrained_on": found.get("pretrained_on"),
        "pretraining_classes": found.get("pretraining_classes"),
        "flags": found.get("flags") or {},
        "possible": found.get("possible") or {},
        "clean": found.get("clean"),
        "flagged": found.get("flagged"),
    }


def _method(recorded: Recorded) -> dict[str, Any]:
    bundle, hubs = recorded.bundle, recorded.bundle.get("hubs", {})
    about = bundle.get("about") or {}
    mapper = bundle["mapper"]
    best = (about.get("selection") or [{}])[0]
    return {
        "mapper": report.described(mapper["name"], mapper["settings"], recorded.space.sources),
        "hub_correction": report.described(hubs.get("kind", "none"), hubs.get("settings", {})),
        "seen_offset": bundle["gamma"],
        "temperature": bundle["temperature"],
        "threshold": bundle.get("threshold", 0.0),
        "folds": len(about.get("folds", ())),
        "candidates": len(about.get("selection", ())),
        "corrections": len(about.get("corrections", ())),
        "tuned": recorded.params.get("train.select") != "defaults",
        "on_folds": {name: best[name] for name in report.CHOSEN_BY if best.get(name) is not None},
    }


def _calibration(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    found = metrics.get("reliability")
    return found and {"ece": found["ece"], **{side: found[side]["ece"] for side in ("seen", "unseen")}}


def _classes(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The classes with pictures, the worst first, and those that are nearest to no picture, or to too many."""
    names, relative = metrics["names"], metrics["hubness"].get("relative") or ()
    measured = [{**record, "class": names[record["class"]]} for record in metrics["per_class"]]
    near = [(name, times) for name, times in zip(names, relative, strict=False) if times is not None]
    return {
        side: sorted(
            (each for each in measured if each["seen"] is seen), key=lambda r: (r["accuracy"], r["class"])
        )
        for side, seen in (("unseen", False), ("seen", True))
    } | {
        "unreached": [name for name, times in near if times == 0],
        "nearest": [
            {"class": n, "times": t} for n, t in sorted(near, key=lambda each: -each[1])[:3] if t > 1
        ],
    }


def _gate(decision: Mapping[str, Any] | None, packed: bool) -> dict[str, Any] | None:
    if decision is None:
        return None
    found = {name: decision[name] for name in ("estimated_on", "figures_of")}
    if packed:
        return {**found, "checks": [check for check in decision["checks"] if _absolute(check)]}
    later = {name: decision[name] for name in ("verdict", "champion", "stand_in")}
    later["not_judged"] = decision.get("not_judged", [])
    return {**found, **later, "checks": decision["checks"]}


def _absolute(check: Mapping[str, Any]) -> bool:
    """Whether it follows from the figures alone."""
    return check["kind"] != "relative" and check["name"] not in (gate.LATENCY, gate.TRIAL)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
