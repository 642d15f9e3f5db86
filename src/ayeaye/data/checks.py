"""What data must be before anything is learned from it: Great Expectations suites, one per guarded place."""

from __future__ import annotations

import html
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ayeaye.core.errors import CheckFailed, DataError, listed
from ayeaye.core.files import write_atomic
from ayeaye.data.table import SPLITS, Dataset

# Part of dataset.json: when the expectations change, an unchanged dataset is checked again.
VERSION = 1
COINCIDENT = 0.9999
RESULTS = "results.json"  # beside the Data Docs of a place
PLACES = {"dataset": "Manifest and class table", "embeddings": "Embeddings", "class_space": "Class space"}


@dataclass(frozen=True)
class Rule:
    """One expectation: its type and arguments as Great Expectations names them, and what it says."""

    says: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Rules about one frame; `row_names` are the columns by which a failing row is named."""

    name: str
    frame: pd.DataFrame
    row_names: tuple[str, ...]
    rules: list[Rule]


def check_dataset(dataset: Dataset, docs: Path | None, *, shards: bool = True) -> None:
    """Manifest and class table, and that the shards hold the rows the manifest names.

    `docs` is the folder of all Data Docs (none are written for None); with `shards` off, shards are not
    looked at. Raises CheckFailed.
    """
    suites = [_class_suite(dataset), _manifest_suite(dataset)]
    if shards:
        suites.append(_shard_suite(dataset))
    _check("dataset", suites, docs)


def check_embeddings(
    ids: Sequence[str], labels: Sequence[str], X: np.ndarray, expected: int, docs: Path | None
) -> None:
    """X (n, d): as many as expected, every value finite, no picture and not all pictures constant.

    Raises CheckFailed.
    """
    finite = np.isfinite(X)
    values = np.where(finite, X, 0)
    pictures = pd.DataFrame(
        {
            "id": pd.Series(list(ids), dtype=object),
            "label": pd.Series(list(labels), dtype=object),
            "not_finite": pd.Series((~finite).sum(axis=1) if X.ndim == 2 else [], dtype="Int64"),
            "spread": pd.Series(_spread(values, axis=1) if X.ndim == 2 else [], dtype=float),
        }
    )
    rules = [
        Rule(f"there are {expected} embeddings", "ExpectTableRowCountToEqual", {"value": expected}),
        Rule("there is at least one embedding", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
        Rule("every embedding belongs to a picture", "ExpectColumnValuesToNotBeNull", {"column": "id"}),
        Rule("every picture has an embedding", "ExpectColumnValuesToNotBeNull", {"column": "spread"}),
        Rule("no picture has two embeddings", "ExpectColumnValuesToBeUnique", {"column": "id"}),
        Rule(
            "embeddings are finite", "ExpectColumnValuesToBeInSet", {"column": "not_finite", "value_set": [0]}
        ),
        Rule("no embedding is constant", "ExpectColumnValuesToBeBetween", _above("spread", 0)),
    ]
    suites = [Suite("embeddings", pictures, ("id", "label"), rules)]
    if X.ndim == 2 and len(X) > 1:
        suites.append(_dimension_suite(values))
    _check("embeddings", suites, docs)


def check_class_space(names: Sequence[str], vectors: np.ndarray, docs: Path | None) -> None:
    """Class vectors (C, k): one per class, finite, none zero, no two alike. Raises CheckFailed."""
    finite = np.isfinite(vectors)
    values = np.where(finite, vectors, 0).astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    cosine, nearest = _nearest(values, norms)
    frame = pd.DataFrame(
        {
            "class": pd.Series(list(names), dtype=object),
            "not_finite": pd.Series((~finite).sum(axis=1), dtype="Int64"),
            "norm": pd.Series(norms),
            "cosine": pd.Series(cosine),
            "nearest": pd.Series([names[i] if i < len(names) else "" for i in nearest], dtype=object),
        }
    )
    rules = [
        Rule("there is a vector for each class", "ExpectTableRowCountToEqual", {"value": len(vectors)}),
        Rule("there are at least two classes", "ExpectTableRowCountToBeBetween", {"min_value": 2}),
        Rule("every vector belongs to a class", "ExpectColumnValuesToNotBeNull", {"column": "class"}),
        Rule("every class has a vector", "ExpectColumnValuesToNotBeNull", {"column": "norm"}),
        Rule("class names are unique", "ExpectColumnValuesToBeUnique", {"column": "class"}),
        Rule(
            "class vectors are finite",
            "ExpectColumnValuesToBeInSet",
            {"column": "not_finite", "value_set": [0]},
        ),
        Rule("no class vector is zero", "ExpectColumnValuesToBeBetween", _above("norm", 1e-8)),
        Rule(
            "no two class vectors coincide",
            "ExpectColumnValuesToBeBetween",
            {"column": "cosine", "max_value": COINCIDENT},
        ),
    ]
    _check("class_space", [Suite("class space", frame, ("class", "nearest"), rules)], docs)


# ---- suites ----


def _manifest_suite(dataset: Dataset) -> Suite:
    roles = dict(zip(dataset.classes.names, dataset.classes.frame["role"], strict=True))
    frame = dataset.manifest.copy()
    frame["part"] = [
        f"{split} of {roles.get(label)}" for split, label in zip(frame["split"], frame["label"], strict=True)
    ]
    fitting = [f"{split} of seen" for split in SPLITS if split != "test_unseen"] + ["test_unseen of unseen"]
    rules = [
        Rule("there are pictures", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
        Rule("every picture has an id", "ExpectColumnValuesToNotBeNull", {"column": "id"}),
        Rule(
            "ids are SHA-256 digests",
            "ExpectColumnValuesToMatchRegex",
            {"column": "id", "regex": "^[0-9a-f]{64}$"},
        ),
        Rule("no picture occurs twice", "ExpectColumnValuesToBeUnique", {"column": "id"}),
        Rule(
            "no two pictures lie in one place",
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": ["shard", "row"]},
        ),
        Rule(
            "every label is a class",
            "ExpectColumnValuesToBeInSet",
            {"column": "label", "value_set": list(roles)},
        ),
        Rule(
            "splits are known", "ExpectColumnValuesToBeInSet", {"column": "split", "value_set": list(SPLITS)}
        ),
        Rule(
            "splits fit the role of the class",
            "ExpectColumnValuesToBeInSet",
            {"column": "part", "value_set": fitting},
        ),
        Rule("every picture has a source", "ExpectColumnValuesToNotBeNull", {"column": "source"}),
    ]
    return Suite("manifest", frame, ("source", "label"), rules)


def _class_suite(dataset: Dataset) -> Suite:
    frame = dataset.classes.frame[["name", "role", "description"]].copy()
    manifest, seen = dataset.manifest, dataset.classes.seen
    counts = manifest["label"].value_counts()
    train = manifest.loc[manifest["split"] == "train", "label"].value_counts()
    # Nothing is asked of unseen classes here, and Great Expectations passes over missing values.
    for column, numbers in (("pictures", counts), ("train_pictures", train)):
        frame[column] = frame["name"].map(numbers).fillna(0).where(seen).astype("Float64")
    frame["description"] = [" ".join(text.casefold().split()) or None for text in frame["description"]]
    for name, matrix in dataset.classes.matrices.items():
        frame[f"infinite {name}"] = np.isinf(matrix.to_numpy()).sum(axis=1)
    rules = [
        Rule("there are at least two classes", "ExpectTableRowCountToBeBetween", {"min_value": 2}),
        Rule(
            "class names are not empty",
            "ExpectColumnValueLengthsToBeBetween",
            {"column": "name", "min_value": 1},
        ),
        Rule("class names are unique", "ExpectColumnValuesToBeUnique", {"column": "name"}),
        Rule(
            "roles are seen or unseen",
            "ExpectColumnValuesToBeInSet",
            {"column": "role", "value_set": ["seen", "unseen"]},
        ),
        Rule(
            "some class is seen",
            "ExpectColumnDistinctValuesToContainSet",
            {"column": "role", "value_set": ["seen"]},
        ),
        Rule("descriptions are unique", "ExpectColumnValuesToBeUnique", {"column": "description"}),
        Rule(
            "seen classes have at least two pictures",
            "ExpectColumnValuesToBeBetween",
            {"column": "pictures", "min_value": 2},
        ),
        Rule(
            "seen classes have training pictures",
            "ExpectColumnValuesToBeBetween",
            {"column": "train_pictures", "min_value": 1},
        ),
    ]
    rules += [
        Rule(
            f"values of {name} are finite",
            "ExpectColumnValuesToBeInSet",
            {"column": f"infinite {name}", "value_set": [0]},
        )
        for name in dataset.classes.matrices
    ]
    return Suite("classes", frame, ("name",), rules)


def _shard_suite(dataset: Dataset) -> Suite:
    last = dataset.manifest.groupby("shard")["row"].max()
    frame = pd.DataFrame({"shard": list(last.index), "last_row": last.to_numpy(int)})
    frame["rows"] = [_shard_rows(dataset.shard_path(shard)) for shard in frame["shard"]]
    rules = [
        Rule("there are shards", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
        Rule(
            "shards hold every row that the manifest names",
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "rows", "column_B": "last_row"},
        ),
    ]
    return Suite("shards", frame, ("shard",), rules)


def _shard_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError):
        return 0


def _dimension_suite(values: np.ndarray) -> Suite:
    spread = _spread(values, axis=0)
    rules = [
        Rule("there are dimensions", "ExpectTableRowCountToEqual", {"value": values.shape[1]}),
        Rule("embeddings differ from picture to picture", "ExpectColumnMaxToBeBetween", _above("spread", 0)),
    ]
    return Suite(
        "dimensions",
        pd.DataFrame({"dimension": np.arange(len(spread)), "spread": spread}),
        ("dimension",),
        rules,
    )


def _above(column: str, least: float) -> dict[str, Any]:
    return {"column": column, "min_value": least, "strict_min": True}


def _spread(values: np.ndarray, axis: int) -> np.ndarray:
    """Largest minus smallest value: zero exactly where all are the same, which a deviation is not."""
    if not values.shape[axis]:
        return np.zeros(values.shape[1 - axis])
    return (values.max(axis=axis).astype(np.float64) - values.min(axis=axis)).astype(np.float64)


def _nearest(values: np.ndarray, norms: np.ndarray, chunk: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and row of each vector's nearest other; NaN beside a zero vector."""
    count = len(values)
    cosine, nearest = np.full(count, np.nan), np.zeros(count, int)
    if count < 2:
        return cosine, nearest
    unit = values / np.where(norms > 0, norms, 1)[:, None]
    for start in range(0, count, chunk):
        block = unit[start : start + chunk] @ unit.T  # (chunk, C)
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        nearest[start : start + chunk] = block.argmax(axis=1)
        cosine[start : start + chunk] = block[rows, nearest[start : start + chunk]]
    cosine[norms == 0] = np.nan
    return cosine, nearest


# ---- Great Expectations ----


def _check(place: str, suites: list[Suite], docs: Path | None) -> None:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when it is imported
    try:
        results = _validate(place, suites, docs)
    finally:
        if docs is not None:
            _write_front_page(docs)
    if docs is not None:
        _write_results(docs, place, suites, results)
    faults = [text for suite, result in zip(suites, results, strict=True) for text in _faults(suite, result)]
    if faults:
        # Of what is missing altogether, the other faults are consequences.
        faults.sort(key=lambda text: "row_count" not in text)
        where = f"; see {docs / place / 'index.html'}" if docs is not None else ""
        more = f" (and {len(faults) - 1} more expectations)" if len(faults) > 1 else ""
        raise CheckFailed(f"check of the {PLACES[place].lower()} failed: {faults[0]}{more}{where}")


def _validate(place: str, suites: list[Suite], docs: Path | None) -> list[Any]:
    """Runs the suites in a context that lives in memory, and builds their Data Docs, also of failed ones."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _drop_default_site(context)
    source = context.data_sources.add_pandas(place)
    results = []
    with _site(context, place, docs):
        for suite in suites:
            asset = source.add_dataframe_asset(suite.name)
            definition = gx.ValidationDefinition(
                name=suite.name,
                data=asset.add_batch_definition_whole_dataframe("all"),
                suite=context.suites.add(_gx_suite(suite)),
            )
            results.append(
                context.validation_definitions.add(definition).run(
                    batch_parameters={"dataframe": suite.frame},
                    result_format={
                        "result_format": "COMPLETE",
                        "unexpected_index_column_names": list(suite.row_names),
                        "return_unexpected_index_query": False,
                    },
                )
            )
    return results


def _drop_default_site(context: Any) -> None:
    """An ephemeral context makes a temporary folder for a site of its own, and leaves it behind."""
    for name, site in dict(context.variables.data_docs_sites or {}).items():
        folder = site.get("store_backend", {}).get("base_directory")
        context.delete_data_docs_site(name)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _gx_suite(suite: Suite) -> Any:
    import great_expectations as gx

    # Each suite begins with a row count: an empty frame meets every other expectation.
    expectations = [
        getattr(gx.expectations, rule.expectation)(
            **rule.arguments, notes=rule.says, meta={"says": rule.says}
        )
        for rule in suite.rules
    ]
    return gx.ExpectationSuite(name=suite.name, expectations=expectations)


@contextmanager
def _site(context: Any, place: str, docs: Path | None) -> Iterator[None]:
    """A site of Data Docs that takes the place of the last one when the block is done."""
    if docs is None:
        yield
        return
    docs.mkdir(parents=True, exist_ok=True)
    for left in docs.glob(f".{place}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f".{place}.", suffix=".tmp", dir=docs))
    folder = str(part).replace("$", r"\$")  # or it puts variables of the environment in their place
    # What it logs with a traceback it raises, too.
    logging.getLogger("great_expectations.render").setLevel(logging.CRITICAL)
    try:
        context.add_data_docs_site(
            place,
            {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder},
            },
        )
        yield
        context.build_data_docs(site_names=[place])
        # Decoration of the pages' edges, 3 MB a site.
        shutil.rmtree(part / "static" / "images", ignore_errors=True)
        part.chmod(0o755)
        shutil.rmtree(docs / place, ignore_errors=True)
        part.replace(docs / place)
    except OSError as error:
        error.filename = error.filename or str(docs / place)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _faults(suite: Suite, result: Any) -> list[str]:
    """What is not as expected, in plain words with the rows it is about."""
    if len(result.results) != len(suite.rules):
        raise DataError(
            f"only {len(result.results)} of {len(suite.rules)} expectations of {suite.name} gave a result: "
            "the installed great-expectations does not fit, install the committed constraints"
        )
    return [_fault(suite, item) for item in _in_order(suite, result.results) if not item.success]


def _in_order(suite: Suite, results: Sequence[Any]) -> list[Any]:
    order = {rule.says: position for position, rule in enumerate(suite.rules)}
    return sorted(results, key=lambda item: order[item.expectation_config.meta["says"]])


def _write_results(docs: Path, place: str, suites: list[Suite], results: list[Any]) -> None:
    rows = [
        {
            "about": suite.name,
            "expectation": item.expectation_config.meta["says"],
            "met": bool(item.success),
            "found": "" if item.success else _fault(suite, item),
        }
        for suite, result in zip(suites, results, strict=True)
        for item in _in_order(suite, result.results)
    ]
    write_atomic(docs / place / RESULTS, json.dumps(rows, indent=1, ensure_ascii=False).encode())


def results(docs: Path, place: str) -> list[dict[str, Any]]:
    """What the last check of a place found, a row per expectation; none where there was no check."""
    try:
        return list(json.loads((docs / place / RESULTS).read_bytes()))
    except FileNotFoundError:
        return []


def _fault(suite: Suite, item: Any) -> str:
    config, found = item.expectation_config, item.result
    text = f"{suite.name}: expected that {config.meta['says']} ({config.type})"
    rows = found.get("unexpected_index_list") or []
    if rows:
        names = [" / ".join(str(row.get(column)) for column in suite.row_names) for row in rows]
        return f"{text}; not so for {listed(names)}"
    if "observed_value" in found:
        return f"{text}; found {found['observed_value']}"
    errors = item.exception_info or {}
    first = errors.get("exception_message") or next(
        (value.get("exception_message") for value in errors.values() if isinstance(value, dict)), None
    )
    return f"{text}; it could not be evaluated: {first}" if first else text


def _write_front_page(docs: Path) -> None:
    """index.html of the folder: a link to the site of each place that was checked."""
    links = [
        f'<li><a href="{place}/index.html">{html.escape(title)}</a></li>'
        for place, title in PLACES.items()
        if (docs / place / "index.html").is_file()
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Data checks</title>'
        f"<h1>Data checks</h1><ul>{''.join(links)}</ul></html>\n"
    )
    write_atomic(docs / "index.html", page.encode())
