"""The shapes of requests and answers, as the OpenAPI description shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, Strict

_ID = f"3-{'0a' * 32}-0123456789ab"
_MODEL = {"version": 3, "bento": "ayeaye:v3-1a2b3c4d"}
_ANSWER = {
    "label": "aye-aye",
    "seen": False,
    "known": True,
    "confidence": 0.41,
    "alternatives": [
        {"label": "aye-aye", "seen": False, "score": 0.52, "confidence": 0.41},
        {"label": "okapi", "seen": True, "score": 0.47, "confidence": 0.27},
    ],
}

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
Number = Annotated[FiniteFloat, Strict()]  # and no text of one


def _example(example: dict[str, Any], extra: Literal["ignore", "forbid"] = "ignore") -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]}, extra=extra)


class Fault(BaseModel):
    """What was wrong, and what to do. `near`: the words or names that are not known, with near ones that are."""

    model_config = _example({"error": "the picture cannot be read: empty file (0 bytes)"})
    error: str
    near: dict[str, list[str]] | None = None


class ModelName(BaseModel):
    version: int | None = Field(description="The version in the registry.")
    bento: str | None = Field(description="The tag of the Bento.")


class Alternative(BaseModel):
    label: str
    seen: bool
    score: float
    confidence: float = Field(ge=0, le=1.000001, description="What it would be if this were the label.")


class Named(BaseModel):
    id: str = Field(
        description="Names this answer for POST /feedback. The log of predictions has those of POST /classify and "
        "POST /classify_batch alone."
    )
    model: ModelName


class Answer(Named):
    """The most likely class of a picture; `seen` says whether photographs of it were trained on, `known` is false
    where the picture seems to be of none of the classes. Scores rank the alternatives, the best first."""

    model_config = _example({"id": _ID, **_ANSWER, "model": _MODEL})
    label: str
    seen: bool
    known: bool
    confidence: float = Field(ge=0, le=1.000001)
    alternatives: list[Alternative] = Field(min_length=1)


class AnswerAmong(Answer):
    """The most likely of the candidates. `left_out`: words and attributes of described ones that are not known, so
    that nothing was made of them."""

    model_config = _example({"id": _ID, **_ANSWER, "model": _MODEL, "left_out": ["cryptoprocta"]})
    left_out: list[str]


class ItemFault(BaseModel):
    """Why one picture of a batch has no answer, and the status it would have had alone."""

    model_config = _example({"error": "the picture cannot be read: empty file (0 bytes)", "status": 400})
    error: str
    status: int


class Answers(BaseModel):
    model_config = _example(
        {
            "answers": [
                {"id": _ID, **_ANSWER, "model": _MODEL},
                {"error": "the picture cannot be read: empty file (0 bytes)", "status": 400},
            ]
        }
    )
    answers: list[Answer | ItemFault] = Field(description="One per picture, in the order they were sent.")


class Embedding(Named):
    """A picture in numbers: `embedding` is the network's, `projection` lies where the classes are."""

    model_config = _example({"id": _ID, "model": _MODEL, "embedding": [0.1, 0.7], "projection": [0.3]})
    embedding: list[float]
    projection: list[float]


class Part(BaseModel):
    """One attribute, word or term in which the classes differ, with its value for either; or a source as a whole."""

    name: str
    source: str
    phrase: str = Field(description="How the label has it, in words.")
    value: float | None
    against_value: float | None
    contribution: float = Field(description="To the difference of the scores.")


class Near(BaseModel):
    label: str
    cosine: float


class Nearest(BaseModel):
    to_picture: list[Near]
    to_label: list[Near]


class Explanation(Named):
    """Why one class rather than another: the difference of their scores is the sum of what the parts, the correction
    of hubs and the offset of seen classes contribute. `nearest_seen` are the nearest classes with photographs."""

    model_config = _example(
        {
            "id": _ID,
            "model": _MODEL,
            "label": "aye-aye",
            "seen": False,
            "score": 0.52,
            "against": "okapi",
            "against_seen": True,
            "against_score": 0.47,
            "difference": 0.05,
            "parts": [
                {
                    "name": "long neck",
                    "source": "attributes",
                    "phrase": "no long neck",
                    "value": 0,
                    "against_value": 1,
                    "contribution": 0.08,
                }
            ],
            "hub_correction": -0.03,
            "seen_offset": 0.0,
            "nearest_seen": {
                "to_picture": [{"label": "loris", "cosine": 0.6}],
                "to_label": [{"label": "loris", "cosine": 0.7}],
            },
            "sentence": "aye-aye rather than okapi: no long neck (+0.08); besides: correction of hubs (−0.03)",
        }
    )
    label: str
    seen: bool
    score: float
    against: str
    against_seen: bool
    against_score: float
    difference: float
    parts: list[Part]
    hub_correction: float
    seen_offset: float
    nearest_seen: Nearest
    sentence: str


class Described(BaseModel):
    """A class in words or numbers: what of them is needed depends on what the class space was made of, and an error
    says what lacks. A `vector` lies in the class space and stands instead of everything else."""

    model_config = _example(
        {
            "name": "fossa",
            "description": "A slender brown cat-like animal with a long tail that lives in forests.",
            "synonyms": ["Cryptoprocta ferox"],
        },
        extra="forbid",
    )
    name: Name
    description: Text = ""
    synonyms: Annotated[list[Name], Field(max_length=50)] = []
    attributes: Annotated[dict[Name, Number], Field(max_length=10_000)] | None = None
    vector: Annotated[list[Number], Field(min_length=1, max_length=65_536)] | None = None


class Class(BaseModel):
    """A class that is an answer. Of run-time classes, `created` says since when."""

    name: str
    seen: bool
    origin: Literal["trained", "run-time"]
    created: datetime | None = None


class Refused(BaseModel):
    """A run-time class that the present model cannot take; it is kept, and tried anew with each model."""

    name: str
    reason: str
    created: datetime | None = None


class Classes(BaseModel):
    """`revision` grows with every change of the run-time classes."""

    model_config = _example(
        {
            "revision": 1,
            "classes": [
                {"name": "okapi", "seen": True, "origin": "trained"},
                {"name": "fossa", "seen": False, "origin": "run-time", "created": "2026-01-31T12:00:00Z"},
            ],
            "refused": [],
        }
    )
    revision: int
    classes: list[Class]
    refused: list[Refused]


class Content(BaseModel):
    """`vector`: one was given, and stands instead of everything else."""

    description: str
    synonyms: list[str]
    attributes: dict[str, float] | None = None
    vector: bool


class OneClass(Class, Content):
    """A class and what is known of it: of a run-time class what was given, of a trained one what its model keeps.
    `refused`: why the present model cannot take it; null for a class that is an answer."""

    model_config = _example(
        {
            "name": "fossa",
            "seen": False,
            "origin": "run-time",
            "created": "2026-01-31T12:00:00Z",
            "description": "A slender brown cat-like animal with a long tail that lives in forests.",
            "synonyms": ["Cryptoprocta ferox"],
            "attributes": None,
            "vector": False,
            "refused": None,
        }
    )
    refused: str | None = None


class Change(Content):
    """One change of the run-time classes, with the class that was added or removed, or took another's place."""

    revision: int
    time: datetime
    caller: str = Field(description="The address that asked for it.")
    action: Literal["add", "replace", "remove"]
    name: str


class Changes(BaseModel):
    """The changes after a revision, the newest last. `more`: there are later ones, after the last of these."""

    model_config = _example(
        {
            "changes": [
                {
                    "revision": 1,
                    "time": "2026-01-31T12:00:00Z",
                    "caller": "192.0.2.17",
                    "action": "add",
                    "name": "fossa",
                    "description": "A slender brown cat-like animal with a long tail that lives in forests.",
                    "synonyms": ["Cryptoprocta ferox"],
                    "attributes": None,
                    "vector": False,
                }
            ],
            "more": False,
        }
    )
    changes: list[Change] = Field(max_length=100)
    more: bool


class Added(BaseModel):
    """A class that is one now, on every worker. `unknown`: words and attributes its vector was made without, with near
    ones that are known."""

    model_config = _example({"name": "fossa", "revision": 1, "unknown": {"cryptoprocta": []}})
    name: str
    revision: int
    unknown: dict[str, list[str]] = {}


class Removed(BaseModel):
    model_config = _example({"name": "fossa", "revision": 2})
    name: str
    revision: int


class Correction(BaseModel):
    """Feedback without the picture."""

    model_config = _example({"answer": _ID, "label": "fossa"}, extra="forbid")
    answer: Annotated[str, Field(max_length=200, description="The id of the answer.")]
    label: Annotated[str, Field(min_length=1, max_length=200, description="The right label.")]


class Kept(BaseModel):
    model_config = _example({"feedback": 12, "status": "pending", "picture": True, "near": ["fossa"]})
    feedback: int
    status: Literal["pending"] = "pending"
    picture: bool = Field(description="Whether a picture is kept with it.")
    near: list[str] | None = Field(
        None,
        description="Where no class has the label now, which may be right: classes spelled much like it.",
    )


class Sample(BaseModel):
    """A picture that came with the model, at GET /samples/{id}. Of use `class` it is small, and was trained on; of use
    `try` it was held out."""

    id: str
    use: Literal["class", "try"]
    label: str
    seen: bool
    width: int
    height: int


class Samples(BaseModel):
    model_config = _example(
        {
            "samples": [
                {
                    "id": "0123456789abcdef",
                    "use": "class",
                    "label": "okapi",
                    "seen": True,
                    "width": 128,
                    "height": 96,
                }
            ]
        }
    )
    samples: list[Sample]


class Thresholds(BaseModel):
    known: float = Field(
        description="Below this confidence a picture is of none of the classes. Classes that come at run time move "
        "it, as confidences are shares among all."
    )
    seen_offset: float = Field(description="Taken from the scores of seen classes.")
    temperature: float = Field(description="Divides scores before they become a confidence.")


class Weights(BaseModel):
    name: str
    weights: str
    width: int
    licence: str | None
    engine: str = Field(description="What the figures were measured with, with its precision.")
    running: str = Field(description="What computes the answers here: `engine`, or what stands in for it.")
    fallback: str | None = Field(description="Why another engine is running; null where it is the same.")


class About(BaseModel):
    """What is being served. `code` is "bento" when the program itself comes from the Bento; `backbone` is null for a
    model of features. `metrics` are figures of the evaluation, `estimated_on` what pictures."""

    model_config = _example(
        {
            "version": 3,
            "bento": "ayeaye:v3-1a2b3c4d",
            "bundle_digest": "0a" * 32,
            "data_digest": "0b" * 32,
            "metrics": {
                "estimated_on": "unseen classes",
                "H": 0.61,
                "reliability.ece": 0.04,
                "none_of_these.false_accept": 0.1,
                "none_of_these.accepted.unknown": 0.11,
            },
            "classes": {"seen": 40, "unseen": 10},
            "run_time_classes": 1,
            "thresholds": {"known": 0.21, "seen_offset": 0.12, "temperature": 0.05},
            "backbone": {
                "name": "mobilenet_v3_small",
                "weights": "torchvision IMAGENET1K_V1",
                "width": 576,
                "licence": "BSD-3-Clause",
                "engine": "openvino bf16",
                "running": "torch fp32",
                "fallback": "openvino is not installed",
            },
            "limits": {
                "max_bytes": 20_000_000,
                "max_pixels": 50_000_000,
                "max_batch": 64,
                "max_batch_bytes": 100_000_000,
                "decode_seconds": 10.0,
            },
            "card": True,
            "code": "bento",
        }
    )
    version: int | None
    bento: str | None
    bundle_digest: str
    data_digest: str | None
    metrics: dict[str, Any]
    classes: dict[str, int]
    run_time_classes: int
    thresholds: Thresholds
    backbone: Weights | None
    limits: dict[str, float]
    card: bool = Field(description="Whether there is a model card at GET /card.")
    code: str
