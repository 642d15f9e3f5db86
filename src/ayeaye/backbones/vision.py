"""torchvision, imported so that it works beside a CPU build of torch."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

# Declarations stay only as long as the library object that made them.
_declared: list[Any] = []


@functools.cache
def torchvision() -> ModuleType:
    """The torchvision module; every other module gets it from here.

    The registry's torchvision wheel is a CUDA build. Beside a CPU torch its compiled operators do not load,
    and its import fails where it registers shapes for them; declaring the two it asks for is enough for
    models, weights and transforms, which never call them.
    """
    import torch

    # Asking for the spec of torchvision._C would import torchvision first.
    package = importlib.util.find_spec("torchvision")
    folders = package.submodule_search_locations if package else None
    extensions = [path for folder in folders or [] for path in Path(folder).glob("_C*.so")]
    try:
        if not extensions:
            raise OSError("torchvision has no compiled operators")
        torch.ops.load_library(str(extensions[0]))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    import torchvision as module

    return module
