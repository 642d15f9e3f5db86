"""A takedown: images removed from everything that this workspace keeps of them, and what was made with them named.

Gone are the image in the dataset, its row in embeddings, the file among accepted feedback, and every object of DVC's
cache and of the remote that holds or shows it, of whatever dataset of the workspace's history. What was released goes
on: the versions that learned from it, or show a small copy of it, are listed. A store that others may use is left
alone, and what it still holds is listed, too: marked as this workspace's own, the same call completes it.

Nothing is remembered between calls. What is left to do is found anew in the history, and the shards, by which it is
found, go last: killed anywhere, the same call completes it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from ayeaye.core.errors import DataError, DataGone
from ayeaye.core.paths import inside
from ayeaye.core.workspace import Workspace
from ayeaye.data import removal, repeats, samples
from ayeaye.data.table import MANIFEST, Dataset, content_at, read_frame, shard_ids
from ayeaye.packaging.bento import BentoStore
from ayeaye.release.compare import SHOWN
from ayeaye.release.promotion import record_of, registry_of
from ayeaye.versioning import commits, dvc, git, layout, stores
from ayeaye.versioning.stores import Objects

Say = Callable[[str], None]
_IMAGES = re.compile(rb'data-image="([0-9a-f]{64})"')  # of a report's page
_COLUMNS = ["id", "label", "split", "source"]


@dataclass(frozen=True)
class Left:
    """What is not removed from a place that others may use: what each thing in it is, and what to do."""

    where: str
    things: dict[str, str]
    mend: str


@dataclass(frozen=True)
class Affected:
    """A registered version that was made with one of the images."""

    version: int
    role: str  # champion, previous or nothing
    learned: int
    tested: int
    shown_by_service: bool
    shown_in_report: bool
    bento: str | None


@dataclass
class Takedown:
    """What is, or would be, removed.

    removed    ids of the images
    pictures   their rows of the current manifest
    shards     names of shards of any time that hold one of them
    datasets   digests of the datasets that these belong to
    objects    digests of DVC's with what they are, in the order in which they go
    files      in the workspace beside the dataset
    left       what lies where others may need it
    purged     how many objects were removed, by store
    short      seen classes that have too few images left to be trained on
    """

    removed: list[str]
    pictures: list[dict[str, str]] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    versions: list[Affected] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    reason: str = ""
    dry_run: bool = True
    short: list[str] = field(default_factory=list)
    purged: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return it as `ayeaye data remove --json` prints it."""
        found = asdict(self)
        for version in found["versions"]:
            version["is"] = version.pop("role")
        return found


def remove(
    workspace: Workspace,
    given: Sequence[str],
    *,
    reason: str = "",
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> Takedown:
    """Remove images by their ids, or the first digits of these; the caller holds the workspace.

    Raises DataError for what is no id, and RemoteError where the remote cannot be reached: what is here is
    removed then, or nothing is, and the next call completes it.
    """
    dvc.require(workspace)
    layout.clear_remains(workspace)
    with stores.objects(workspace) as objects:
        taken = _Survey(workspace, objects).takedown(given)
    taken.reason, taken.dry_run = reason, dry_run
    if dry_run:
        return taken
    # First, so that no retraining takes them in again, whatever becomes of this call.
    removal.note(workspace.removed, taken.removed)
    caches = [path for path in _caches(workspace) if inside(path, workspace.root)]
    shards = set(taken.shards)
    if (workspace.dataset / "manifest.parquet").is_file():
        shards |= set(removal.take_out(workspace.dataset, set(taken.removed), caches))
        taken.shards = sorted(shards)
    for cache in caches:  # of earlier datasets
        for shard in shards:
            (cache / f"{shard}.npy").unlink(missing_ok=True)
    for name in taken.files:
        (workspace.root / name).unlink(missing_ok=True)
    say("Recording the dataset as it is now.")
    _track(workspace, taken)
    say("Purging DVC's cache and the remote.")
    with stores.objects(workspace) as objects:
        for store in objects.stores:
            if store not in objects.shared:
                taken.purged[store] = sum(objects.remove(store, digest) for digest in taken.objects)
    taken.short = _short(workspace)
    return taken


def _track(workspace: Workspace, taken: Takedown) -> None:
    tracked = (workspace.root / dvc.DATASET).is_file()
    if tracked:
        dvc.add_dataset(workspace)
    count = len(taken.removed)
    message = f"Remove {count} image{'s' if count > 1 else ''} for good\n\n{taken.reason}".strip()
    paths = [dvc.DATASET, "data/.gitignore", str(workspace.removed.relative_to(workspace.root))]
    git.commit(workspace, message, paths)
    if tracked:
        dvc.push_dataset(workspace)


def _short(workspace: Workspace) -> list[str]:
    if not (workspace.dataset / "manifest.parquet").is_file():
        return []
    dataset = Dataset.load(workspace.dataset)
    left = Counter(dataset.manifest["label"])
    return [name for name in dataset.classes.frame["name"][dataset.classes.seen] if left[name] < 2]


def _caches(workspace: Workspace) -> list[Path]:
    return [path for path in sorted((workspace.state / "embeddings").glob("*")) if path.is_dir()]


@dataclass(frozen=True)
class _Shard:
    """A shard that DVC keeps: its digest there, its name, the ids it holds, and the datasets it is of."""

    digest: str
    name: str
    ids: list[str]
    datasets: list[str]


@dataclass(frozen=True)
class _Survey:
    """Looks for images everywhere; changes nothing."""

    workspace: Workspace
    objects: Objects

    def takedown(self, given: Sequence[str]) -> Takedown:
        wanted = self._meant(given)
        manifest = self._manifest
        rows = manifest[manifest["id"].isin(list(wanted))]
        holding = [each for each in self._kept if wanted.intersection(each.ids)]
        shards = {each.name for each in holding}
        shards |= {name for name, ids in self._here.items() if wanted.intersection(ids)}
        pictures = [dict(zip(_COLUMNS, row, strict=True)) for row in rows[_COLUMNS].itertuples(index=False)]
        taken = Takedown(sorted(wanted), pictures, sorted(shards))
        taken.datasets = sorted({digest for each in holding for digest in each.datasets})
        taken.objects = dict(self._derived(shards, wanted))
        taken.objects |= {each.digest: f"shard {each.name}" for each in holding}
        taken.versions = list(self._affected(wanted))
        files = list(self._files(shards, wanted))
        taken.left = [*self._left_in_stores(taken.objects), *self._left_behind_links(files, shards)]
        root = self.workspace.root
        taken.files = [str(path.relative_to(root)) for path in files if inside(path.parent, root)]
        return taken

    @cached_property
    def _here(self) -> dict[str, list[str]]:
        """The ids in each shard that lies in the workspace."""
        return {path.stem: shard_ids(path) for path in (self.workspace.dataset / "shards").glob("*.parquet")}

    @cached_property
    def _manifest(self) -> pd.DataFrame:
        path = self.workspace.dataset / "manifest.parquet"
        if path.is_file():
            return read_frame(path, MANIFEST)
        if (self.workspace.root / dvc.DATASET).is_file():
            raise DataError(f"{self.workspace.dataset} is not there: run `dvc checkout data/dataset`")
        return pd.DataFrame(columns=list(MANIFEST))

    @cached_property
    def _kept(self) -> list[_Shard]:
        """Every shard of every dataset of the history that is still kept anywhere."""
        found: dict[str, _Shard] = {}
        for dataset in commits.datasets(self.workspace):
            with suppress(DataGone):
                for path, digest in self.objects.listing(dataset).items():
                    if digest in found:
                        found[digest].datasets.append(dataset)
                    elif path.startswith("shards/"):
                        with suppress(DataGone), self.objects.open(digest) as file:
                            ids = pq.ParquetFile(file).read(columns=["id"])["id"].to_pylist()
                            found[digest] = _Shard(digest, Path(path).stem, ids, [dataset])
        return list(found.values())

    def _meant(self, given: Sequence[str]) -> set[str]:
        """The ids that are meant, with those of each image's copies; raises DataError."""
        manifest, listed = self._manifest, removal.read(self.workspace.removed)
        known = set(listed).union(*self._here.values(), *(each.ids for each in self._kept))
        known |= {path.name for path in self.workspace.feedback.glob("*/*")}
        asked = {removal.resolve(each, known) for each in given}
        labels = set(manifest["label"]).union(*self._labels())
        # A copy has another id than its image, which is the digest of what both hold.
        asked |= {hashlib.sha256(content).hexdigest() for content in self._contents(asked)}
        asked |= {id for id in listed if asked & repeats.copies_of([id], labels)}
        return asked | (known & repeats.copies_of(asked, labels))

    def _labels(self) -> Iterator[set[str]]:
        """The classes of every dataset of the history that is still kept anywhere."""
        for dataset in commits.datasets(self.workspace):
            with suppress(DataGone, KeyError):
                manifest = self.objects.read(self.objects.listing(dataset)["manifest.parquet"])
                yield set(pq.read_table(io.BytesIO(manifest), columns=["label"])["label"].to_pylist())

    def _contents(self, wanted: set[str]) -> Iterator[bytes]:
        """The bytes of each image, wherever one of its shards is."""
        missing = set(wanted)
        for name, ids in self._here.items():
            for id in missing.intersection(ids):
                with (self.workspace.dataset / "shards" / f"{name}.parquet").open("rb") as file:
                    if content := content_at(pq.ParquetFile(file), ids.index(id)):
                        yield content
                missing.discard(id)
        for shard in self._kept:
            for id in missing.intersection(shard.ids):
                with self.objects.open(shard.digest) as file:
                    if content := content_at(pq.ParquetFile(file), shard.ids.index(id)):
                        yield content
                missing.discard(id)

    def _derived(self, shards: Collection[str], wanted: set[str]) -> Iterator[tuple[str, str]]:
        """Objects that stages made of the images: embeddings of their shards, and small copies."""
        for path, digests in commits.outputs(self.workspace).items():
            for digest in digests:
                with suppress(DataGone):
                    if path == "reports/index.html":
                        if _in_page(self.objects.read(digest), wanted):
                            yield digest, f"{path} with a small copy"
                        continue
                    files = self.objects.listing(digest) if digest.endswith(".dir") else {}
                    if path == "data/embeddings":
                        for shard in shards:
                            if f"{shard}.npy" in files:
                                yield files[f"{shard}.npy"], f"embeddings of shard {shard}"
                    elif samples.FILE in files and _in_samples(
                        self.objects.read(files[samples.FILE]), wanted
                    ):
                        yield files[samples.FILE], f"{path}/{samples.FILE} with a small copy"

    def _files(self, shards: Collection[str], wanted: set[str]) -> Iterator[Path]:
        """Accepted feedback, kept requests, and outputs of stages, which the next retraining makes anew."""
        workspace = self.workspace
        yield from (path for path in workspace.feedback.glob("*/*") if path.name in wanted)
        yield from (path for shard in shards if (path := workspace.embeddings / f"{shard}.npy").is_file())
        bundled, page = workspace.classifier / samples.FILE, workspace.reports / "index.html"
        if bundled.is_file() and _in_samples(bundled.read_bytes(), wanted):
            yield bundled
        if page.is_file() and _in_page(page.read_bytes(), wanted):
            yield page
        yield from BentoStore(workspace.bentos).golden_with(wanted)

    def _affected(self, wanted: set[str]) -> Iterator[Affected]:
        """Registered versions that were made with one of the images, the newest first."""
        registry, history = registry_of(self.workspace), record_of(self.workspace)
        state = history.state()
        for version in registry.versions():
            manifest = registry.artifact(version, "manifest.parquet")
            if manifest is None:
                continue
            rows = pd.read_parquet(manifest, columns=["id", "split"])
            learned = rows[rows["id"].isin(list(wanted))]["split"].isin(SHOWN)
            if learned.empty:
                continue
            bundled = registry.artifact(version, f"model/bundle/{samples.FILE}")
            page = registry.artifact(version, "index.html")
            yield Affected(
                version=version.number,
                role={state.champion: "champion", state.previous: "previous"}.get(version.number, ""),
                learned=int(learned.sum()),
                tested=int((~learned).sum()),
                shown_by_service=bool(bundled and _in_samples(bundled.read_bytes(), wanted)),
                shown_in_report=bool(page and _in_page(page.read_bytes(), wanted)),
                bento=history.bento(version.number),
            )

    def _left_in_stores(self, removed: dict[str, str]) -> Iterator[Left]:
        for store, where in self.objects.shared.items():
            things = {digest: what for digest, what in removed.items() if self.objects.has(store, digest)}
            if things:
                yield Left(where, things, self.objects.left_alone(store))

    def _left_behind_links(self, files: Sequence[Path], shards: Collection[str]) -> Iterator[Left]:
        cached = [cache / f"{shard}.npy" for cache in _caches(self.workspace) for shard in sorted(shards)]
        # A link to a file is ours, whatever is behind it.
        away = [each for each in (*files, *cached) if each.is_file()]
        away = [each for each in away if not inside(each.parent, self.workspace.root)]
        for folder in sorted({path.parent for path in away}):
            things = {path.name: str(path.resolve()) for path in away if path.parent == folder}
            mend = f"{folder} leads out of the workspace, where others may need what it holds: remove it there yourself"
            yield Left(str(folder.resolve()), things, mend)


def _in_samples(content: bytes, wanted: set[str]) -> bool:
    """Whether a bundle's samples show one of the images."""
    return not wanted.isdisjoint(pq.read_table(io.BytesIO(content), columns=["image"])["image"].to_pylist())


def _in_page(content: bytes, wanted: set[str]) -> bool:
    """Whether a report shows one of the images."""
    return any(id.decode() in wanted for id in _IMAGES.findall(content))
