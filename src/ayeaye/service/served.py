"""What a service serves: the bundle's folder, the settings beside it, and whose code is running.

Inside a Bento:      src/ayeaye/…   src/bundle/…   src/serve.json   bento.yaml
For development:     AYEAYE_BUNDLE names the bundle's folder; serve.json beside it, if it is there
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ayeaye
from ayeaye.data.decode import Limits
from ayeaye.errors import BundleError


@dataclass(frozen=True)
class Served:
    """`code` is "bento" only when the running ayeaye lies inside the Bento that is served."""

    bundle: Path
    version: int | None
    bento: str | None
    code: str
    limits: Limits = field(default_factory=lambda: Limits(20_000_000, 50_000_000))
    data_digest: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Served:
        """From where this package lies and AYEAYE_BUNDLE; raises BundleError when there is no bundle."""
        root = Path(ayeaye.__file__).resolve().parents[1]
        bento = _bento_tag(root.parent) if (root / "serve.json").is_file() else None
        bundle = Path(os.environ.get("AYEAYE_BUNDLE") or root / "bundle").resolve()
        if not bundle.is_dir():
            raise BundleError(
                f"no bundle in {bundle}: serve a Bento, or set AYEAYE_BUNDLE to a bundle's folder"
            )
        settings = _settings(bundle.parent / "serve.json")
        default = cls(bundle, None, None, "")
        return cls(
            bundle=bundle,
            version=settings.get("version"),
            bento=bento,
            code="bento" if bento and bundle.is_relative_to(root) else "environment",
            limits=Limits(
                settings.get("max_bytes", default.limits.max_bytes),
                settings.get("max_pixels", default.limits.max_pixels),
            ),
            data_digest=settings.get("data_digest"),
            metrics=settings.get("metrics", {}),
        )


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON ({error}): build the Bento again") from None
    if not isinstance(settings, dict):
        raise BundleError(f"{path} holds no settings: build the Bento again")
    return settings


def _bento_tag(folder: Path) -> str | None:
    from ruamel.yaml import YAML

    description = folder / "bento.yaml"
    if not description.is_file():
        return None
    about = YAML(typ="safe").load(description)
    return f"{about['name']}:{about['version']}"
