"""Digests of code: what a module does follows from its own text and from all that it imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ayeaye.core.files import digest_file

PACKAGE = Path(__file__).parents[1]


def digest_code(*modules: str) -> str:
    """SHA-256 over the files of some modules of ayeaye and of all that they import.

    The imports are followed file by file, not package by package: a change of the report's page does not train
    the mapper anew, although training reads figures from the package that draws it. Nothing has to be listed,
    so nothing can be forgotten.
    """
    return digest_files(sources(*modules))


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files of the package."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(f"{path.relative_to(PACKAGE).as_posix()}\0{digest_file(path)}\n".encode())
    return whole.hexdigest()


def sources(*modules: str) -> set[Path]:
    """The files of some modules and of all that they import, also in functions, with their page templates."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _file(waiting.pop())
        if path and path not in found:
            found |= {path, *path.parent.glob(f"templates/{path.stem}.*.j2")}
            waiting += _imported(path.read_bytes())
    return found


@cache  # the stages share most of their files
def _imported(source: bytes) -> frozenset[str]:
    """Names of modules, and of what may be one: `from ayeaye.data import checks`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update(_with_packages(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(name for alias in node.names for name in _with_packages(alias.name))
    return frozenset(names)


def _with_packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:length]) for length in range(2, len(parts) + 1))


def _file(module: str) -> Path | None:
    """Where a module of ayeaye lies; None for others, and for the top, which holds nothing but the version."""
    top, *below = module.split(".")
    if top != PACKAGE.name or not below:
        return None
    place = PACKAGE.joinpath(*below)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
