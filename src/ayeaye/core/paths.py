"""Paths as people write them, and as addresses of databases."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def expanded(path: Path | str) -> Path:
    """A path with `~` and `~user` expanded as a shell does: `~x` is a name where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def resolved(path: Path | str) -> Path:
    """An absolute path, with `~`, `..` and links followed; a loop of links stays as it is, which no file is behind."""
    return Path(os.path.realpath(expanded(path)))


def inside(path: Path | str, folder: Path) -> bool:
    """Whether a path lies in a folder, once links and `..` are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file for SQLAlchemy and MLflow, whatever characters its path holds.

    A plain `sqlite:////path` ends at the first `?`, and nothing in it can be quoted; SQLite's own URIs can. The
    driver is named because MLflow takes what follows a bare `sqlite:///` for a path and makes its folders.
    """
    from sqlalchemy import URL

    url = URL.create("sqlite+pysqlite", database=path.absolute().as_uri(), query={"uri": "true"})
    return url.render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file behind an address of SQLite, as above or plain; None where it names none."""
    from sqlalchemy import make_url

    database = make_url(uri).database
    if not database or database == ":memory:":
        return None
    return Path(url2pathname(urlsplit(database).path) if database.startswith("file:") else database)
