"""The demo: a workspace of the bestiary, and what its champion says of a freshly drawn aye-aye."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.files import write_atomic
from ayeaye.core.paths import resolved
from ayeaye.core.workspace import Workspace
from ayeaye.data import bestiary
from ayeaye.packaging.bento import BentoStore, GoldenRequest
from ayeaye.packaging.smoke_test import smoke_test
from ayeaye.release import champion, show
from ayeaye.release.status import status
from ayeaye.versioning import layout

ANIMAL = "aye-aye"
FRESH = 12  # pictures drawn for the demo alone
# Of a bestiary in which one picture of an aye-aye is mostly enough; others are as fair, but not as kind to it.
SEED = 2


def lay_down(folder: Path) -> Workspace:
    """The demo's workspace, made where it is not there yet, with the default parameters but for the seed.

    Raises WorkspaceError for a workspace of other pictures.
    """
    workspace = Workspace(resolved(folder))
    fresh = not (workspace.root / "params.yaml").exists()
    layout.init(workspace, [f"prepare.seed={SEED}"] if fresh else [])
    if workspace.params.prepare.source != "bestiary":
        raise WorkspaceError(f"{folder} is a workspace of other pictures: give the demo a folder of its own")
    return workspace


def ask(workspace: Workspace) -> dict[str, Any]:
    """Ask the champion for freshly drawn aye-ayes, which lie in no split of the dataset.

    Returns the first picture's path and answer, and how many of the pictures are answered right. Raises
    SmokeTestFailed unless the Bento, which is started for it, answers the first one as the bundle does here.
    """
    prepare = workspace.params.prepare
    animals = {animal.name: animal for animal in bestiary.species(prepare.species, prepare.seed)}
    folder = workspace.state / "demo"
    paths = []
    for index in range(prepare.pictures, prepare.pictures + FRESH):
        content = io.BytesIO()
        bestiary.draw(animals[ANIMAL], index, prepare.seed).save(content, "PNG")
        paths.append(folder / f"{ANIMAL}-{index}.png")
        write_atomic(paths[-1], content.getvalue())
    picture = workspace.root / f"{ANIMAL}.png"
    write_atomic(picture, paths[0].read_bytes())
    answers = champion.classify(workspace, paths)
    tag = answers[0]["model"]["bento"]
    golden = [GoldenRequest(picture.name, picture.read_bytes(), answers[0])]
    smoke_test(BentoStore(workspace.bentos), tag, golden, repeats=1)
    return {
        "picture": picture,
        "description": animals[ANIMAL].description,
        "answer": answers[0],
        "right": sum(answer["label"] == ANIMAL for answer in answers),
        "asked": len(answers),
        "bento": tag,
    }


def report(workspace: Workspace, outcome: Mapping[str, Any], folder: Path, program: str) -> None:
    """Print the gate table, the champion, its answer for an aye-aye, and how to serve it."""
    show.outcome(outcome)
    state = status(workspace)
    show.status({**state, "candidates": []})
    if state["champion"] is None:
        return
    asked = ask(workspace)
    picture = os.path.relpath(asked["picture"])
    serve = workspace.params.serve
    image = shlex.quote(f"image=@{picture}")
    print(f"\nNo picture of an aye-aye was trained on. All that was told of it:\n  {asked['description']}")
    print(f"\nA freshly drawn one, {picture}, is labelled")
    show.answers([{**asked["answer"], "image": picture}])
    print(
        f"\nThe Bento {asked['bento']}, started and asked over HTTP, gives the same answer. "
        f"Of {asked['asked']} freshly drawn aye-ayes {asked['right']} are recognised."
        f"\n\nServe it:\n  {program} serve --workspace {shlex.quote(str(folder))}"
        f"\nthen ask, from another terminal:\n  curl -F {image} http://{serve.host}:{serve.port}/classify"
        f"\nThe report: {os.path.relpath(workspace.reports / 'index.html')}"
    )


def program() -> str:
    """How this `ayeaye` is called from the current folder."""
    own, found = Path(sys.executable).parent / "ayeaye", shutil.which("ayeaye")
    if found and own.exists() and Path(found).samefile(own):
        return "ayeaye"
    return shlex.quote(min(str(own), os.path.relpath(own), key=len))
