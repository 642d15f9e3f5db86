"""The model card: true to what was measured, the same each time, and safe whatever a class is called."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_card import EVIL, NAMES, card_of, decided, recorded
from workspaces import Place

from ayeaye.core.params import Params
from ayeaye.core.workspace import Workspace
from ayeaye.packaging.bento import BentoStore
from ayeaye.release import card, gate, promotion
from ayeaye.release.card import DESCRIPTION, content

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """The elements of a page, each closed by its own end; what a browser would fetch; the text that is seen."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} is not what is open"

    def handle_data(self, data: str) -> None:
        self.text += data


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def limits_of(made: card.Recorded) -> str:
    return plain("\n".join(content(made)["limits"]))


@pytest.mark.parametrize("on", ["unseen classes", "class folds"])
def test_every_figure_is_the_one_that_was_measured(on: str) -> None:
    made = recorded(on=on)
    shown = card_of(made)
    rows = {line.split(" | ")[0].strip("| "): line for line in shown.markdown().splitlines()}
    page = Page(shown.html()).text
    for figure in shown.content["figures"]:
        name = figure["name"]
        assert figure["value"] == made.metrics[name]
        assert figure["interval"] == made.metrics["intervals"][name]
        assert figure["chance"] == made.metrics["baselines"][name]
        low, high = figure["interval"]
        row = rows[name.replace("_", " ")]
        for said in (f"{figure['value']:.3f}", f"{low:.3f} to {high:.3f}", f"{figure['chance']:.3f}"):
            assert said in row
            assert said in page
    assert shown.content["calibration"] == {
        "ece": made.metrics["reliability"]["ece"],
        **{side: made.metrics["reliability"][side]["ece"] for side in ("seen", "unseen")},
    }
    assert shown.content["none_of_these"] == made.metrics["none_of_these"]
    assert shown.content["class_space"]["quality"] == made.metrics["class_space"]
    assert shown.content["method"]["seen_offset"] == made.bundle["gamma"]


def test_the_same_version_has_the_same_card() -> None:
    first, again = card_of(recorded()), card_of(replace(recorded()))
    assert first.files() == again.files()
    assert first.digest() == again.digest()
    other = recorded(dataset={**recorded().dataset, "rejected": 3})
    assert card_of(other).digest() != first.digest()


def test_the_page_is_whole_asks_for_nothing_and_has_no_style_but_one() -> None:
    page = Page(card_of(recorded(decision=decided(recorded()))).html())
    fetched = {"src", "href", "srcset", "data", "action", "xlink:href"}
    targets = [value or "" for key, value in page.attributes if key in fetched]
    assert targets and all(target.startswith("data:image/png;base64,") for target in targets)
    assert "style" not in {key for key, _ in page.attributes}
    assert page.tags.count("style") == 1
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in page.text and "@import" not in page.text


def test_no_name_of_a_class_is_anything_but_text() -> None:
    made = card_of(recorded())
    assert EVIL in Page(made.html()).text
    markdown = made.markdown()
    assert "<script" not in markdown
    assert "[a](b)" not in markdown
    assert r"&lt;script>alert(" in markdown and r"&amp;\|\_\*\[a\](b)" in markdown
    for line in markdown.splitlines():
        if line.startswith("| figure"):
            columns = line.count("|")
        if line.startswith("| T1"):
            assert line.count("|") == columns
    assert content(recorded())["classes"]["unseen"][0]["class"] in NAMES


def test_a_card_from_class_folds_says_so() -> None:
    made = recorded(on="class folds")
    assert "Not measured on real unseen classes" in limits_of(made)
    text = plain(Page(card_of(made).html()).text)
    assert "The unseen classes have no pictures" in text
    assert "seen classes that stood in for unseen ones" in text
    assert "Not measured on real unseen classes" not in limits_of(recorded())


def test_what_was_not_measured_is_said_and_not_made_up() -> None:
    made = recorded(on="seen classes")
    shown = card_of(made)
    assert "How well it names unseen classes is not measured" in limits_of(made)
    values = {figure["name"]: figure["value"] for figure in shown.content["figures"]}
    assert values["T1"] is None and values["S"] is not None
    (row,) = (line for line in shown.markdown().splitlines() if line.startswith("| T1"))
    assert "not measured" in row
    assert "not measured" in Page(shown.html()).text


def test_limits_tell_of_pictures_that_published_splits_hold_twice() -> None:
    made = recorded()
    repeated = replace(made, metrics={**made.metrics, "repeated": {"in_two_classes": 3}})
    assert any(
        "3 pictures are under more than one class" in said for said in card_of(repeated).content["limits"]
    )
    assert not any("more than one class" in said for said in card_of(made).content["limits"])


def test_limits_tell_of_descriptions_that_nobody_reads() -> None:
    made = recorded()
    space = {**made.metrics["class_space"], "unread": "9 descriptions are not read"}
    assert "9 descriptions are not read." in limits_of(
        replace(made, metrics={**made.metrics, "class_space": space})
    )


def test_limits_name_the_classes_that_the_figures_name() -> None:
    made = recorded()
    names, figures = made.metrics["names"], made.metrics
    worst = min((r for r in figures["per_class"] if not r["seen"]), key=lambda r: r["accuracy"])
    said = limits_of(made)
    assert f"Of the unseen classes the least often right among all: {names[worst['class']]} (" in said
    unreached = [name for name, times in zip(names, figures["hubness"]["relative"], strict=True) if not times]
    assert unreached == ["aye-aye"]
    assert (
        "1 class is never among the 5 nearest of a test picture, and so hardly ever an answer: aye-aye."
        in said
    )
    assert "What the features were made with is not stated" in said


def test_classes_that_leak_are_named_with_the_figures_of_both_sides() -> None:
    side = {
        "classes": 2, "pictures": 40, "T1": 0.5, "U": 0.25, "H": 0.375, "chance": 0.5,
        "intervals": {name: [0.125, 0.75] for name in ("T1", "U", "H")},
    }  # fmt: skip
    leakage = {
        "pretrained_on": "3 classes of list.txt",
        "pretraining_classes": 3,
        "flags": {"fox": {"kind": "exact", "match": "fox"}},
        "clean": side,
        "flagged": {**side, "classes": 1, "T1": 1.0, "chance": 1.0},
    }
    made = recorded(metrics={**recorded().metrics, "leakage": leakage})
    assert "1 of 3 unseen classes are no news to the backbone" in limits_of(made)
    assert content(made)["leakage"]["clean"]["T1"] == 0.5
    markdown = card_of(made).markdown()
    assert "| fox | is one of its classes | fox |" in markdown
    assert "| clean | 2 | 40 | 0.500 (0.125 to 0.750) | 0.250 (0.125 to 0.750) |" in markdown
    assert "not known" not in limits_of(made)


@pytest.mark.parametrize(
    ("at_the_time", "now", "weights", "stated"),
    [
        pytest.param("CC BY 4.0", "MIT", "a.pth", "CC BY 4.0", id="at the time"),
        pytest.param("None", "MIT", "a.pth", "MIT", id="since then"),
        pytest.param("None", "MIT", "b.pth", None, id="of other weights"),
        pytest.param("None", None, "a.pth", None, id="never"),
    ],
)
def test_a_licence_is_of_the_weights_that_it_was_stated_of(
    at_the_time: str, now: str | None, weights: str, stated: str | None
) -> None:
    params = Params.model_validate(
        {"embed": {"backbone": "resnet18", "weights": "a.pth"}, "serve": {"weights_licence": now}}
    )
    given = {"serve.weights_licence": at_the_time, "embed.backbone": "resnet18", "embed.weights": weights}
    assert card._licence(given, params) == stated


def test_a_licence_that_nobody_stated_is_not_stated() -> None:
    backbone = {"name": "resnet18", "origin": "checkpoint", "digest": "d" * 64, "width": 512}
    unstated = recorded(backbone=backbone)
    assert content(unstated)["backbone"]["licence"] is None
    assert "| licence of the weights | not stated |" in card_of(unstated).markdown()
    assert "The licence of the backbone's weights is not stated" in limits_of(unstated)
    stated = replace(unstated, licence="CC BY 4.0")
    assert "| licence of the weights | CC BY 4.0 |" in card_of(stated).markdown()
    assert "licence" not in limits_of(stated)
    here = recorded(backbone={**backbone, "origin": "trained here, 14 epochs"})
    assert content(here)["backbone"]["licence"] == "of the pictures it was trained on"


def test_the_card_in_a_bento_stays_the_same_when_its_trial_is_over() -> None:
    made = recorded()
    untried = gate.from_dict(decided(made))
    assert untried.verdict == "untried"
    over = gate.with_latency(untried, 5.0, 4.0)
    before, after = (
        replace(made, decision=decision.as_dict()) for decision in (untried, replace(over, stand_in="slower"))
    )
    assert card_of(before, packed=True).files() == card_of(after, packed=True).files()
    names = [check["name"] for check in content(after, packed=True)["gate"]["checks"]]
    assert names == ["H"]
    whole = card_of(after).markdown()
    assert "Passed. Compared with version 2." in whole
    assert "In the trial slower." in whole
    assert [check["name"] for check in content(after)["gate"]["checks"]] == [
        "H",
        "latency_ratio",
        "loss of H",
    ]
    assert "The gate has not judged these figures." in card_of(made).markdown()


@pytest.mark.parametrize("count", [8, 400])
def test_the_description_fits_into_its_column(count: int) -> None:
    names = (
        NAMES if count == len(NAMES) else [f"{'a very long name of a class ' * 3}{n}" for n in range(count)]
    )
    made = card_of(recorded(names))
    description = made.description()
    assert len(description) <= DESCRIPTION
    assert description.startswith("# ayeaye, version 3\n")
    assert "## How good it is" in description
    left_out = "## How it was made" not in description
    assert left_out == ("card.html" in description)


@pytest.mark.slow
class TestARegisteredVersion:
    """Of the small workspace, after its retrain promoted it."""

    def test_has_its_card_in_the_registry(self, trained: Place) -> None:
        workspace = Workspace(trained.root)
        registry = promotion.registry_of(workspace)
        version = registry.version(1)
        made = promotion.card_of(workspace, version)
        for name, whole in made.files().items():
            path = registry.artifact(version, name)
            assert path is not None and path.read_bytes() == whole
        described = registry._open().get_model_version(registry.model, "1").description
        assert described == made.description()
        assert made.content["gate"]["verdict"] == "promoted"
        assert set(made.pictures) == set(card.PICTURES)

    def test_has_a_card_of_what_the_workspace_holds(self, trained: Place) -> None:
        workspace = Workspace(trained.root)
        metrics = trained.read("reports/metrics.json")
        made = promotion.card_of(workspace, promotion.registry_of(workspace).version(1)).content
        for figure in made["figures"]:
            assert figure["value"] == metrics[figure["name"]]
        assert made["class_space"]["quality"] == metrics["class_space"]
        assert made["measured_on"] == metrics["counts"]
        data = made["data"]
        assert (data["source"], data["rejected"], data["seen"], data["unseen"]) == ("folder", 0, 20, 6)
        assert sum(row["pictures"] for row in data["splits"]) == data["pictures"]
        assert made["backbone"]["licence"] is None
        assert made["backbone"]["digest"] == trained.read("data/embeddings/backbone.json")["digest"]
        assert all(made["made"].values())

    def test_has_its_card_in_its_bento_which_needs_no_other(self, trained: Place) -> None:
        workspace = Workspace(trained.root)
        version = promotion.registry_of(workspace).version(1)
        tag = promotion.record_of(workspace).state().bento
        assert tag is not None and promotion.current(workspace, version)
        folder = BentoStore(workspace.bentos).folder(tag)
        packed = promotion.card_of(workspace, version, packed=True)
        assert (folder / "src" / "card.html").read_text() == packed.html()
        assert (folder / "README.md").read_text() == packed.markdown()

    def test_tells_in_its_bento_how_far_it_can_be_trusted(self, trained: Place) -> None:
        workspace = Workspace(trained.root)
        tag = promotion.record_of(workspace).state().bento
        assert tag is not None
        packed = json.loads((BentoStore(workspace.bentos).folder(tag) / "src" / "serve.json").read_text())
        told, metrics = packed["metrics"], trained.read("reports/metrics.json")
        assert told["estimated_on"] == metrics["estimated_on"]
        assert told["reliability.ece"] == metrics["reliability"]["ece"]
        assert told["none_of_these.false_accept"] == metrics["none_of_these"]["false_accept"]
        for side, share in metrics["none_of_these"]["accepted"].items():
            assert told[f"none_of_these.accepted.{side}"] == share

    def test_is_described_once(self, copied: Place) -> None:
        workspace = Workspace(copied.root)
        registry = promotion.registry_of(workspace)
        path = registry.artifact(1, "card.html")
        assert path is not None
        path.write_text("as it was")
        promotion.keep_card(workspace, registry.version(1))
        assert path.read_text() == "as it was"
        registry.untag(1, "card")
        promotion.keep_card(workspace, registry.version(1))
        assert path.read_text() == promotion.card_of(workspace, registry.version(1)).html()

    def test_says_what_is_missing_where_its_run_lost_something(self, copied: Place) -> None:
        workspace = Workspace(copied.root)
        registry = promotion.registry_of(workspace)
        path = registry.artifact(1, "metrics.json")
        assert path is not None
        path.write_text("{")
        assert "what is recorded of version 1 makes no card (Expecting" in copied("card", 1).err
        path.unlink()
        assert "what is recorded of version 1 makes no card ('metrics.json')" in copied("card", 1).err
        # A way back does not hang on it.
        assert promotion._recipe(workspace, registry.version(1)).card == {}

    def test_is_told_by_the_command(self, trained: Place, tmp_path: Path) -> None:
        told = trained("card")
        assert told.code == 0 and told.out.startswith("# ayeaye, version 1\n")
        assert trained("card", "1").out == told.out
        assert trained("card", "--json").json["version"] == 1
        for name in ("card.html", "card.md", "card.json"):
            assert trained("card", "champion", "--out", tmp_path / name).code == 0
        assert (tmp_path / "card.md").read_text() == told.out
        assert json.loads((tmp_path / "card.json").read_bytes()) == trained("card", "--json").json
        Page((tmp_path / "card.html").read_text())

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            pytest.param(["previous"], 1, "there is no previous yet", id="none yet"),
            pytest.param(
                ["best"], 1, "'best' is no version: expected a number, champion or previous", id="no name"
            ),
            pytest.param(["7"], 1, "has no version 7; known, newest first: 1", id="no number"),
            pytest.param(
                ["1", "--out", "card.pdf"], 2, "card.pdf ends in none of .html, .md, .json", id="form"
            ),
        ],
    )
    def test_that_is_none_is_an_error(
        self, trained: Place, arguments: list[Any], code: int, said: str
    ) -> None:
        done = trained("card", *arguments)
        assert done.code == code
        assert said in done.err

    def test_is_told_by_its_service(self, trained: Place, service: str) -> None:
        workspace = Workspace(trained.root)
        packed = promotion.card_of(workspace, promotion.registry_of(workspace).version(1), packed=True)
        answer = httpx.get(f"{service}/card", trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.text == packed.html()
        assert httpx.get(f"{service}/model", trust_env=False).json()["card"] is True
