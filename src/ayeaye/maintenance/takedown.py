"""A takedown: pictures removed from everything that this workspace keeps of them, and what was made with them named.

Gone are the picture in the dataset, its row in embeddings, the file among accepted feedback, and every object of
DVC's cache and of the remote that holds or shows it, of whatever dataset of the workspace's history. What was
released goes on: the versions that learned from it, or show a small copy of it, are listed. A store that others may
use is left alone, and what it still holds is listed, too: marked as this workspace's own, the same call completes it.

Nothing is remembered between calls. What is left to do is found anew in the history, and the shards, by which it is
found, go last: killed anywhere, the same call completes it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError, DataGone, PictureError
from ayeaye.core.paths import inside
from ayeaye.core.workspace import Workspace
from ayeaye.data import removal, repeats, samples
from ayeaye.data.decode import ANY, decode
from ayeaye.data.table import MANIFEST, Dataset, content_at, read_frame, shard_ids
from ayeaye.packaging.bento import BentoStore
from ayeaye.release.compare import SHOWN
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.reporting import report
from ayeaye.versioning import commits, dvc, git, layout, stores
from ayeaye.versioning.stores import Objects

Say = Callable[[str], None]
_ALIKE = 3.0  # mean difference of two small pictures, of 255, that may come from another encoder
_JPEG = re.compile(rb"data:image/jpeg;base64,([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class Left:
    """What is not removed from a place that others may use: what each thing in it is, and what to do."""

    where: str
    things: dict[str, str]
    mend: str


@dataclass
class Plan:
    """What is to be removed.

    `pictures` are rows of the current manifest; `objects` are digests of DVC's with what they are, in the order in
    which they go; `shards` are names of shards of any time that hold one of the pictures, `datasets` the digests
    that these belong to; `files` lie in the workspace beside the dataset; `versions` were made with a picture;
    `left` is what lies where others may need it.
    """

    ids: list[str]
    pictures: list[dict[str, Any]] = field(default_factory=list)
    shards: set[str] = field(default_factory=set)
    datasets: list[str] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def as_dict(self, root: Path) -> dict[str, Any]:
        return {
            "removed": self.ids,
            "pictures": self.pictures,
            "shards": sorted(self.shards),
            "datasets": self.datasets,
            "objects": self.objects,
            "files": [str(path.relative_to(root)) for path in self.files],
            "versions": self.versions,
            "left": [asdict(each) for each in self.left],
        }


def remove(
    workspace: Workspace,
    given: Sequence[str],
    *,
    reason: str = "",
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Remove pictures by their ids, or the first digits of these; the caller holds the workspace.

    Raises DataError for what is no id, and RemoteError where the remote cannot be reached: what is here is
    removed then, or nothing is, and the next call completes it.
    """
    dvc.require(workspace)
    layout.clear_remains(workspace)
    with stores.objects(workspace) as objects:
        plan = survey(workspace, objects, given)
    result = {**plan.as_dict(workspace.root), "reason": reason, "dry_run": dry_run}
    if dry_run:
        return {**result, "short": []}
    # First, so that no retraining takes them in again, whatever becomes of this call.
    removal.note(workspace.removed, plan.ids)
    caches = [path for path in _caches(workspace) if inside(path, workspace.root)]
    if (workspace.dataset / "manifest.parquet").is_file():
        plan.shards |= set(removal.take_out(workspace.dataset, set(plan.ids), caches))
    for cache in caches:  # of earlier datasets
        for shard in plan.shards:
            (cache / f"{shard}.npy").unlink(missing_ok=True)
    for path in plan.files:
        path.unlink(missing_ok=True)
    say("Recording the dataset as it is now.")
    _track(workspace, plan.ids, reason)
    say("Purging DVC's cache and the remote.")
    with stores.objects(workspace) as objects:
        purged = {
            store: sum(objects.remove(store, digest) for digest in plan.objects)
            for store in objects.stores
            if store not in objects.shared
        }
    return {**result, "purged": purged, "short": _short(workspace)}


def _track(workspace: Workspace, ids: Sequence[str], reason: str) -> None:
    tracked = (workspace.root / dvc.DATASET).is_file()
    if tracked:
        dvc.add_dataset(workspace)
    message = f"Remove {len(ids)} picture{'s' if len(ids) > 1 else ''} for good"
    paths = [dvc.DATASET, "data/.gitignore", str(workspace.removed.relative_to(workspace.root))]
    git.commit(workspace, f"{message}\n\n{reason}".strip(), paths)
    if tracked:
        dvc.push_dataset(workspace)


def _short(workspace: Workspace) -> list[str]:
    """Seen classes that have too few pictures left to be trained on."""
    if not (workspace.dataset / "manifest.parquet").is_file():
        return []
    dataset = Dataset.load(workspace.dataset)
    left = Counter(dataset.manifest["label"])
    return [name for name in dataset.classes.frame["name"][dataset.classes.seen] if left[name] < 2]


# What there is of them


def survey(workspace: Workspace, objects: Objects, given: Sequence[str]) -> Plan:
    """Look for pictures everywhere; changes nothing."""
    here, manifest = _here(workspace)
    kept = _shards(workspace, objects)
    accepted = {Path(path).name: path for path in workspace.feedback.glob("*/*")}
    known = {*accepted, *removal.read(workspace.removed)}.union(*here.values(), *(each.ids for each in kept))
    asked = {removal.resolve(each, known) for each in given}
    labels = set(manifest["label"]).union(*_labels(workspace, objects))
    # A copy has another id than its picture, which is the digest of what both hold.
    held = filter(None, _contents(workspace, objects, here, kept, asked))
    asked |= {hashlib.sha256(content).hexdigest() for content in held}
    asked |= {id for id in removal.read(workspace.removed) if asked & repeats.copies_of([id], labels)}
    ids = sorted(asked | (known & repeats.copies_of(asked, labels)))
    wanted = set(ids)
    plan = Plan(ids)
    rows = manifest[manifest["id"].isin(ids)]
    columns = ["id", "label", "split", "source"]
    plan.pictures = [dict(zip(columns, row, strict=True)) for row in rows[columns].itertuples(index=False)]
    holding = [each for each in kept if wanted.intersection(each.ids)]
    plan.shards = {each.name for each in holding} | {name for name in here if wanted.intersection(here[name])}
    plan.datasets = sorted({digest for each in holding for digest in each.datasets})
    likeness = Likeness(_contents(workspace, objects, here, holding, wanted))
    plan.objects = dict(_derived(workspace, objects, plan.shards, likeness))
    plan.objects |= {each.digest: f"shard {each.name}" for each in holding}
    plan.files = [path for id, path in accepted.items() if id in wanted]
    plan.files += _lying_about(workspace, plan.shards, likeness)
    plan.files += BentoStore(workspace.bentos).golden_with(wanted)
    plan.versions = _versions(workspace, wanted, likeness)
    plan.left = list(_left(workspace, objects, plan))
    plan.files = [path for path in plan.files if inside(path.parent, workspace.root)]
    return plan


def _caches(workspace: Workspace) -> list[Path]:
    return [path for path in sorted((workspace.state / "embeddings").glob("*")) if path.is_dir()]


def _left(workspace: Workspace, objects: Objects, plan: Plan) -> Iterator[Left]:
    for store, where in objects.shared.items():
        things = {digest: what for digest, what in plan.objects.items() if objects.has(store, digest)}
        if things:
            yield Left(where, things, objects.left_alone(store))
    cached = [cache / f"{shard}.npy" for cache in _caches(workspace) for shard in sorted(plan.shards)]
    # A link to a file is ours, whatever is behind it.
    files = [
        path for path in (*plan.files, *cached) if path.is_file() and not inside(path.parent, workspace.root)
    ]
    for folder in sorted({path.parent for path in files}):
        things = {path.name: str(path.resolve()) for path in files if path.parent == folder}
        mend = f"{folder} leads out of the workspace, where others may need what it holds: remove it there yourself"
        yield Left(str(folder.resolve()), things, mend)


@dataclass(frozen=True)
class _Shard:
    """A shard that DVC keeps: its digest there, its name, the ids it holds, and the datasets it is of."""

    digest: str
    name: str
    ids: list[str]
    datasets: list[str]


def _here(workspace: Workspace) -> tuple[dict[str, list[str]], pd.DataFrame]:
    """The ids in each shard that lies in the workspace, and the manifest."""
    if not (workspace.dataset / "manifest.parquet").is_file():
        if (workspace.root / dvc.DATASET).is_file():
            raise DataError(f"{workspace.dataset} is not there: run `dvc checkout data/dataset`")
        return {}, pd.DataFrame(columns=list(MANIFEST))
    shards = {path.stem: shard_ids(path) for path in (workspace.dataset / "shards").glob("*.parquet")}
    return shards, read_frame(workspace.dataset / "manifest.parquet", MANIFEST)


def _shards(workspace: Workspace, objects: Objects) -> list[_Shard]:
    """Every shard of every dataset of the history that is still kept anywhere."""
    found: dict[str, _Shard] = {}
    for dataset in commits.datasets(workspace):
        with suppress(DataGone):
            for path, digest in objects.listing(dataset).items():
                if digest in found:
                    found[digest].datasets.append(dataset)
                elif path.startswith("shards/"):
                    with suppress(DataGone), objects.open(digest) as file:
                        ids = pq.ParquetFile(file).read(columns=["id"])["id"].to_pylist()
                        found[digest] = _Shard(digest, Path(path).stem, ids, [dataset])
    return list(found.values())


def _labels(workspace: Workspace, objects: Objects) -> Iterator[set[str]]:
    """The classes of every dataset of the history that is still kept anywhere."""
    for dataset in commits.datasets(workspace):
        with suppress(DataGone, KeyError), objects.open(objects.listing(dataset)["manifest.parquet"]) as file:
            yield set(pq.ParquetFile(file).read(columns=["label"])["label"].to_pylist())


def _contents(
    workspace: Workspace,
    objects: Objects,
    here: dict[str, list[str]],
    holding: Sequence[_Shard],
    wanted: set[str],
) -> Iterator[bytes]:
    """The bytes of each picture, wherever one of its shards is."""
    missing = set(wanted)
    for name, ids in here.items():
        for id in missing.intersection(ids):
            with (workspace.dataset / "shards" / f"{name}.parquet").open("rb") as file:
                yield content_at(pq.ParquetFile(file), ids.index(id)) or b""
            missing.discard(id)
    for shard in holding:
        for id in missing.intersection(shard.ids):
            with objects.open(shard.digest) as file:
                yield content_at(pq.ParquetFile(file), shard.ids.index(id)) or b""
            missing.discard(id)


def _derived(
    workspace: Workspace, objects: Objects, shards: Collection[str], likeness: Likeness
) -> Iterator[tuple[str, str]]:
    """Objects that stages made of the pictures: embeddings of their shards, and small copies."""
    for path, digests in commits.outputs(workspace).items():
        for digest in digests:
            with suppress(DataGone):
                if path == "reports/index.html":
                    if likeness.in_page(objects.read(digest)):
                        yield digest, f"{path} with a small copy"
                    continue
                if not digest.endswith(".dir"):
                    continue
                files = objects.listing(digest)
                if path == "data/embeddings":
                    yield from (
                        (files[f"{shard}.npy"], f"embeddings of shard {shard}")
                        for shard in shards
                        if f"{shard}.npy" in files
                    )
                elif samples.FILE in files and likeness.in_samples(objects.read(files[samples.FILE])):
                    yield files[samples.FILE], f"{path}/{samples.FILE} with a small copy"


def _lying_about(workspace: Workspace, shards: Collection[str], likeness: Likeness) -> list[Path]:
    """Outputs of stages in the workspace; the next retraining makes them anew, as the dataset has changed."""
    found = [path for shard in shards if (path := workspace.embeddings / f"{shard}.npy").is_file()]
    bundled, page = workspace.classifier / samples.FILE, workspace.reports / "index.html"
    if bundled.is_file() and likeness.in_samples(bundled.read_bytes()):
        found.append(bundled)
    if page.is_file() and likeness.in_page(page.read_bytes()):
        found.append(page)
    return found


def _versions(workspace: Workspace, wanted: set[str], likeness: Likeness) -> list[dict[str, Any]]:
    """Registered versions that were made with one of the pictures, the newest first."""
    registry, record = registry_of(workspace), record_of(workspace)
    state = record.state()
    found = []
    for version in registry.versions():
        manifest = registry.artifact(version, "manifest.parquet")
        if manifest is None:
            continue
        rows = pd.read_parquet(manifest, columns=["id", "split"])
        rows = rows[rows["id"].isin(list(wanted))]
        if rows.empty:
            continue
        bundled = registry.artifact(version, f"model/bundle/{samples.FILE}")
        page = registry.artifact(version, "index.html")
        number = version.number
        found.append(
            {
                "version": number,
                "is": {state.champion: "champion", state.previous: "previous"}.get(number, ""),
                "learned": int(rows["split"].isin(SHOWN).sum()),
                "tested": int((~rows["split"].isin(SHOWN)).sum()),
                "shown_by_service": bool(bundled and likeness.in_samples(bundled.read_bytes())),
                "shown_in_report": bool(page and likeness.in_page(page.read_bytes())),
                "bento": record.bento(number),
            }
        )
    return found


class Likeness:
    """Whether a small JPEG, as bundles and reports hold them, is of one of some pictures, whoever encoded it."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        self._small = [_pixels(jpeg) for content in contents for jpeg in _reduced(content)]

    def of(self, jpeg: bytes) -> bool:
        try:
            pixels = _pixels(jpeg)
        except PictureError:
            return False
        return any(
            pixels.shape == small.shape and float(np.abs(pixels - small).mean()) <= _ALIKE
            for small in self._small
        )

    def in_samples(self, content: bytes) -> bool:
        """Of a bundle's samples.parquet."""
        return any(self.of(jpeg) for jpeg in _column(content, "jpeg"))

    def in_page(self, content: bytes) -> bool:
        """Of an HTML page."""
        return any(self.of(jpeg) for jpeg in _embedded(content))


def _reduced(content: bytes) -> Iterator[bytes]:
    """A picture in every form in which it may lie outside of the dataset; a row of features has none."""
    try:
        small = [samples.Sample.of(use, "", content).jpeg for use in get_args(samples.Use)]
        yield from small
        yield from _embedded(report.thumbnail(decode(content, ANY, target=168)).encode())
    except PictureError:
        return


def _embedded(page: bytes) -> Iterator[bytes]:
    for found in _JPEG.finditer(page):
        try:
            yield base64.b64decode(found[1], validate=True)
        except binascii.Error:
            continue


def _column(content: bytes, name: str) -> list[bytes]:
    return pq.read_table(io.BytesIO(content), columns=[name])[name].to_pylist()


def _pixels(jpeg: bytes) -> np.ndarray:
    """(h, w, 3) float."""
    return np.asarray(decode(jpeg, ANY), dtype=np.float32)
