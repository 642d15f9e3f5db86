"""Where a Bento begins: packed as `ayeaye_bento`, a name that nothing else has.

BentoML takes the tag of a Bento for a module first, and what it imports then stays: an ayeaye that is installed, or
a folder of that name where one stands. Here they are forgotten, since a Bento runs the program that lies in it.
"""

import sys
from pathlib import Path

_BENTO = Path(__file__).resolve().parent


def _forget_others() -> None:
    """Of the modules of ayeaye those that are not the Bento's."""
    imported = getattr(sys.modules.get("ayeaye"), "__file__", None)
    if imported and Path(imported).resolve().is_relative_to(_BENTO):
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "ayeaye"]:
        del sys.modules[name]


_forget_others()

from ayeaye.service.service import Ayeaye  # noqa: E402

__all__ = ["Ayeaye"]
