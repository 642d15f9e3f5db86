"""Small pictures that travel with a classifier: a few of each seen class to be shown, some whole ones to be tried."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ayeaye.core.errors import BundleError
from ayeaye.core.files import replacing
from ayeaye.core.unicode_checks import comparable
from ayeaye.data.decode import ANY, decode
from ayeaye.data.splits import TEST_SEEN, TEST_UNSEEN, TRAIN
from ayeaye.data.table import Dataset

Use = Literal["class", "try"]
THUMBNAIL, WHOLE = 128, 640  # longest sides in pixels
TO_TRY = 8
MOST_BYTES = 16_000_000  # of all thumbnails together
FILE = "samples.parquet"
SCHEMA = pa.schema(
    [
        ("use", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("jpeg", pa.binary()),
        ("image", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """A JPEG of a class, to stand for the class or to be tried; `image` is the id of what it was made from.

    `id` is the first 16 digits of its own SHA-256.
    """

    use: Use
    label: str
    width: int
    height: int
    jpeg: bytes
    image: str = ""

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(self.jpeg).hexdigest()[:16]

    @classmethod
    def of(cls, use: Use, label: str, content: bytes, image: str = "") -> Sample:
        """From an encoded picture, made smaller where it is larger, without what else its file told."""
        side = WHOLE if use == "try" else THUMBNAIL
        picture = decode(content, ANY, target=side)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        # One that is tried should be answered as the original would be.
        quality = {"quality": 95, "subsampling": 0} if use == "try" else {"quality": 80}
        picture.save(file, "JPEG", optimize=True, **quality)
        return cls(use, label, *picture.size, file.getvalue(), image)


@dataclass(frozen=True)
class Samples:
    """All samples of a bundle, in the order in which they are shown."""

    all: Sequence[Sample] = ()
    by_id: dict[str, Sample] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {sample.id: sample for sample in self.all})

    def chosen(self, use: Use | None = None, labels: Iterable[str] | None = None) -> list[Sample]:
        """Those of a use and of some classes; none given: all."""
        wanted = None if labels is None else set(map(comparable, labels))
        return [
            sample
            for sample in self.all
            if use in (None, sample.use) and (wanted is None or comparable(sample.label) in wanted)
        ]

    def save(self, folder: Path) -> None:
        """Write FILE into a bundle's folder, where there are any."""
        if not self.all:
            return
        columns = {name: [getattr(sample, name) for sample in self.all] for name in SCHEMA.names}
        with replacing(folder / FILE) as part:
            # JPEGs do not become smaller.
            pq.write_table(pa.table(columns, SCHEMA), part, compression="none", use_dictionary=False)

    @classmethod
    def load(cls, folder: Path) -> Samples:
        """Of a bundle; none where it was made without. Raises BundleError where the file is damaged."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        try:
            samples = [Sample(**row) for row in pq.read_table(path, schema=SCHEMA).to_pylist()]
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise BundleError(f"{path} is damaged ({error}): restore it with `dvc checkout`") from None
        if strange := {sample.use for sample in samples} - set(get_args(Use)):
            raise BundleError(f"{path} has samples for {', '.join(sorted(strange))}: train again")
        return cls(samples)


def choose(dataset: Dataset, each: int, most_bytes: int = MOST_BYTES) -> Samples:
    """`each` training pictures of every seen class as thumbnails, and pictures that were held out to be tried.

    Always the same of the same dataset: pictures in the order of their ids, which are digests. Where the thumbnails
    would be more than `most_bytes`, classes have fewer. None of a dataset of features, or where `each` is 0.
    """
    if dataset.kind != "images" or not each:
        return Samples()
    samples = [Sample.of("try", label, dataset.picture(id), id) for id, label in _to_try(dataset)]
    for id, label in _thumbnails(dataset, each):
        sample = Sample.of("class", label, dataset.picture(id), id)
        if (most_bytes := most_bytes - len(sample.jpeg)) < 0:
            break
        samples.append(sample)
    return Samples(samples)


def _thumbnails(dataset: Dataset, each: int) -> list[tuple[str, str]]:
    """Ids and labels: the first picture of every class, then the second ones, and so on."""
    frame = dataset.manifest[dataset.manifest["split"] == TRAIN].sort_values("id")
    turn = frame.groupby("label").cumcount()
    frame = frame.assign(turn=turn)[turn < each].sort_values(["turn", "label"])
    return list(zip(frame["id"], frame["label"], strict=True))


def _to_try(dataset: Dataset) -> list[tuple[str, str]]:
    """Ids and labels of up to TO_TRY pictures that were held out, each of another class: first of unseen ones."""
    firsts = dataset.manifest.sort_values(["label", "id"]).drop_duplicates(["split", "label"])
    unseen = _spread(firsts[firsts["split"] == TEST_UNSEEN], TO_TRY * 5 // 8)
    return [*unseen, *_spread(firsts[firsts["split"] == TEST_SEEN], TO_TRY - len(unseen))]


def _spread(frame: pd.DataFrame, most: int) -> list[tuple[str, str]]:
    """Ids and labels of at most so many rows, evenly from the first to the last."""
    rows = frame.iloc[np.linspace(0, len(frame) - 1, min(most, len(frame)), dtype=int)]
    return list(zip(rows["id"], rows["label"], strict=True))
