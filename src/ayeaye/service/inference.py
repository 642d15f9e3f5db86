"""What the service does, without HTTP: it reads pictures, keeps classes and feedback, and logs what it labels by
itself."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from ayeaye.backbones.engines import cores
from ayeaye.class_vectors.new_class import NewClass, strange_attributes
from ayeaye.classifier.explanation import phrase
from ayeaye.core.errors import Conflict, DataError, NotKept, Outdated
from ayeaye.core.unicode_checks import comparable, shown
from ayeaye.data.samples import Sample, Samples, Use
from ayeaye.service.answer_log import AnswerLog
from ayeaye.service.batching import Batcher
from ayeaye.service.database import locate
from ayeaye.service.decoding import Decoders
from ayeaye.service.labeller import Labeller, Prepared, Reading
from ayeaye.service.living import Living, Now, described
from ayeaye.service.security import Guard, RateLimiter
from ayeaye.service.served import Served
from ayeaye.service.shadow import Shadow
from ayeaye.service.store import RuntimeClass, Store, check_picture, there_already

if TYPE_CHECKING:
    from ayeaye.class_vectors.space import ClassSpace
    from ayeaye.classifier.model import Classifier

Candidates = Sequence[str | NewClass]

CHANGES = 100  # told at once
LARGEST_BATCH, WAITING = 32, 256
MOST_DECODERS = 8
_ANSWER_ID = re.compile(r"([0-9]{1,9})-([0-9a-f]{64})-([0-9a-f]{12})")


def name_answer(version: int | None, picture: str) -> str:
    """A new id for an answer, which tells of what version and of what picture (SHA-256) it is: no worker has to ask
    another, or a log, when feedback comes."""
    return f"{version or 0}-{picture}-{secrets.token_hex(6)}"


def answered(id: str) -> tuple[int | None, str]:
    """The version and the picture of an answer; raises DataError where no answer could have that id."""
    found = _ANSWER_ID.fullmatch(id)
    if not found:
        raise DataError("that is not the id of an answer: send the `id` that came with one")
    return int(found[1]) or None, found[2]


class Inference:
    """One worker's classifier and what it needs. Make it after a fork, inside the process that uses it.

    Raises BundleError and StoreError where it cannot start.
    """

    def __init__(self, served: Served) -> None:
        from ayeaye.classifier import model as classifier

        self.served = served
        self.digest = classifier.digest(served.bundle)
        self.guard = Guard(served.token)
        self.limiter = RateLimiter(served.settings.rate)
        self.samples = Samples.load(served.bundle)
        self.store = Store(locate(served.state, served.database))
        self.living = Living(classifier.Classifier.load(served.bundle), self.store)
        shadowed = bool(served.shadow and served.shadow_share)
        logged = served.settings.predictions or shadowed
        self.log = AnswerLog(self.store.database) if logged else None
        self.shadow = (
            Shadow(str(served.shadow), served.shadow_share, self.log) if shadowed and self.log else None
        )
        # BLAS waits for work with its threads spinning. The products here are small; the cores are for the network.
        threadpool_limits(1, user_api="blas")
        labeller = Labeller(self.living, served.limits)
        self._decoders: Decoders[Prepared] = Decoders(
            labeller.prepare,
            min(MOST_DECODERS, max(2, cores())),
            served.settings.decode_seconds,
            labeller.pixels,
            served.limits.max_pixels,
        )
        self._batcher: Batcher[Prepared, Reading] = Batcher(
            labeller.read, LARGEST_BATCH, max(WAITING, served.settings.concurrency)
        )
        labeller.warm_up()

    def close(self) -> None:
        """Write what the log still holds, and let the database go."""
        self._decoders.close()
        if self.shadow:
            self.shadow.close()
        if self.log:
            self.log.close()
        self.store.close()

    @property
    def model(self) -> dict[str, Any]:
        return {"version": self.served.version, "bento": self.served.bento}

    # ---- pictures ----

    async def read(self, content: bytes) -> Reading:
        """Raises PictureError when it cannot be read, OverloadError when too many wait."""
        return await self._batcher(await self._decoders(content))

    async def classify(self, content: bytes, top: int) -> dict[str, Any]:
        """The answer for one picture; it is logged."""
        reading = await self.read(content)
        check_top(top, len(reading.classifier.labels))
        # The second best gives the margin, also where one alternative is asked for.
        answer = reading.classifier.answers(reading.scores[None], max(top, 2))[0]
        named = self._named(reading)
        self._log(named["id"], reading, answer)
        if self.shadow:
            self.shadow.offer(content, reading.digest, {**named, **answer})
        return {**named, **answer, "alternatives": answer["alternatives"][:top]}

    async def classify_among(self, content: bytes, candidates: Candidates, top: int) -> dict[str, Any]:
        """The answer among the candidates alone; not logged, since the caller chose what it could be."""
        reading = await self.read(content)
        return await asyncio.to_thread(self._among, reading, candidates, top)

    def _among(self, reading: Reading, candidates: Candidates, top: int) -> dict[str, Any]:
        names, described = _split(candidates, reading.now.names)
        narrowed = self._narrowed(reading.classifier, names, described)
        answer = narrowed.answers(narrowed.scores(reading.embedding[None]), top)[0]
        return {**self._named(reading), **answer, "left_out": _left_out(narrowed.space, described)}

    async def explain(
        self, content: bytes, label: str | None, against: str | None, candidates: Candidates | None = None
    ) -> dict[str, Any]:
        """What speaks for a class (none given: the best) rather than another (none given: the next best), of the
        candidates where there are some; not logged, as it is no answer of its own."""
        for what, name in (("label", label), ("against", against)):
            if name is not None and not comparable(name):
                raise DataError(f"{what} is empty: name a class, or leave it out")
        reading = await self.read(content)
        return await asyncio.to_thread(self._explained, reading, label, against, candidates)

    def _explained(
        self, reading: Reading, label: str | None, against: str | None, candidates: Candidates | None
    ) -> dict[str, Any]:
        classifier = reading.classifier
        if candidates is not None:
            classifier = self._narrowed(classifier, *_split(candidates, reading.now.names))
        explained = classifier.explain(reading.embedding, label, against)
        parts = [{**part, "phrase": phrase(part)} for part in explained["parts"]]
        return {**self._named(reading), **explained, "parts": parts}

    def _narrowed(
        self, classifier: Classifier, names: Sequence[str], described: Sequence[NewClass]
    ) -> Classifier:
        """Of which these alone are answers, whatever classes others added: only named ones of these are left."""
        others = set(classifier.labels[len(self.living.trained.labels) :]).difference(names)
        return (classifier.without(others) if others else classifier).among(names, described)

    async def embed(self, content: bytes) -> dict[str, Any]:
        """The picture as the network sees it (d,), and as classes are compared with it (m,); not logged."""
        reading = await self.read(content)
        return {
            **self._named(reading),
            "embedding": reading.embedding.tolist(),
            "projection": reading.projection.tolist(),
        }

    def _named(self, reading: Reading) -> dict[str, Any]:
        return {"id": name_answer(self.served.version, reading.digest), "model": self.model}

    def _log(self, id: str, reading: Reading, answer: dict[str, Any]) -> None:
        if self.log is None or not self.served.settings.predictions:
            return
        scores = [each["score"] for each in answer["alternatives"]]
        self.log.add_prediction(
            answer=id,
            label=answer["label"],
            seen=answer["seen"],
            known=answer["known"],
            confidence=answer["confidence"],
            margin=scores[0] - scores[1] if len(scores) > 1 else 0.0,
            vector=reading.projection,
            picture_id=reading.digest,
            model_version=self.served.version,
        )

    # ---- classes ----

    def listed_classes(self) -> dict[str, Any]:
        """All that are classes now, and the run-time classes that are none, for GET /classes; raises StoreError."""
        now, trained = self.living.fresh(), len(self.living.trained.labels)
        created = {each.name: each.created for each in now.classes}
        listed: list[dict[str, Any]] = []
        for number, (name, seen) in enumerate(zip(now.classifier.labels, now.classifier.seen, strict=True)):
            since = created.get(name) if number >= trained else None
            listed.append(
                {
                    "name": name,
                    "seen": bool(seen),
                    "origin": "trained" if number < trained else "run-time",
                    "created": since and since.isoformat(),
                }
            )
        refused = [
            {"name": each.name, "reason": reason, "created": each.created and each.created.isoformat()}
            for each, reason in now.refused
        ]
        return {"revision": now.revision, "classes": listed, "refused": refused}

    def listed_class(self, name: str) -> dict[str, Any]:
        """One class and what is known of it, for GET /classes/NAME; raises NotKept, with near names."""
        now = self.living.fresh()
        if trained := self.living.trained_name(name):
            return self._trained(trained)
        kept = next((each for each in now.classes if comparable(each.name) == comparable(name)), None)
        if kept is None:
            near = now.classifier.near(name)
            spelled = f" (near: {', '.join(near)})" if near else ""
            raise NotKept(
                f"there is no class {shown(name)}{spelled}: GET /classes says which there are", {name: near}
            )
        return {
            "name": kept.name,
            "seen": False,
            "origin": "run-time",
            "created": kept.created and kept.created.isoformat(),
            **_content(kept.content()),
            "refused": next((reason for each, reason in now.refused if each == kept), None),
        }

    def _trained(self, name: str) -> dict[str, Any]:
        classifier = self.living.trained
        row = classifier.labels.index(name)
        table = classifier.space.table([row])
        (told,) = table.frame.to_dict("records")
        attributes = {
            column: float(value)
            for matrix in table.matrices.values()
            for column, value in matrix.iloc[0].items()
            if math.isfinite(value)
        }
        return {
            "name": name,
            "seen": bool(classifier.seen[row]),
            "origin": "trained",
            "created": None,
            "description": told["description"],
            "synonyms": list(told["synonyms"]),
            "attributes": attributes or None,
            "vector": False,
            "refused": None,
        }

    def listed_changes(self, after: int) -> dict[str, Any]:
        """The changes of the run-time classes since a revision, for GET /changes; raises StoreError."""
        found = self.store.changes(after, CHANGES + 1)
        listed = [
            {
                "revision": each.revision,
                "time": each.time.isoformat(),
                "caller": each.caller,
                "action": each.action,
                "name": each.name,
                **_content(each.content),
            }
            for each in found[:CHANGES]
        ]
        return {"changes": listed, "more": len(found) > CHANGES}

    def added(self, new: RuntimeClass) -> dict[str, Any]:
        """Keep a class, for POST /classes; raises what `add` does."""
        return _told(new, self.add(new))

    def put(self, new: RuntimeClass) -> tuple[dict[str, Any], bool]:
        """Keep a class in the place of the run-time class of its name, for PUT /classes/NAME, and whether there was
        none; raises what `add` does for any other name."""
        now, replaced = self._keep(new, instead=True)
        return _told(new, now), not replaced

    def add(self, new: RuntimeClass) -> Now:
        """Keep a class, after it was seen that the classifier can take it.

        Raises Conflict, TakenName and CoincidentClasses; UnknownWords, IncompleteClass and other ClassSpaceErrors
        where there is too little to tell it by; StoreFull.
        """
        return self._keep(new, instead=False)[0]

    def _keep(self, new: RuntimeClass, *, instead: bool) -> tuple[Now, bool]:
        """Also says whether a class of that name was there."""
        if trained := self.living.trained_name(new.name):
            raise Conflict(f"{trained} is a class that was trained: choose another name")
        while True:
            before = self.living.fresh()
            there = before.names.get(comparable(new.name))
            if there and not instead:
                raise there_already(there)
            _check_synonyms(new, before)
            others = before.classifier.without([there]) if there else before.classifier
            others.with_classes([described(new)])
            try:
                self.store.add(new, after=before.revision, instead=instead)
            except Outdated:
                continue  # another class came first, and may be like this one
            replaced = any(comparable(each.name) == comparable(new.name) for each in before.classes)
            return self.living.fresh(), replaced

    def remove(self, name: str, caller: str) -> Now:
        """Forget a run-time class; raises NotKept, and Conflict for a class that was trained."""
        try:
            self.store.remove(name, caller)
        except NotKept:
            if trained := self.living.trained_name(name):
                raise Conflict(f"{trained} was trained: only run-time classes can be removed") from None
            raise
        return self.living.fresh()

    async def give_feedback(
        self, answer: str, label: str, caller: str, picture: bytes | None
    ) -> tuple[dict[str, Any], bool]:
        """Keep feedback, for POST /feedback, and whether it is new; raises DataError and StoreFull, and what `read`
        does for the picture."""
        version, digest = answered(answer)
        if picture is not None:
            await asyncio.to_thread(check_picture, picture, answer, digest)
            await self._decoders(picture)
        return await asyncio.to_thread(self._kept, answer, label, caller, picture, digest, version)

    def _kept(self, answer: str, label: str, *other: Any) -> tuple[dict[str, Any], bool]:
        given = self.store.give(answer, label, *other)
        said = {"feedback": given.id, "status": "pending", "picture": given.picture}
        now = self.living.latest()
        if comparable(label) not in now.names:
            said["near"] = now.classifier.near(label)
        return said, given.new

    # ---- the model ----

    def listed_samples(self, use: Use | None, labels: Sequence[str] | None) -> list[dict[str, Any]]:
        """The pictures that came with the model, for GET /samples."""
        classifier = self.living.trained
        seen = dict(zip(classifier.labels, classifier.seen.tolist(), strict=True))
        return [
            {
                "id": sample.id,
                "use": sample.use,
                "label": sample.label,
                "seen": seen.get(sample.label, False),
                "width": sample.width,
                "height": sample.height,
            }
            for sample in self.samples.chosen(use, labels)
        ]

    def sample(self, id: str) -> Sample:
        """Raises NotKept where none has the id."""
        if id not in self.samples.by_id:
            raise NotKept(f"there is no sample {id[:40]}: GET /samples says which there are")
        return self.samples.by_id[id]

    def card(self) -> bytes:
        """The model card as HTML; raises NotKept where the Bento was packed without one."""
        if self.served.card is None:
            raise NotKept("this model was packed without a card: `ayeaye promote VERSION` packs it with one")
        return self.served.card

    def about(self) -> dict[str, Any]:
        """What is being served, for GET /model."""
        classifier = self.living.trained
        now = self.living.latest()
        seen = int(classifier.seen.sum())
        run_time = len(now.classifier.labels) - len(classifier.labels)
        return {
            **self.model,
            "bundle_digest": self.digest,
            "data_digest": self.served.data_digest,
            "metrics": _finite(self.served.metrics),
            "classes": {"seen": seen, "unseen": len(classifier.labels) - seen},
            "run_time_classes": run_time,
            "thresholds": {
                "known": now.classifier.lowest,
                "seen_offset": classifier.gamma,
                "temperature": classifier.temperature,
            },
            "backbone": self._backbone(),
            "limits": {
                key: getattr(self.served.settings, key)
                for key in ("max_bytes", "max_pixels", "max_batch", "max_batch_bytes", "decode_seconds")
            },
            "card": self.served.card is not None,
            "code": self.served.code,
        }

    def _backbone(self) -> dict[str, Any] | None:
        backbone = self.living.trained.backbone
        if backbone is None:
            return None
        licence = self.served.settings.weights_licence
        return {
            "name": backbone.name,
            "weights": backbone.origin,
            "width": backbone.width,
            "licence": licence or ("of the pictures it was trained on" if backbone.trained_here else None),
            "engine": str(backbone.engine),
            "running": str(backbone.running),
            "fallback": backbone.fallback,
        }


def check_top(top: int, most: int, what: str = "classes") -> None:
    """Raises DataError unless as many alternatives can be given."""
    if not 1 <= top <= most:
        raise DataError(f"top is {top}: there are {most} {what}, ask for 1 to {most} alternatives")


def _check_synonyms(new: RuntimeClass, now: Now) -> None:
    """Raises Conflict for one that is the name of another class: an answer of that name would mean two."""
    for synonym in new.synonyms:
        there = now.names.get(comparable(synonym))
        if there and comparable(there) != comparable(new.name):
            raise Conflict(f"{synonym}, a synonym of {new.name}, is the name of a class: leave it out")


def _told(new: RuntimeClass, now: Now) -> dict[str, Any]:
    unknown, space = {}, now.classifier.space
    if new.name in space.names:
        unknown = space.unknown_words(new.name) | space.unknown_attributes(described(new))
    return {"name": new.name, "revision": now.revision, "unknown": unknown}


def _content(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of a class, but for the numbers of a vector."""
    return {**kept, "vector": kept["vector"] is not None}


def _split(candidates: Candidates, known: dict[str, str]) -> tuple[list[str], list[NewClass]]:
    """The classes that candidates name, and those that they describe: a text that names none is its own description.

    What is said of a candidate stands for this request, also where a class has its name.
    """
    keys, names, described = set[str](), list[str](), list[NewClass]()
    for each in candidates:
        name = each if isinstance(each, str) else each.name
        key = comparable(name)
        if key in keys:
            raise DataError(f"{name} is among the candidates twice: name each once")
        keys.add(key)
        if key in known and each in (name, NewClass(name)):
            names.append(known[key])
        else:
            described.append(NewClass(each, description=each) if isinstance(each, str) else each)
    return names, described


def _left_out(space: ClassSpace, described: Sequence[NewClass]) -> list[str]:
    """The words and attributes of classes, the last ones of a space, that their vectors were made without."""
    found: dict[str, None] = {}
    own = space.coverage[len(space.coverage) - len(described) :]
    for new, coverage in zip(described, own, strict=True):
        found |= dict.fromkeys(word for part in coverage["parts"] for word in part["missing"])
        found |= dict.fromkeys(strange_attributes(new, space.encoder.columns))
    return list(found)


def _finite(value: Any) -> Any:
    """With None for NaN and infinity, which JSON does not know, however deep they are."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
