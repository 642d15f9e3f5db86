"""What is known of a backbone's pretraining, from its weights or a file, and the figures apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.backbones import backbones
from ayeaye.backbones.backbones import Backbone, Transform
from ayeaye.core.errors import DataError
from ayeaye.core.params import Embed, Evaluate
from ayeaye.data.table import ClassTable
from ayeaye.evaluation.leakage import Flag, Named
from ayeaye.evaluation.metrics import Fold
from ayeaye.pipeline import pretraining


def backbone(origin: str, *classes: str) -> Backbone:
    return Backbone("resnet18", origin, Transform(64, 64), lambda: None, 512, "0", classes)  # type: ignore[arg-type]


def known(found: Backbone | None, **knobs: str) -> pretraining.Pretraining:
    return pretraining.known_of(Embed(**knobs), found, Path)


@pytest.mark.parametrize(("outputs", "classes"), [(1000, 1000), (1001, 1000), (11, 0)])
def test_a_checkpoint_with_as_many_classes_as_imagenet_is_taken_to_be_of_these(
    tmp_path: Path, outputs: int, classes: int
) -> None:
    import torch

    path = tmp_path / "weights.pth"
    torch.save(backbones.build("shufflenet_v2_x0_5", outputs).state_dict(), path)
    found = known(backbones.pretrained("shufflenet_v2_x0_5", str(path)))
    assert len(found.classes) == classes
    assert ("assumed from the checkpoint's number of classes" in found.said) == bool(classes)
    assert ("not known" in found.said) == (not classes)


def test_torchvisions_own_weights_bring_their_classes_and_nothing_is_assumed() -> None:
    found = known(backbone("torchvision ResNet18_Weights.IMAGENET1K_V1", "zebra", "ram"))
    assert found.classes == [Named("zebra"), Named("ram")]
    assert "assumed" not in found.said


def test_a_file_goes_before_what_is_assumed_and_a_word_stands_for_imagenet(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffkiller whale\tn02071294\n\nokapi\n", encoding="utf-8")
    found = known(backbone("checkpoint x", "zebra"), pretrained_on=str(path))
    assert found.classes == [Named("killer whale", (), "n02071294"), Named("okapi")]
    assert found.said == "2 classes of classes.txt"
    assert len(known(None, pretrained_on="imagenet-1k").classes) == 1000
    assert known(None).classes == []


@pytest.mark.parametrize(
    "text",
    [
        "tench, Tinca tinca\ngiant panda, panda",
        "n01440764 tench, Tinca tinca\nn02510455 giant panda, panda",
        "n01440764\ttench, Tinca tinca\nn02510455\tgiant panda, panda",
        "0 tench, Tinca tinca\n388 giant panda, panda",
        "0: tench, Tinca tinca\n388: giant panda, panda",
        'id,name\n0,"tench, Tinca tinca"\n388,"giant panda, panda"',
        '{"0": ["n01440764", "tench", "Tinca tinca"],\n "388": ["n02510455", "giant panda, panda"]}',
        "{0: 'tench, Tinca tinca',\n 388: 'giant panda, panda'}",
        '{"tench, Tinca tinca": 0, "giant panda, panda": 388}',
        "['tench, Tinca tinca', 'giant panda, panda']",
    ],
)
def test_lists_of_imagenets_classes_are_read_in_their_usual_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes").write_text(text)
    found = pretraining.read_names(tmp_path / "classes")
    assert [(each.name, each.synonyms) for each in found] == [
        ("tench", ("Tinca tinca",)),
        ("giant panda", ("panda",)),
    ]
    assert [each.synset for each in found] == (["n01440764", "n02510455"] if "n014" in text else ["", ""])


def test_a_synset_may_stand_alone_and_a_number_may_belong_to_a_name(tmp_path: Path) -> None:
    (tmp_path / "classes").write_text("n01440764\n3 toed sloth\n")
    assert pretraining.read_names(tmp_path / "classes") == [
        Named("n01440764", (), "n01440764"),
        Named("3 toed sloth"),
    ]


@pytest.mark.parametrize(("synset", "answerable"), [("", False), ("n02510455", True)])
def test_a_list_of_synsets_says_nothing_of_classes_without_them(synset: str, answerable: bool) -> None:
    classes = ClassTable(pd.DataFrame({"name": ["panda"], "role": "unseen", "synset": synset}))
    listed = pretraining.Pretraining([Named("n01440764", (), "n01440764")], "1 class")
    assert pretraining.comparable(classes, listed).known is answerable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"classes": {"a": 1}}', "no list or mapping of names"),
        ('{"a": ', "no list or mapping of names"),
        ("[]", "no list or mapping of names"),
        ("name,order\ntench,fish\n", "has a column 'order'"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "classes").write_text(text)
    with pytest.raises(DataError, match=f"{said}.*: expected one class a line"):
        pretraining.read_names(tmp_path / "classes")


def test_nothing_leaks_into_a_backbone_trained_here(tmp_path: Path) -> None:
    found = known(backbone("trained here on 9 pictures", "zebra"), pretrained_on="imagenet-1k")
    assert (found.classes, found.said) == ([], "nothing: trained here, on seen classes alone")


@pytest.mark.parametrize(
    "text",
    [
        "killer_whale dolphin\nram sheep\n",
        "child,parent\nkiller_whale,dolphin\nram,sheep\n",
        "parent\tchild\ndolphin\tkiller_whale\n\nsheep\tram\n",
        '"killer_whale", dolphin\r\nram,sheep',
    ],
)
def test_pairs_are_read_from_text_and_tables(tmp_path: Path, text: str) -> None:
    (tmp_path / "kin").write_text(text)
    assert pretraining.read_pairs(tmp_path / "kin") == [("killer_whale", "dolphin"), ("ram", "sheep")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "names .*kin, which is not there"),
        (b"", "is empty: expected child,parent"),
        (b"\xff\xfe", "is UTF-16: save it as UTF-8; expected child,parent"),
        (b"a,b\nkiller whale dolphin\n", "line 2 is 'killer whale dolphin': expected child,parent"),
        (b"a,b,c\n", "line 1 is 'a,b,c'"),
        (b"a,\n", "line 1 is 'a,'"),
    ],
)
def test_a_fault_in_a_hierarchy_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "kin").write_bytes(content)
    with pytest.raises(DataError, match=f"embed.hierarchy .*{message}"):
        pretraining.read_pairs(tmp_path / "kin")


def test_only_unseen_classes_are_flagged() -> None:
    frame = pd.DataFrame(
        {
            "name": ["zebra", "orca", "dolphin", "okapi"],
            "role": ["seen", "unseen", "unseen", "unseen"],
            "synonyms": [[], ["killer whales"], [], []],
        }
    )
    found = pretraining.flags(
        ClassTable(frame),
        pretraining.Pretraining([Named("zebra"), Named("killer whale")], ""),
        [("killer whale", "dolphin")],
    )[0]
    assert found == {"orca": Flag("synonym", "killer whale"), "dolphin": Flag("descendant", "killer whale")}


def test_clean_and_flagged_classes_are_measured_apart() -> None:
    # One seen class, two clean ones (1, 2) and a flagged one (3), of two pictures each.
    y = np.repeat([0, 1, 2, 3], 2)
    scores = np.full((8, 4), 0.0)
    answers = [0, 0, 1, 3, 2, 2, 3, 1]
    scores[np.arange(8), answers] = 2.0
    scores[3, 1] = 1.0  # the best clean class of a picture that the flagged one takes
    seen = np.array([True, False, False, False])
    found = pretraining.apart(
        Fold(scores, y, seen, 0.0), np.array([False, False, False, True]), Evaluate(bootstrap=100)
    )
    clean, flagged = found["clean"], found["flagged"]
    assert (clean["classes"], clean["pictures"], flagged["classes"], flagged["pictures"]) == (2, 4, 1, 2)
    # Among the clean two: 1, 1, 2, 2; among all: 1, 3, 2, 2.
    assert (clean["T1"], clean["U"], clean["S"]) == (1.0, 0.75, 1.0)
    assert clean["H"] == pytest.approx(2 * 0.75 / 1.75)
    assert (flagged["T1"], flagged["U"], flagged["chance"]) == (1.0, 0.5, 1.0)
    assert clean["intervals"]["U"][0] <= 0.75 <= clean["intervals"]["U"][1]


def test_where_all_are_flagged_the_clean_side_is_empty() -> None:
    scores = np.eye(3)
    fold = Fold(scores, np.arange(3), np.array([True, False, False]), 0.0)
    clean = pretraining.apart(fold, np.array([False, True, True]), Evaluate(bootstrap=100))["clean"]
    assert (clean["classes"], clean["T1"], clean["H"], clean["intervals"]["T1"]) == (0, None, None, None)
