"""Commands that put the champion to work: its service, and labels without it."""

from __future__ import annotations

import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ayeaye.cli.common import HERE, AsJson, Folder, app, print_result, say, workspace_at
from ayeaye.core.workspace import Workspace

command = partial(app.command, rich_help_panel="At work")


@command()
def serve(
    workspace: Folder = HERE,
    host: Annotated[str | None, typer.Option(help="Address to listen on (params: serve.host).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port (params: serve.port).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (params: serve.workers).")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the first champion where there is none.")
    ] = False,
) -> None:
    """Serve the champion's Bento until interrupted, and each new champion's without losing a request.

    That needs HAProxy (Debian's package); without it, start this again after a promotion.

    curl -F image=@photo.jpg http://127.0.0.1:3000/classify
    """
    found = workspace_at(workspace)
    if wait:
        _await_champion(found)
    from ayeaye.deployment.serving import serve as serve_champion
    from ayeaye.deployment.serving import serve_settings

    serve_champion(found, serve_settings(found, host, port, workers), say)


def _await_champion(workspace: Workspace) -> None:
    from ayeaye.release.record import Record

    record = Record(workspace.release / "record.jsonl")
    if record.state().champion is None:
        say("There is no champion yet; waiting for the first one.")
    while record.state().champion is None:
        time.sleep(2)


@command()
def shadow(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Compare what a challenger answered with what the champion did, on the same pictures of the service's users.

    `ayeaye set serve.shadow=0.1` has `ayeaye serve` send a copy of a tenth of them to a version that waits for
    approval. Its answers are logged, and nobody gets them.
    """
    from ayeaye.release import show
    from ayeaye.service.answer_log import comparisons
    from ayeaye.service.review import url_of

    found = comparisons(url_of(workspace_at(workspace)))
    if as_json:
        print_result(found, True)
    else:
        show.shadows(found)


@command()
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    workspace: Folder = HERE,
    top: Annotated[int, typer.Option(min=1, help="How many alternatives.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Label pictures with the champion, here, without the service.

    A picture that cannot be read gets an error of its own; the exit status is then 1.
    """
    from ayeaye.release import champion, show

    found = workspace_at(workspace)
    answers = champion.classify(found, images, top)
    if as_json:
        print_result(answers if len(images) > 1 else answers[0], True)
    else:
        show.answers(answers)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


@command()
def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    label: Annotated[str | None, typer.Option(help="The class to explain, by default the winner.")] = None,
    against: Annotated[
        str | None, typer.Option(help="The class it is compared with, by default the best other one.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many attributes or words to show.")] = 12,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Say why the champion gives a picture its label: which attributes or words speak for it, and which against.

    What they count adds up to the difference of the two classes' scores.
    """
    from ayeaye.release import champion, show

    explained = champion.explain(workspace_at(workspace), image, label, against)
    if as_json:
        print_result(explained, True)
    else:
        show.explanation(explained, top)


class Labelling(StrEnum):
    nearest = "nearest"
    propagation = "propagation"


@command()
def label(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures, also in folders below.")],
    out: Annotated[Path, typer.Option("--out", metavar="CSV", help="Where the labels go.")],
    labelling: Annotated[
        Labelling,
        typer.Option(
            help="Each picture by itself, or all together: pictures that are alike help each other."
        ),
    ] = Labelling.nearest,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Label a folder of pictures with the champion; interrupted, the next call goes on where this one stopped."""
    from ayeaye.pipeline.progress import Progress
    from ayeaye.release import champion

    found = workspace_at(workspace)
    print_result(champion.label_folder(found, folder, out, Progress(), labelling.value), as_json)
