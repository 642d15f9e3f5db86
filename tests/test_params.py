"""params.yaml: what is known, what is refused, and how it is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayeaye import params
from ayeaye.errors import ParamsError
from ayeaye.workspace import template


def test_the_template_says_what_the_defaults_are() -> None:
    chosen = params.load(template("params.yaml"))
    assert chosen.model_dump(exclude={"release"}) == params.Params().model_dump(exclude={"release"})


def test_an_unknown_key_is_answered_with_the_nearest_known_one() -> None:
    with pytest.raises(ParamsError, match=r"unknown parameter train\.maper; did you mean mapper\?"):
        params.parse({"train": {"maper": "ridge"}}, "params.yaml")


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ParamsError) as caught:
        params.parse({"train": {"folds": 1}, "serv": {}, "prepare": {"source": "web"}}, "params.yaml")
    assert all(word in str(caught.value) for word in ("train.folds", "serv", "serve", "prepare.source"))


def test_broken_yaml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  mapper: [ridge\n")
    with pytest.raises(ParamsError, match="not valid YAML"):
        params.load(path)


def test_the_digest_forgets_comments_and_order(tmp_path: Path) -> None:
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("train: {seed: 3, folds: 5}  # why\n")
    two.write_text("train:\n  folds: 5\n  seed: 3\n")
    assert params.load(one).digest() == params.load(two).digest()
    two.write_text("train:\n  folds: 5\n  seed: 4\n")
    assert params.load(one).digest() != params.load(two).digest()


def test_a_setting_keeps_the_comments(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    chosen = params.assign(path, ["embed.mean=0.5", "embed.std=[0.2, 0.3, 0.4]", "prepare.source=folder"])
    assert (chosen.embed.mean, chosen.embed.std, chosen.prepare.source) == (0.5, [0.2, 0.3, 0.4], "folder")
    assert params.load(path) == chosen
    assert "# of training, where weights is train" in path.read_text()


@pytest.mark.parametrize("setting", ["nonsense", "train=ridge", "train.folds=one", "train.nothing=1"])
def test_a_refused_setting_changes_nothing(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    before = path.read_bytes()
    with pytest.raises(ParamsError):
        params.assign(path, [setting])
    assert path.read_bytes() == before
