"""The stage `train`: settings chosen on pretend-unseen classes, a mapper fitted on all seen ones, the bundle."""

from __future__ import annotations

import shutil

import numpy as np

from ayeaye.backbones import backbones
from ayeaye.class_vectors.space import ClassSpace
from ayeaye.classifier.model import Classifier
from ayeaye.core.workspace import Workspace
from ayeaye.data import samples
from ayeaye.data.table import Dataset
from ayeaye.pipeline import examples, selection
from ayeaye.pipeline.folds import TUNING, class_folds
from ayeaye.pipeline.progress import Progress


def train(workspace: Workspace, progress: Progress) -> dict[str, object]:
    """Choose, fit and write the bundle; returns its digest and what was chosen."""
    chosen = workspace.params.train
    data = examples.load(workspace)
    folds = class_folds(data.pool, chosen.folds, chosen.repeats, chosen.seed)
    with progress.done_of("choosing settings") as report:
        choice = selection.by_params(workspace.params, data, folds, device=chosen.device, progress=report)
    # Once everything is chosen, the pictures it was chosen on are worth more as training pictures.
    learned = data.rows(*TUNING) & data.seen[data.y]
    mapper = choice.fit(data, learned, seed=chosen.seed, device=chosen.device)
    everything = np.arange(len(data.names))
    correction = choice.correct(data, data.seen, everything, seed=chosen.seed, device=chosen.device)

    has_backbone = (workspace.embeddings / "backbone.json").is_file()
    classifier = Classifier(
        space=ClassSpace.load(workspace.class_space),
        seen=data.seen,
        mapper=mapper,
        gamma=choice.gamma,
        temperature=choice.temperature,
        backbone=backbones.load(workspace.embeddings) if has_backbone else None,
        correction=correction,
        threshold=choice.threshold,
        about={
            "selection": choice.ranking,
            "corrections": choice.corrections,
            "H_regret": choice.H_regret,
            "folds": [np.flatnonzero(fold).tolist() for fold in folds],
        },
    )
    # Nothing of an earlier bundle may stay beside this one, as it would be part of the digest.
    shutil.rmtree(workspace.classifier, ignore_errors=True)
    samples.choose(Dataset.load(workspace.dataset), chosen.samples).save(workspace.classifier)
    digest = classifier.save(workspace.classifier)
    return {
        "bundle": digest,
        "mapper": choice.mapper,
        "settings": choice.settings,
        "hubs": choice.hubs,
        "gamma": choice.gamma,
    }
