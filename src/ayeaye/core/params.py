"""params.yaml, typed: one model per section, under the names of the stages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ayeaye.core.errors import ParamsError
from ayeaye.core.unicode_checks import near

STATE_IN_IMAGE = "/state"  # in a container, where no params.yaml is; elsewhere it is serve.state
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prepare(Section):
    source: Literal["bestiary", "folder", "features", "xlsa17", "awa2", "cub"] = "bestiary"
    path: str | None = None
    seed: int = 0
    test_share: Share = 0.25
    validation_share: Annotated[Share, Field(validate_default=True)] = 0.15
    validation_classes: Share = 0.25
    max_rejected: Share = 0.05
    duplicates: Literal["quarantine", "keep", "error"] = "quarantine"
    max_bytes: Count = 50_000_000
    max_pixels: Count = 100_000_000
    shard_bytes: Count = 128_000_000
    remote: str = ".ayeaye/remote"
    remote_shared: bool = True
    cache_shared: bool = True
    species: Annotated[int, Field(ge=32)] = 120
    pictures: Annotated[int, Field(ge=4)] = 24

    @field_validator("validation_share")
    @classmethod
    def _leaves_training(cls, given: float, info: ValidationInfo) -> float:
        test_share = info.data.get("test_share", 0)  # not there where it is a fault itself
        if test_share + given >= 1:
            raise ValueError(
                f"it and prepare.test_share, {test_share:g}, must be below 1 together: the rest is for training"
            )
        return given


class Embed(Section):
    backbone: str = "resnet18"
    weights: str = "train"
    mean: float | list[float] | None = None
    std: float | list[float] | None = None
    size: Annotated[int, Field(ge=16, le=2048)] | None = None
    pretrained_on: str | None = None
    hierarchy: str | None = None
    epochs: Annotated[int, Field(ge=0)] = 14
    batch: Count = 32
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    precision: Literal["auto", "fp32"] = "auto"
    seed: int = 0


VECTOR_SOURCES = ("fasttext", "glove", "sentences", "word2vec")


def _vectors(given: str | dict[str, str] | None) -> str | dict[str, str] | None:
    for source in given if isinstance(given, dict) else ():
        if source not in VECTOR_SOURCES:
            raise ValueError(
                f"expected a file, or files by source ({', '.join(VECTOR_SOURCES)}), not {source}"
            )
    return given


class Classes(Section):
    source: str | list[str] = ["word2vec", "tfidf"]
    vectors: Annotated[str | dict[str, str] | None, AfterValidator(_vectors)] = None
    text: Literal["auto", "names", "synonyms", "descriptions"] = "auto"
    corpus: str | None = None
    dimensions: Annotated[int, Field(ge=2)] = 100
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1e-3
    weights: list[float] | None = None
    seed: int = 0

    @property
    def sources(self) -> list[str]:
        return [self.source] if isinstance(self.source, str) else list(self.source)

    def vectors_of(self, source: str) -> str | None:
        """The file of word vectors of one source, or None where they are trained."""
        if isinstance(self.vectors, dict):
            return self.vectors.get(source)
        return self.vectors


MAPPERS = ("drop_last", "eszsl", "prototype", "rank", "ridge", "sae")


def _mappers(given: str | list[str] | None) -> str | list[str] | None:
    names = [given] if isinstance(given, str) else given
    if names is not None and not (names and set(names) <= set(MAPPERS)):
        raise ValueError(f"expected one of {', '.join(MAPPERS)}, or a list of them")
    return given


class Train(Section):
    mapper: Annotated[str | list[str] | None, AfterValidator(_mappers)] = None
    select: Literal["auto", "defaults"] = "auto"
    folds: Annotated[int, Field(ge=2)] = 3
    repeats: Count = 4
    hubs: Literal["none", "csls", "inverted_softmax", "nnn", "local_scaling", "auto"] = "auto"
    false_accept: Annotated[float, Field(gt=0, le=1)] = 0.5
    samples: Annotated[int, Field(ge=0, le=20)] = 3
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0


class Evaluate(Section):
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    neighbours: Count = 5
    folds: Annotated[int, Field(ge=2)] = 4
    seed: int = 0


class Release(Section):
    model: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")] = "ayeaye"
    tracking: str | None = None
    minimum: dict[str, float] = {}
    maximum: dict[str, float] = {}
    epsilon: Annotated[float, Field(ge=0)] = 0.02
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    approval: Literal["automatic", "manual"] = "automatic"
    clean_classes: Count = 5
    slices: bool = True
    slice_epsilon: Annotated[float, Field(ge=0)] = 0.05
    slice_classes: Count = 3
    slice_pictures: Annotated[int, Field(ge=2)] = 30


def _rate(given: str | None) -> str | None:
    import limits

    try:
        if given is not None:
            limits.parse_many(given)
        return given
    except ValueError:
        raise ValueError("expected a rate such as 20/second or 20/second;600/minute") from None


def _database(given: SecretStr | None) -> SecretStr | None:
    if given is not None and not re.match(r"(postgres(ql)?(\+psycopg)?|sqlite)://", given.get_secret_value()):
        raise ValueError("expected postgresql+psycopg://user@host/name or sqlite:////folder/file.db")
    return given


class Serve(Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 3000
    workers: Count = 1
    max_bytes: Count = 20_000_000
    max_pixels: Count = 50_000_000
    max_batch: Count = 64
    max_batch_bytes: Count = 100_000_000
    decode_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    concurrency: Count = 256
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    rate: Annotated[str | None, AfterValidator(_rate)] = None
    predictions: bool = True
    weights_licence: str | None = None
    token_file: str | None = None
    state: str = ".ayeaye/service"
    proxy: Literal["auto", "none"] = "auto"
    shadow: Annotated[float, Field(ge=0, le=1)] = 0.0
    database: Annotated[SecretStr | None, AfterValidator(_database)] = (
        None  # may hold a password: what logs the parameters must not log it
    )

    @property
    def packed(self) -> dict[str, Any]:
        """What goes into a Bento; the rest is of the place where it is served."""
        return self.model_dump(
            exclude={"host", "port", "workers", "token_file", "state", "database", "proxy", "shadow"}
        )


ALERTS = ("failed", "refused", "pending", "drift", "promoted")


def _alerts(given: list[str]) -> list[str]:
    if not set(given) <= set(ALERTS):
        raise ValueError(f"expected a list of {', '.join(ALERTS)}")
    return given


def _web_address(given: SecretStr | None) -> SecretStr | None:
    if given is not None and not given.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("expected an http or https URL")
    return given


def _addresses(given: str | list[str] | None) -> str | list[str] | None:
    if wrong := [each for each in _as_list(given) if not re.fullmatch(r"[^\s@,?&]+@[^\s@,?&]+", each)]:
        raise ValueError(f"expected e-mail addresses such as team@example.org, not {wrong[0]}")
    return given


def _mail_server(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        parts = urlsplit(given)
        bad = parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path not in ("", "/")
        bad = bad or parts.port == 0
    except ValueError:
        bad = True
    if bad:
        raise ValueError(
            "expected smtp://user@host:587 (STARTTLS where there is a user) or smtps://user@host:465"
        )
    if parts.password is not None:
        raise ValueError("holds a password: put that into AYEAYE_SMTP_PASSWORD")
    return given


def _as_list(given: str | list[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else given


class Alerts(Section):
    events: Annotated[list[str], AfterValidator(_alerts)] = ["failed", "refused", "pending", "drift"]
    webhook: Annotated[SecretStr | None, AfterValidator(_web_address)] = (
        None  # many hold their secret in them
    )
    email: Annotated[str | list[str] | None, AfterValidator(_addresses)] = None
    sender: Annotated[str | None, AfterValidator(_addresses)] = None
    smtp: Annotated[str | None, AfterValidator(_mail_server)] = None

    @model_validator(mode="after")
    def _complete(self) -> Alerts:
        if self.email and not self.smtp:
            raise ValueError("email needs smtp, the server that sends it, such as smtp://user@host:587")
        return self

    @property
    def recipients(self) -> list[str]:
        return _as_list(self.email)


WATCHED = ("confidence", "margin", "none_of_these", "vectors", "label")


def _watched(given: dict[str, float]) -> dict[str, float]:
    if strange := sorted(set(given) - set(WATCHED)):
        raise ValueError(f"{strange[0]} is not watched: expected any of {', '.join(WATCHED)}")
    if wrong := [name for name, value in given.items() if not 0 <= value < float("inf")]:
        raise ValueError(f"{wrong[0]} is {given[wrong[0]]}: expected 0 or more")
    return given


class Watch(Section):
    days: Annotated[float, Field(gt=0, le=3650)] = 7
    minimum_answers: Annotated[int, Field(ge=50)] = 200
    maximum: Annotated[dict[str, float], AfterValidator(_watched)] = {
        "confidence": 0.3,
        "margin": 0.3,
        "none_of_these": 0.1,
        "vectors": 0.35,
        "label": 0.12,
    }
    significance: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    retrain: str | None = "retrain/weekly-retrain"
    cooldown: Annotated[float, Field(ge=0)] = 7


class Params(Section):
    prepare: Prepare = Prepare()
    embed: Embed = Embed()
    classes: Classes = Classes()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    release: Release = Release()
    serve: Serve = Serve()
    alerts: Alerts = Alerts()
    watch: Watch = Watch()

    def digest(self) -> str:
        """SHA-256 of every value, independent of order and comments."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path) -> Params:
    """Read and check a params.yaml; raises ParamsError with every fault in it at once."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        raw = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path} is not there: make a workspace with `ayeaye init DIR`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        where = str(getattr(error, "problem_mark", "") or "").strip().removeprefix("in ")
        raise ParamsError(
            f"{path} is not valid YAML ({where or error}): mend it or restore it with git"
        ) from None
    return parse(raw, str(path))


def parse(raw: Any, origin: str) -> Params:
    """Check a mapping of sections; `origin` is named in the error."""
    if not isinstance(raw, dict):
        raise ParamsError(f"{origin} holds no sections: expected {', '.join(Params.model_fields)}")
    # An empty section (`train:`) is an empty mapping to a person, None to YAML.
    raw = {key: {} if value is None else value for key, value in raw.items()}
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(item) for item in error.errors()]
        raise ParamsError(f"{origin}: " + "; ".join(faults)) from None


def assign(
    path: Path,
    settings: list[str],
    check: Callable[[Params, Params], None] = lambda before, chosen: None,
    *,
    dry_run: bool = False,
) -> Params:
    """Set `section.key=value` items in a params.yaml, keeping its comments; checked before it is written.

    An empty value is none, and takes an item out of a mapping: `release.minimum.H=`. `check`, given the
    parameters as they are and as they would be, raises for what must not be written either.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    from ayeaye.core.files import write_atomic

    before = load(path)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path)
    for setting in settings:
        keys = setting.partition("=")[0].strip().split(".")
        value = value_of(setting)
        node = above = document
        for key in keys[:-1]:
            if node.get(key) is None:
                node[key] = {}
            above, node = node, node[key]
            if not isinstance(node, dict):
                raise ParamsError(f"{setting}: {key} is a value, not a section")
        if value is None and len(keys) > 2:
            node.pop(keys[-1], None)
            above[keys[-2]] = node or {}  # what is emptied in place would be written in disorder
        else:
            node[keys[-1]] = value
    text = StringIO()
    yaml.dump(document, text)
    params = parse(YAML(typ="safe").load(text.getvalue()), "nothing is set")
    check(before, params)
    if not dry_run:
        write_atomic(path, text.getvalue().encode())
    return params


def value_of(setting: str) -> Any:
    """The value of a `section.key=value`; None where it is empty.

    Where the parameter may be text it is the text as it stands, unless YAML reads a list or a mapping in it and the
    parameter may be that, too; a number, a switch, a list or a mapping is read as YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    dotted, equals, value = setting.partition("=")
    if not equals or "." not in dotted:
        raise ParamsError(f"{setting}: expected section.key=value, such as prepare.source=folder")
    if not value:
        return None
    if not value.isascii() and value != value.encode(errors="replace").decode():
        raise ParamsError(f"{dotted}: the value is not UTF-8 text, which params.yaml is written in")
    kinds = _kinds(dotted.strip().split("."))
    is_text = str in kinds or not kinds  # of an unknown parameter, which is refused later
    try:
        read = YAML(typ="safe").load(value) if not is_text or kinds & {list, dict} else None
    except (YAMLError, ValueError):  # of a date that is none
        if is_text:
            return value
        raise ParamsError(f"{dotted} is {value}: this is not valid YAML") from None
    return value if is_text and type(read) not in kinds & {list, dict} else read


def _kinds(keys: Sequence[str]) -> set[type]:
    """Of what a parameter may be: str, list, dict, float and so on; empty where there is no such parameter."""
    kinds: list[Any] = [Params]
    for key in keys:
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                inner += [kind.model_fields[key].annotation] if key in kind.model_fields else []
            elif get_origin(kind) is dict:
                inner += [get_args(kind)[1]]
        kinds = [each for one in inner for each in _members(one)]
    return {_plain(kind) for kind in kinds}


def _members(annotation: Any) -> list[Any]:
    """Of a union its parts, without what only checks them."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for part in get_args(annotation) for each in _members(part)]
    return [annotation]


def _plain(kind: Any) -> type:
    if get_origin(kind) is Literal:
        return type(get_args(kind)[0])
    return str if kind is SecretStr else get_origin(kind) or kind


def _fault(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, key = item["loc"]
        model: Any = Params
        for part in parents:
            model = model.model_fields[part].annotation
        alike = near(str(key), model.model_fields, 1)
        hint = f"did you mean {alike[0]}?" if alike else f"known: {', '.join(model.model_fields)}"
        return f"unknown parameter {where}; {hint}"
    # It may be a password that stands in the wrong place.
    value = (
        "not shown"
        if where.startswith(("serve.database", "alerts"))
        else json.dumps(item["input"], default=str)
    )
    said = item["msg"].removeprefix("Value error, ")
    return f"{where} is {value[:80]}: {said[:1].lower()}{said[1:]}"
