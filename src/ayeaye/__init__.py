"""Zero-shot image classifiers, from photographs and words to production."""

from typing import TYPE_CHECKING, Any

from ayeaye.version import __version__

if TYPE_CHECKING:
    from ayeaye.api import Workspace, load


__all__ = ["Workspace", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: it brings numpy, and the command line starts without it."""
    if name in ("Workspace", "load"):
        from ayeaye import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
