"""Where pictures and classes come from: one module per value of `prepare.source`, one interface for all.

bestiary   animals drawn here
folder     images/<class>/* and classes.csv
features   an .npz of features
xlsa17     res101.mat and att_splits.mat, the features and splits of Xian et al. (2019)
awa2       Animals with Attributes 2 as published (Xian et al., 2019)
cub        CUB-200-2011 as published (Wah et al., 2011)

Beside one of pictures come those of accepted feedback.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ayeaye.core import params
from ayeaye.core.errors import SourceError
from ayeaye.data.sources.awa2 import awa2
from ayeaye.data.sources.base import LISTED, Entry, Source, check_classes, check_counts, check_entries
from ayeaye.data.sources.cub import cub
from ayeaye.data.sources.drawn import bestiary
from ayeaye.data.sources.features import features
from ayeaye.data.sources.feedback import with_feedback
from ayeaye.data.sources.folder import folder, read_classes
from ayeaye.data.sources.xlsa17 import xlsa17

__all__ = ["LISTED", "Entry", "Source", "check_counts", "open_source", "read_classes"]

# What prepare.path names, and who reads it.
PICTURES = {
    "folder": ("folder with images/ and classes.csv", folder),
    "awa2": ("folder with JPEGImages/ and classes.txt", awa2),
    "cub": ("folder with images/ and images.txt", cub),
}
FEATURES = {
    "features": (".npz file of features", features),
    "xlsa17": ("folder with res101.mat and att_splits.mat", xlsa17),
}


def open_source(
    params: params.Prepare, resolve: Callable[[str], Path], feedback: Path | None = None
) -> Source:
    """The source that `prepare.source` names, with the pictures in the folder `feedback`.

    Raises SourceError with what is wrong with it.
    """
    source = _opened(params, resolve)
    if feedback:
        source = with_feedback(source, feedback, params.max_bytes)
    check_classes(source.classes, source.origin)
    check_entries(source)
    return source


def _opened(params: params.Prepare, resolve: Callable[[str], Path]) -> Source:
    if params.source == "bestiary":
        return bestiary(params)
    wanted = (PICTURES | FEATURES)[params.source][0]
    if not params.path:
        raise SourceError(
            f"prepare.path is not set: with prepare.source={params.source} it names the {wanted}"
        )
    path = resolve(params.path)
    if params.source in PICTURES:
        return PICTURES[params.source][1](path, params.max_bytes)
    return FEATURES[params.source][1](path)
