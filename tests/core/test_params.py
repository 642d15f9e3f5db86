"""params.yaml: what is known, what is refused, and how it is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import workspaces

from ayeaye.core import params
from ayeaye.core.errors import ParamsError
from ayeaye.core.workspace import Workspace, template


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


@pytest.mark.parametrize("shares", [{"test_share": 0.9}, {"test_share": 0.5, "validation_share": 0.5}])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(
        ParamsError, match=r"validation_share is .*: it and prepare.test_share, 0.\d, must be below 1"
    ):
        params.parse({"prepare": shares}, "params.yaml")


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


TEXTS = ("photos #1", "a: b", "null?", "null", "~", "yes", "1e3", "007", "2024-01-01", "[a]", "{a}", "'x", '"x"', " x ",
         "- a", "!x", "&a", "|", "%d", "@x", "a\nb", "ü", "u\u0308", "${a}", "a\\b", ".inf", "=", "---")  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_taken_as_it_stands(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    chosen = params.assign(
        path, [f"prepare.path={text}", f"embed.weights={text}", f"classes.vectors.glove={text}"]
    )
    assert params.load(path) == chosen
    assert (chosen.prepare.path, chosen.embed.weights, chosen.classes.vectors) == (
        text,
        text,
        {"glove": text},
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("classes.source=[tfidf, glove]", ["tfidf", "glove"]),
        ("classes.source=tfidf", "tfidf"),
        ("classes.source=[tfidf", "[tfidf"),
        ("classes.vectors={glove: 'a #1.txt'}", {"glove": "a #1.txt"}),
        ("classes.vectors=[a].txt", "[a].txt"),
        ("classes.vectors=[a]", "[a]"),  # it takes no list
        ("release.model=123", "123"),
        ("serve.proxy=null", "null"),
        ("embed.mean=[.1, .2, .3]", [0.1, 0.2, 0.3]),
        ("prepare.max_rejected=1e-3", 1e-3),
        ("release.minimum={}", {}),
        ("release.minimum.H=0.5", 0.5),
        ("serve.predictions=false", False),
        ("prepare.path=", None),
        ("prepare.nothing=1", "1"),
    ],
)
def test_a_value_is_read_as_what_the_parameter_may_be(setting: str, value: object) -> None:
    assert params.value_of(setting) == value


def test_what_cannot_be_read_or_written_is_one_line() -> None:
    with pytest.raises(ParamsError, match=r"train\.folds is \[1: this is not valid YAML"):
        params.value_of("train.folds=[1")
    with pytest.raises(ParamsError, match=r"prepare\.path: the value is not UTF-8"):
        params.value_of("prepare.path=caf\udce9")


@pytest.mark.parametrize("value", ["[postgresql://u:secret@h/d]", "{url: secret}", "'secret", "7"])
def test_a_wrong_address_of_a_database_is_not_shown(tmp_path: Path, value: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    with pytest.raises(ParamsError, match=r"serve\.database") as caught:
        params.assign(path, [f"serve.database={value}"])
    assert "secret" not in str(caught.value) and "7" not in str(caught.value)


def test_the_address_of_a_database_is_in_no_record_of_the_parameters() -> None:
    chosen = params.parse({"serve": {"database": "postgresql+psycopg://u:secret@h/d"}}, "params.yaml")
    assert chosen.serve.database is not None
    assert chosen.serve.database.get_secret_value() == "postgresql+psycopg://u:secret@h/d"
    assert "secret" not in f"{chosen!r} {chosen} {chosen.model_dump(mode='json')} {chosen.model_dump_json()}"


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ({"webhook": "ftp://h/secret"}, "http or https"),
        ({"email": "nobody"}, "e-mail addresses"),
        ({"email": ["a@example.org", "b@example.org?bcc=c"], "smtp": "smtp://h"}, "e-mail addresses"),
        ({"email": "a@example.org"}, "email needs smtp"),
        ({"smtp": "smtp://u:secret@h"}, "AYEAYE_SMTP_PASSWORD"),
        ({"smtp": "mailto://h"}, "smtp://user@host:587"),
        ({"smtp": "smtp://h:port"}, "smtp://user@host:587"),
        ({"events": ["failed", "success"]}, "failed, refused"),
    ],
)
def test_wrong_alerts_are_refused_and_no_secret_is_shown(alerts: dict[str, object], said: str) -> None:
    with pytest.raises(ParamsError, match=said) as caught:
        params.parse({"alerts": alerts}, "params.yaml")
    assert "secret" not in str(caught.value)


def test_the_address_of_a_webhook_is_in_no_record_of_the_parameters() -> None:
    chosen = params.parse({"alerts": {"webhook": "https://h/secret"}}, "params.yaml")
    assert "secret" not in f"{chosen!r} {chosen} {chosen.model_dump(mode='json')} {chosen.model_dump_json()}"


@pytest.mark.parametrize("setting", ["nonsense", "train=ridge", "train.folds=one", "train.nothing=1"])
def test_a_refused_setting_changes_nothing(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    before = path.read_bytes()
    with pytest.raises(ParamsError):
        params.assign(path, [setting])
    assert path.read_bytes() == before


def test_an_empty_value_takes_an_item_out_of_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    before = params.load(path)
    chosen = params.assign(path, ["release.minimum.H=", "classes.vectors.glove=g.txt", "embed.mean="])
    assert chosen.release.minimum == {k: v for k, v in before.release.minimum.items() if k != "H"}
    assert chosen.classes.vectors == {"glove": "g.txt"} and chosen.embed.mean is None
    floors = [f"release.minimum.{name}=" for name in chosen.release.minimum]
    emptied = params.assign(path, ["classes.vectors.glove=", *floors, "release.maximum.nothing="])
    assert (emptied.classes.vectors, emptied.release.minimum) == ({}, {})
    assert emptied.release.maximum == before.release.maximum
    assert params.assign(path, ["release.minimum.H=0.2"]).release.minimum == {"H": 0.2}


def test_a_check_sees_both_and_can_refuse(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(template("params.yaml").read_bytes())
    content = path.read_bytes()

    def check(before: params.Params, chosen: params.Params) -> None:
        assert (before.train.folds, chosen.train.folds) == (3, 5)
        raise ParamsError("not today")

    with pytest.raises(ParamsError, match="not today"):
        params.assign(path, ["train.folds=5"], check)
    assert path.read_bytes() == content


def test_every_setting_that_names_a_file_may_be_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "workspace"
    (here / "a").mkdir(parents=True)
    (here / "a" / "file").write_text("x")
    (here / "train").mkdir()
    monkeypatch.chdir(here)
    assert workspaces.ayeaye("init", there).code == 0
    files = ("prepare.path", "embed.pretrained_on", "embed.hierarchy", "classes.corpus", "classes.vectors")
    settings = [f"{name}=a/file" for name in files]
    others = ["embed.weights=train", "prepare.remote=a/file", "release.tracking=a/file"]
    done = workspaces.ayeaye("set", "--workspace", there, *settings, *others)
    assert done.code == 0, done.err
    chosen, found = Workspace(there).params, str(here / "a" / "file")
    assert [_named(chosen, name) for name in files] == [found] * len(files)
    assert [_named(chosen, item.partition("=")[0]) for item in others] == ["train", "a/file", "a/file"]

    both = "classes.vectors={word2vec: a/file, glove: elsewhere}"
    assert workspaces.ayeaye("set", "--workspace", there, both).code == 0
    assert Workspace(there).params.classes.vectors == {"word2vec": found, "glove": "elsewhere"}
    assert workspaces.ayeaye("set", "--workspace", there, "classes.vectors.glove=a/file").code == 0
    assert Workspace(there).params.classes.vectors == {"word2vec": found, "glove": found}


def _named(chosen: params.Params, dotted: str) -> object:
    section, _, key = dotted.partition(".")
    return getattr(getattr(chosen, section), key)


def test_strange_names_of_folders_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "photos #1", "~nobody-of-this-name", "train"):
        (tmp_path / name).mkdir()
    root = tmp_path / "~nobody-of-this-name" / "shop #1"
    for name in ("photos #1", "~nobody-of-this-name", "train"):
        done = workspaces.ayeaye("init", "~nobody-of-this-name/shop #1", "--set", f"prepare.path={name}")
        assert done.code == 0, done.err
        assert Workspace(root).params.prepare.path == str(tmp_path / name)
        assert "--workspace '~nobody-of-this-name/shop #1'" in done.out
    assert Workspace.find(Path("~nobody-of-this-name/shop #1")).root == root
    assert Workspace(root).resolve("~nobody-of-this-name") == root / "~nobody-of-this-name"
    (tmp_path / "loop").symlink_to("loop")
    done = workspaces.ayeaye("status", "--workspace", "loop")
    assert done.code == 1 and "loop is not a workspace" in done.err


def test_a_wrong_rate_says_what_a_rate_is() -> None:
    with pytest.raises(ParamsError, match=r"serve\.rate is .often.*expected a rate such as 20/second"):
        params.parse({"serve": {"rate": "often"}}, "params.yaml")
    assert params.parse({"serve": {"rate": "20/second;600/minute"}}, "params.yaml").serve.rate
