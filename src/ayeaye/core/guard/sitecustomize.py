"""Runs at the start of every Python process of ours, also of the workers it starts.

Guarded by `ayeaye.core.processes`, the process dies with its parent; where folders are hidden, `ayeaye` is not found
in them. The folders that were a person's PYTHONPATH come last in Python's path (`ayeaye.core.environment`).
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux" and "AYEAYE_GUARD_PARENT" in os.environ:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the signal was asked for.
    if os.getppid() == 1 and os.environ["AYEAYE_GUARD_PARENT"] != "1":
        os._exit(1)


class _Outside:
    def __init__(self, hidden: set[str]) -> None:
        self.hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or name != "ayeaye":
            return None
        places = [place for place in sys.path if os.path.realpath(place or ".") not in self.hidden]
        spec = importlib.machinery.PathFinder.find_spec(name, places)
        if spec is None or spec.loader is None:  # a bare folder is no package
            raise ModuleNotFoundError(f"{name} is not in the Bento", name=name)
        return spec


if _hidden := set(filter(None, os.environ.get("AYEAYE_GUARD_HIDDEN", "").split(os.pathsep))):
    sys.meta_path.insert(0, _Outside(_hidden))

sys.path += filter(None, os.environ.get("AYEAYE_LATER", "").split(os.pathsep))
