"""The bundle: backbone, mapper, class space, labelling and calibration as one thing that labels pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ayeaye.class_vectors.contrast import contrast
from ayeaye.class_vectors.new_class import NewClass
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.classifier import calibration, explanation, nearest, open_set, propagation
from ayeaye.classifier.hubs import Bank, Correction
from ayeaye.core.errors import (
    AyeayeError,
    BundleError,
    ClassSpaceError,
    DataError,
    NoSuchClass,
    PictureError,
    TakenName,
    listed,
)
from ayeaye.core.files import digest_folder, write_atomic
from ayeaye.core.unicode_checks import SHOWN_NEAR, comparable, near
from ayeaye.data.decode import DEFAULT, Limits
from ayeaye.mappers import MAPPERS, Mapper

if TYPE_CHECKING:
    from PIL import Image

    from ayeaye.backbones.backbones import Backbone

FORMAT = 3
READABLE = (1, 2, 3)  # 1 had neither hub correction nor threshold, 2 no bank for classes that come later
Part = TypeVar("Part")


@dataclass(frozen=True)
class Classifier:
    """Labels pictures by the nearest class. C classes, in the order of `space.names`."""

    space: ClassSpace
    seen: np.ndarray  # (C,) bool
    mapper: Mapper
    gamma: float  # offset taken from seen classes' scores (Chao et al. 2016)
    temperature: float  # divides scores before the softmax (Guo et al. 2017)
    backbone: Backbone | None = None
    correction: Correction = field(default_factory=Correction)  # of hub classes, its statistics frozen
    threshold: float = 0.0  # of the confidence below which a picture is of none of the classes
    about: dict[str, Any] | None = None  # how it was made: settings, folds; no times, no paths
    candidates: tuple[int, ...] | None = None  # columns that may be an answer, ascending; none given: all
    later: int = 0  # how many classes, the last ones, came after the training

    @property
    def labels(self) -> list[str]:
        return self.space.names

    def with_classes(self, classes: Sequence[NewClass]) -> Classifier:
        """A classifier with these classes after its own, as unseen ones; this one stays as it is.

        Their vectors are made by the encoder as it stands, with the centre and the vocabulary of the class table;
        all scores are as if they had been in the table from the start, unless the bundle has no hub bank (see
        `Correction.extended`). Words left out are told by `space.unknown_words`. Raises what `ClassSpace.extended`
        does.
        """
        return self._over(self.space.extended(classes))

    def reencode(self, classes: Sequence[NewClass]) -> tuple[Classifier, list[tuple[NewClass, str]]]:
        """A classifier with those of the classes that it can take, and why it cannot take the others.

        For classes that another classifier had: this one may know other words, or know a class of that name by
        its table. Of two that coincide the first is taken.
        """
        space, refused = self.space, list[tuple[NewClass, str]]()
        there = set(map(comparable, self.labels))

        def take(group: Sequence[NewClass]) -> None:
            """All at once; where one cannot be taken, each half for itself, the first one first."""
            nonlocal space
            try:
                known = [each.name for each in group if comparable(each.name) in there]
                if known:
                    raise TakenName(f"{known[0]} is now a class of the classifier itself")
                space = space.extended(group)
            except ClassSpaceError as error:
                if len(group) == 1:
                    refused.append((group[0], str(error)))
                    return
                take(group[: len(group) // 2])
                take(group[len(group) // 2 :])

        if classes:
            take(classes)
        return self._over(space), refused

    def without(self, names: Collection[str]) -> Classifier:
        """The classifier without some of the classes that came later; nothing is encoded or mapped again.

        Raises NoSuchClass for a name that none of these has.
        """
        trained = len(self.labels) - self.later
        strange = sorted(set(names).difference(self.labels[trained:]))
        if strange:
            raise NoSuchClass(f"no class {listed(strange)} that came later", {name: [] for name in strange})
        kept = [column for column, name in enumerate(self.labels) if name not in names]
        place = {column: number for number, column in enumerate(kept)}
        return self._replaced(
            self.mapped_classes[kept],
            space=self.space.take(kept),
            seen=self.seen[kept],
            correction=self.correction.take(kept),
            candidates=self.candidates
            and tuple(place[column] for column in self.candidates if column in place),
            later=len(kept) - trained,
            judged=self._judged[:, kept],
        )

    def _over(self, space: ClassSpace) -> Classifier:
        """The classifier on a space that has more classes after its own."""
        count = len(self.labels)
        vectors = space.vectors[count:]
        if not len(vectors):
            return self
        more = tuple(range(count, count + len(vectors)))
        return self._replaced(
            np.vstack([self.mapped_classes, self.mapper.map_classes(vectors)]),
            space=space,
            seen=np.concatenate([self.seen, np.zeros(len(vectors), bool)]),
            correction=self.correction.extended(vectors, ~self.seen),
            candidates=None if self.candidates is None else self.candidates + more,
            later=self.later + len(vectors),
            judged=np.hstack([self._judged, self._judgement(vectors)]),
        )

    def _replaced(self, mapped: np.ndarray, judged: np.ndarray, **changes: Any) -> Classifier:
        """The classifier with other parts, whose `mapped` classes need not be mapped again, nor be `judged`."""
        replaced = replace(self, **changes)
        vars(replaced).update(mapped_classes=mapped, _judged=judged)
        return replaced

    def among(self, names: Sequence[str], described: Sequence[NewClass] = ()) -> Classifier:
        """A classifier of which only the classes of these names and the `described` ones are answers, for one request;
        a bundle does not keep them.

        Those that are described have to differ from each other and from the named ones; of the other classes one may
        have their name, or be like them.
        Scores and confidences are those that the classes have among all. A confidence among the named ones alone
        would be 1 for a single one whatever the picture shows, and the threshold, fitted among all, would refuse
        nothing. So the trained ones stay as what else a picture may show; one that means nearly the same as a named one
        takes its share of the confidence. Raises NoSuchClass, with near names, DataError where there is nothing to
        choose among, and what `ClassSpace.extended` does.
        """
        if not names and not described:
            raise DataError("no class to choose among: name one or more")
        columns = {name: self._column(name) for name in names}
        strange = [name for name, column in columns.items() if column is None]
        if strange:
            allowed = [self.labels[column] for column in self.answerable]
            unknown = {
                name: near(name, allowed) if row < SHOWN_NEAR else [] for row, name in enumerate(strange)
            }
            alike = [close for closest in unknown.values() for close in closest]
            spelled = f" (near: {', '.join(dict.fromkeys(alike))})" if alike else ""
            raise NoSuchClass(
                f"no class {listed(strange)}{spelled}: name classes that there are, or describe new ones",
                unknown,
            )
        wider = self._over(self.space.extended(described, names)) if described else self
        named = sorted({column for column in columns.values() if column is not None})
        candidates = (*named, *range(len(self.labels), len(wider.labels)))
        narrowed = wider._replaced(wider.mapped_classes, wider._judged, candidates=candidates)
        vars(narrowed)["lowest"] = wider.lowest
        return narrowed

    def near(self, name: str) -> list[str]:
        """Up to three classes that are spelled much like a name, the most alike first."""
        return near(name, self.labels)

    def _column(self, name: str) -> int | None:
        """The column of this name, however it is written, of those that may be an answer."""
        return self._places.get(name, self._places.get(comparable(name)))

    @cached_property
    def _places(self) -> dict[str, int]:
        """The columns that may be an answer, by name and by how names are compared."""
        named = {self.labels[column]: column for column in self.answerable}
        return {comparable(name): column for name, column in named.items()} | named

    @property
    def answerable(self) -> list[int]:
        """The columns that may be an answer, ascending."""
        return list(range(len(self.labels)) if self.candidates is None else self.candidates)

    @cached_property
    def mapped_classes(self) -> np.ndarray:
        """(C, m): the classes in the common space."""
        return self.mapper.map_classes(self.space.vectors)

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embeddings (n, d) of upright RGB pictures."""
        return self._backbone.embed(images)

    @property
    def _backbone(self) -> Backbone:
        if self.backbone is None:
            raise DataError(
                "this classifier was trained on features and has no backbone: it cannot take pictures"
            )
        return self.backbone

    def raw_scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosines (n, C) of embeddings (n, d) with the classes, hubs corrected, before the offset."""
        cosines = nearest.scores(self.mapper.map_images(embeddings), self.mapped_classes)
        return self.correction.apply(cosines)

    def _scored(self, cosines: np.ndarray) -> np.ndarray:
        return calibration.stack(self.correction.apply(cosines), self.seen, self.gamma)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores (n, C) by which classes are ranked: corrected cosines less the seen offset."""
        return self.scores_of(self.mapper.map_images(embeddings))

    def scores_of(self, projections: np.ndarray) -> np.ndarray:
        """Scores (n, C) of pictures that are in the common space (n, m) already."""
        return self._scored(nearest.scores(projections, self.mapped_classes))

    def propagated(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores (n, C) of a whole batch, of which the pictures tell where the classes lie."""
        images = self.mapper.map_images(embeddings)
        return propagation.propagate(images, self.mapped_classes, self._scored, self.temperature)

    def confidences(self, scores: np.ndarray) -> np.ndarray:
        """(n, C) of scores (n, C): the share of each class among all, as if those that came later had been there."""
        return calibration.probabilities(scores, self.temperature)

    @cached_property
    def lowest(self) -> float:
        """The confidence below which a picture is of none of the classes as they are now: `threshold`, moved by what
        the classes that came later take of a share (see `open_set.moved`), where the bundle has a bank."""
        subset = self._calibration_subset
        if not self.later or not self.threshold or subset is None or subset.y is None:
            return self.threshold
        scores, trained = self._scored(self._judged), len(self.labels) - self.later
        return open_set.moved(self.threshold, scores, subset.y, trained, self.temperature)

    @property
    def _calibration_subset(self) -> Bank | None:
        """Pictures of the bank, where it knows their classes."""
        bank = self.correction.bank
        return None if bank is None or bank.y is None else bank.calibration_subset

    @cached_property
    def _judged(self) -> np.ndarray:
        """(b, C) cosines of the calibration subset with the classes."""
        return self._judgement(self.space.vectors)

    def _judgement(self, vectors: np.ndarray) -> np.ndarray:
        """(b, m) cosines of the calibration subset, which may be empty, with class vectors (m, k)."""
        return (
            np.zeros((0, len(vectors)))
            if self._calibration_subset is None
            else self._calibration_subset.cosines(vectors)
        )

    def known(self, scores: np.ndarray) -> np.ndarray:
        """(n,) bool: whether pictures with these scores (n, C) are of the best of the classes that may be an answer.

        The rate of false acceptance was fitted on trained classes; `lowest` keeps it with later ones.
        """
        best = np.array(self.answerable)[scores[:, self.answerable].argmax(axis=1)]
        return self.confidences(scores)[np.arange(len(scores)), best] >= self.lowest

    def answers(self, scores: np.ndarray, top: int = 5) -> list[dict[str, Any]]:
        """For each row of scores (n, C): label, seen, known, confidence, and the `top` best as alternatives."""
        confidences = self.confidences(scores)
        columns = np.array(self.answerable)
        # A stable sort of the negated scores: among equals the first class wins, as argmax has it.
        ranked = columns[np.argsort(-scores[:, columns], axis=1, kind="stable")[:, :top]]
        return [
            {
                "label": self.labels[order[0]],
                "seen": bool(self.seen[order[0]]),
                "known": bool(confidences[row, order[0]] >= self.lowest),
                "confidence": float(confidences[row, order[0]]),
                "alternatives": [
                    {
                        "label": self.labels[c],
                        "seen": bool(self.seen[c]),
                        "score": float(scores[row, c]),
                        "confidence": float(confidences[row, c]),
                    }
                    for c in order
                ],
            }
            for row, order in enumerate(ranked)
        ]

    def explain(
        self, embedding: np.ndarray, label: str | None = None, against: str | None = None, top: int = 5
    ) -> dict[str, Any]:
        """Why a picture with this embedding (d,) is of one class rather than of another, ready for JSON.

        `label` is the highest class unless it is given, `against` the highest other one, of those that may be an
        answer. The difference of their scores is the sum of the contributions of `parts`, strongest first, of
        `hub_correction`, which is what the bank says more of one than of the other, and of `seen_offset`. A part is
        an attribute, a word or a term in which the two differ, with its value for either; or a source as a whole,
        with None as values, where nothing in it has a name. `nearest_seen` are the `top` seen classes nearest to the
        picture in the common space, and to the label in the class space, by cosine.
        Raises NoSuchClass, with near names, and DataError where there is nothing to compare with.
        """
        image = self.mapper.map_images(np.asarray(embedding)[None])
        cosines = nearest.scores(image, self.mapped_classes)
        corrected, scores = self.correction.apply(cosines), self._scored(cosines)
        row, other = self._compared(scores[0], label, against)
        way = contrast(self.space, row, other)
        slope = self.correction.slope(cosines[0], row, other)
        found = slope * explanation.contributions(image[0], self.mapper, way)
        plain, hubs, whole = (float(each[0, row] - each[0, other]) for each in (cosines, corrected, scores))
        parts = [
            {**asdict(difference), "contribution": each}
            for difference, each in zip(way.differences, found.tolist(), strict=True)
        ]
        explained = {
            "label": self.labels[row],
            "seen": bool(self.seen[row]),
            "score": float(scores[0, row]),
            "against": self.labels[other],
            "against_seen": bool(self.seen[other]),
            "against_score": float(scores[0, other]),
            "difference": whole,
            "parts": sorted(parts, key=lambda part: -abs(part["contribution"])),
            "hub_correction": hubs - slope * plain,
            "seen_offset": whole - hubs,
            "nearest_seen": {
                "to_picture": self._nearest_seen(cosines[0], top),
                "to_label": self._nearest_seen(self.space.vectors @ self.space.vectors[row], top, but=row),
            },
        }
        return {**explained, "sentence": explanation.sentence(explained)}

    def _compared(self, scores: np.ndarray, label: str | None, against: str | None) -> tuple[int, int]:
        """Rows of two different classes: those named, else the highest of scores (C,)."""
        named = [self._row(name) for name in (label, against) if name is not None]
        ranked = sorted(self.answerable, key=lambda column: -scores[column])
        others = iter([c for c in ranked if c not in named])
        row = self._row(label) if label is not None else next(others, -1)
        other = self._row(against) if against is not None else next(others, -1)
        if -1 in (row, other) or row == other:
            raise DataError(
                f"{label or against or self.labels[0]} has nothing to be compared with: give another class"
            )
        return row, other

    def _row(self, label: str) -> int:
        column = self._column(label)
        if column is None:
            allowed = [self.labels[column] for column in self.answerable]
            alike = near(label, allowed)
            hint = f"did you mean {' or '.join(alike)}?" if alike else f"expected one of {listed(allowed)}"
            raise NoSuchClass(f"no class {label}: {hint}", {label: alike})
        return column

    def _nearest_seen(self, cosines: np.ndarray, most: int, but: int | None = None) -> list[dict[str, Any]]:
        """The seen classes of the highest cosines (C,), without one of them."""
        order = [c for c in np.argsort(-cosines, kind="stable").tolist() if self.seen[c] and c != but]
        return [{"label": self.labels[c], "cosine": float(cosines[c])} for c in order[:most]]

    def classify(
        self, contents: Sequence[bytes], limits: Limits | None = None, top: int = 5
    ) -> list[dict[str, Any] | PictureError]:
        """An answer for each encoded picture, or the reason why it cannot be read."""
        found = self.read(contents, limits)
        rows = [row for row in found if not isinstance(row, PictureError)]
        answers = iter(self.answers(self.scores(np.stack(rows)), top) if rows else ())
        return [row if isinstance(row, PictureError) else next(answers) for row in found]

    def read(
        self, contents: Sequence[bytes], limits: Limits | None = None
    ) -> list[np.ndarray | PictureError]:
        """The embedding (d,) of each encoded picture, or the reason why it cannot be read."""
        backbone = self._backbone
        prepare = backbone.transform.reader(limits or DEFAULT)
        inputs, errors = [], {}
        for number, content in enumerate(contents):
            try:
                inputs.append(prepare(content))
            except PictureError as error:
                errors[number] = error
        rows = iter(backbone.forward(np.stack(inputs)) if inputs else ())
        return [errors[number] if number in errors else next(rows) for number in range(len(contents))]

    def save(self, folder: Path) -> str:
        """Write the bundle, bundle.json last; returns its digest."""
        from safetensors.numpy import save_file

        from ayeaye.core.files import replacing

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bundle.json").unlink(missing_ok=True)
        self.space.save(folder / "class_space")
        if self.backbone:
            self.backbone.save(folder / "backbone")
        arrays = {name: np.ascontiguousarray(array) for name, array in self.mapper.state().items()}
        with replacing(folder / "mapper.safetensors") as part:
            save_file(arrays, part)
        hubs, arrays = self.correction.state()
        with replacing(folder / "hubs.safetensors") as part:
            save_file(arrays, part)
        description = {
            "format": FORMAT,
            "mapper": {"name": self.mapper.name, "settings": self.mapper.settings},
            "seen": self.seen.tolist(),
            "hubs": hubs,
            "gamma": self.gamma,
            "threshold": self.threshold,
            **({"later": self.later} if self.later else {}),
            "temperature": self.temperature,
            "backbone": self.backbone.digest if self.backbone else None,
            "about": self.about or {},
        }
        write_atomic(folder / "bundle.json", json.dumps(description, indent=1, sort_keys=True).encode())
        return digest(folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Classifier:
        """Read a bundle; raises BundleError where it is damaged or of another format."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from ayeaye.backbones import backbones

        if not (folder / "bundle.json").is_file():
            raise BundleError(f"{folder} holds no classifier: run `ayeaye train`, or `dvc checkout`")
        try:
            described = json.loads((folder / "bundle.json").read_bytes())
            if described["format"] not in READABLE:
                raise BundleError(
                    f"{folder} is a bundle of format {described['format']}, this ayeaye reads {FORMAT}: "
                    "use the ayeaye it was made with, or train again"
                )
            state = load_file(folder / "mapper.safetensors")
            made = described["mapper"]
            mapper = MAPPERS[made["name"]].from_state(made["settings"], state)
            space = _part("class space", lambda: ClassSpace.load(folder / "class_space"))
            seen = np.array(described["seen"], bool)
            if len(seen) != len(space.names):
                raise ValueError(f"{len(seen)} roles for {len(space.names)} classes")
            gamma, temperature = float(described["gamma"]), float(described["temperature"])
            correction, threshold = Correction(), 0.0
            later = int(described.get("later", 0))
            if described["format"] > 1:
                correction = _part("hub correction", lambda: _correction(folder, described["hubs"]))
                threshold = float(described["threshold"])
            if correction.kind != "none" and len(correction.statistic) != len(seen):
                raise ValueError(f"{len(correction.statistic)} hub statistics for {len(seen)} classes")
            backbone = (
                _part("backbone", lambda: backbones.load(folder / "backbone", device))
                if described["backbone"]
                else None
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise BundleError(
                f"the bundle {folder} is damaged ({error}): restore it with `dvc checkout`"
            ) from None
        if backbone and backbone.digest != described["backbone"]:
            raise BundleError(
                f"the bundle {folder} was made with another backbone than lies in it: train again"
            )
        return cls(
            space,
            seen,
            mapper,
            gamma,
            temperature,
            backbone,
            correction,
            threshold,
            described["about"],
            later=later,
        )


def digest(folder: Path) -> str:
    """The identity of a bundle: SHA-256 over its files; raises BundleError where there is none."""
    if not (folder / "bundle.json").is_file():
        raise BundleError(f"{folder} holds no classifier: run `ayeaye train`, or `dvc checkout`")
    return digest_folder(folder)


def _correction(folder: Path, described: dict[str, Any]) -> Correction:
    from safetensors.numpy import load_file

    return Correction.from_state(described, load_file(folder / "hubs.safetensors"))


def _part(name: str, load: Callable[[], Part]) -> Part:
    """A part of a bundle; its own error would say how to make it again, where the bundle is what is damaged."""
    try:
        return load()
    except AyeayeError:
        raise ValueError(f"its {name}") from None
