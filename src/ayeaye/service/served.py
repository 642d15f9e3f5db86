"""What a service serves, and where it keeps what it is told.

Inside a Bento:      src/ayeaye/…   src/bundle/…   src/serve.json   src/card.html   bento.yaml
For development:     AYEAYE_BUNDLE names the bundle's folder; serve.json and card.html beside it, if they are there

What serve.json says was packed with the Bento. Where a service runs is told by its environment:

AYEAYE_STATE         folder of run-time classes, feedback and predictions; none: ayeaye/<name of the Bento> in
                     BENTOML_HOME, or else in the person's folder of state (XDG_STATE_HOME, ~/.local/state)
AYEAYE_DATABASE      address of a database instead of the SQLite file in that folder; empty: none
AYEAYE_TOKEN         the token that changes need
AYEAYE_TOKEN_FILE    a file that holds it
AYEAYE_RATE          instead of the packed `rate`; empty: unlimited
AYEAYE_PREDICTIONS   instead of the packed `predictions`: true or false
AYEAYE_WORKERS       how many processes answer; `ayeaye serve` sets it where it is not set
AYEAYE_SHADOW        set by `ayeaye serve`: the address of a challenger, and the share of pictures that go there, too
AYEAYE_SHADOW_SHARE
AYEAYE_PROXY         set by `ayeaye serve`: its proxy asks, and names the client; the value is that of
                     FORWARDED_ALLOW_IPS, for proxies before it
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ayeaye.core.code_digests import PACKAGE
from ayeaye.core.errors import BundleError, ReleaseError
from ayeaye.core.params import Serve
from ayeaye.core.paths import expanded, resolved
from ayeaye.core.processes import workers_told
from ayeaye.data.decode import Limits


@dataclass(frozen=True)
class Served:
    """`code` is "bento" only when the running ayeaye lies inside the Bento that is served."""

    bundle: Path
    state: Path
    version: int | None = None
    bento: str | None = None
    code: str = "environment"
    settings: Serve = field(default_factory=Serve)
    data_digest: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    database: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    proxy: str | None = None
    shadow: str | None = None
    shadow_share: float = 0.0

    @cached_property
    def limits(self) -> Limits:
        return Limits.of(self.settings)

    @cached_property
    def card(self) -> bytes | None:
        """The model card as HTML; None where none was packed."""
        path = self.bundle.parent / "card.html"
        return path.read_bytes() if path.is_file() else None

    @property
    def most_of_one(self) -> int:
        """How many requests of one client a worker has at work: three quarters of its share of `concurrency`."""
        return math.ceil(math.ceil(self.settings.concurrency / workers()) * 0.75)

    @classmethod
    def here(cls) -> Served:
        """From where this package lies and the environment.

        Raises BundleError when there is no bundle, ReleaseError when the token cannot be read.
        """
        root = _root()
        bento = _bento_tag(root.parent) if (root / "serve.json").is_file() else None
        bundle = _bundle()
        if not bundle.is_dir():
            raise BundleError(
                f"no bundle in {bundle}: serve a Bento, or set AYEAYE_BUNDLE to a bundle's folder"
            )
        packed = _packed()
        return cls(
            bundle=bundle,
            state=_state((bento or "ayeaye").partition(":")[0]),
            version=packed.get("version"),
            bento=bento,
            code="bento" if bento and bundle.is_relative_to(root) else "environment",
            settings=settings(),
            data_digest=packed.get("data_digest"),
            metrics=packed.get("metrics", {}),
            database=os.environ.get("AYEAYE_DATABASE") or None,
            token=_token(),
            proxy=os.environ.get("AYEAYE_PROXY"),
            shadow=os.environ.get("AYEAYE_SHADOW") or None,
            shadow_share=float(os.environ.get("AYEAYE_SHADOW_SHARE") or 0.0),
        )


def workers() -> int:
    return workers_told() or 1


def settings() -> Serve:
    """The packed settings, or the defaults where a Bento was packed without; raises BundleError for wrong ones."""
    packed = _packed()
    chosen = {key: packed[key] for key in Serve().packed if key in packed}
    if "AYEAYE_RATE" in os.environ:
        chosen["rate"] = os.environ["AYEAYE_RATE"] or None
    if given := os.environ.get("AYEAYE_PREDICTIONS"):
        chosen["predictions"] = given
    try:
        return Serve(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            f"serve.json, or a variable AYEAYE_…, is wrong in {'.'.join(map(str, first['loc']))} ({first['msg']}): "
            "mend it, or build the Bento again"
        ) from None


def _root() -> Path:
    return PACKAGE.resolve().parent


def _bundle() -> Path:
    return Path(os.environ.get("AYEAYE_BUNDLE") or _root() / "bundle").resolve()


def _state(name: str) -> Path:
    """Never in the Bento, which a new champion replaces."""
    if given := os.environ.get("AYEAYE_STATE"):
        return resolved(given)
    if home := os.environ.get("BENTOML_HOME"):
        return resolved(home) / "ayeaye" / name
    return resolved(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "ayeaye" / name


def _token() -> str | None:
    if token := os.environ.get("AYEAYE_TOKEN", "").strip():
        return token
    path = os.environ.get("AYEAYE_TOKEN_FILE")
    if not path:
        return None
    try:
        token = expanded(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"the token in {path} cannot be read ({error}): mend serve.token_file, or set AYEAYE_TOKEN"
        ) from None
    if not token:
        raise ReleaseError(f"{path} holds no token: write one into it, or take serve.token_file out")
    return token


def _packed() -> dict[str, Any]:
    path = _bundle().parent / "serve.json"
    try:
        packed = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON ({error}): build the Bento again") from None
    if not isinstance(packed, dict):
        raise BundleError(f"{path} holds no settings: build the Bento again")
    return packed


def _bento_tag(folder: Path) -> str | None:
    from ruamel.yaml import YAML

    description = folder / "bento.yaml"
    if not description.is_file():
        return None
    about = YAML(typ="safe").load(description)
    return f"{about['name']}:{about['version']}"
