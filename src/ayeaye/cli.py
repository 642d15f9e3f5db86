"""The command line: one command per stage, and the operations around them."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ayeaye import __version__, params
from ayeaye.errors import AyeayeError
from ayeaye.workspace import Workspace

REFUSED = 3
# Settings that name a file or folder that is there: on the command line it may be relative to the current folder.
PATHS = (
    "prepare.path",
    "embed.weights",
    "embed.pretrained_on",
    "embed.hierarchy",
    "classes.vectors",
    "classes.corpus",
)
WORDS = ("train", "imagenet-1k")  # which two of them take in place of a file

app = typer.Typer(
    name="ayeaye",
    help="Zero-shot image classifiers, from photographs and words to production.\n\n"
    "Make a workspace with `ayeaye init`, then `ayeaye retrain` runs everything: it versions and checks the data, "
    "trains, evaluates, and promotes what passes the gate. `ayeaye serve` serves the champion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

data = typer.Typer(help="What goes into the dataset, beside its source.", no_args_is_help=True)
app.add_typer(data, name="data")

Folder = Annotated[
    Path, typer.Option("--workspace", "-w", metavar="DIR", help="The workspace.", envvar="AYEAYE_WORKSPACE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
HERE = Path()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; made if it is not there.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A parameter; may be repeated."),
    ] = None,
) -> None:
    """Make a workspace: a git and DVC repository with its own params.yaml.

    Files and folders given with --set may be relative to the current folder.

        ayeaye init shop --set prepare.source=folder --set prepare.path=photos --set classes.source=tfidf
    """
    from ayeaye import versioning

    workspace = Workspace(folder.expanduser().resolve())
    there = (workspace.root / "params.yaml").is_file()
    with workspace.lock(_say) if there else nullcontext():
        written = versioning.init(workspace, [_absolute(setting) for setting in set_ or []], _check)
    typer.echo(f"{workspace.root} is a workspace" + (f" ({', '.join(written)} written)." if written else "."))
    typer.echo(f"Next: ayeaye retrain --workspace {folder}")


@app.command("set")
def set_params(
    settings: Annotated[list[str], typer.Argument(metavar="SECTION.KEY=VALUE")], workspace: Folder = HERE
) -> None:
    """Change parameters in params.yaml, keeping its comments; checked before anything is written.

    Files and folders may be relative to the current folder. An empty value takes a threshold or a file out:

        ayeaye set release.minimum.H=
    """
    found = Workspace.find(workspace)
    with found.lock(_say):
        params.assign(found.root / "params.yaml", [_absolute(setting) for setting in settings], _check)
        found.write_fingerprints()


@app.command()
def prepare(
    workspace: Folder = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the dataset up to its source: new pictures become new shards, the manifest is checked and swapped."""
    from ayeaye.pipeline.prepare import prepare as stage
    from ayeaye.pipeline.progress import Progress

    found = _found(workspace)
    with found.lock(_say):
        _print(stage(found, Progress(), dry_run=dry_run), as_json)
        if not dry_run:
            found.write_fingerprints()


@app.command()
def embed(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: every picture through the backbone; only what is new is computed."""
    from ayeaye.pipeline.embed import embed as stage
    from ayeaye.pipeline.progress import Progress

    with _stage_of(workspace) as found:
        _print(stage(found, Progress()), as_json)


@app.command()
def classes(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: the class space, from words or attributes."""
    from ayeaye.pipeline.classes import classes as stage

    with _stage_of(workspace) as found:
        _print(stage(found), as_json)


@app.command()
def train(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: choose the mapper's settings on pretend-unseen classes, fit it, write the bundle."""
    from ayeaye.pipeline.progress import Progress
    from ayeaye.pipeline.train import train as stage

    with _stage_of(workspace) as found:
        _print(stage(found, Progress()), as_json)


@app.command()
def evaluate(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Stage: measure on test pictures, or on class folds where unseen classes have none; write the report."""
    from ayeaye.pipeline.evaluate import evaluate as stage
    from ayeaye.pipeline.progress import Progress

    with _stage_of(workspace) as found:
        _print(stage(found, Progress()), as_json)


@app.command()
def retrain(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Run everything: data, stages, registration, gate, Bento, trial, promotion.

    Exit status: 0 promoted or nothing new; 3 the gate refused and the champion is unchanged; 1 an error.
    What has not changed is not run again, and a run that was killed is finished by the next one.
    """
    outcome = _retrained(_found(workspace))
    if as_json:
        _print(outcome, True)
    else:
        from ayeaye.release import show

        show.outcome(outcome)
    if outcome["outcome"] == "refused":
        raise typer.Exit(REFUSED)


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The demo's workspace; made if it is not there.")
    ] = Path("demo"),
) -> None:
    """Retrain on the drawn bestiary in a workspace of its own, and ask the champion for an aye-aye.

    Needs no photographs, no weights and no network. Exit status as of `ayeaye retrain`.
    """
    from ayeaye.release import demo as shown

    program = shown.program()
    found = _found(shown.lay_down(folder).root)
    outcome = _retrained(found)
    shown.report(found, outcome, folder, program)
    if outcome["outcome"] == "refused":
        raise typer.Exit(REFUSED)


@app.command()
def status(workspace: Folder = HERE, as_json: AsJson = False) -> None:
    """Champion, previous and every candidate with its figures."""
    from ayeaye.release import promotion, show

    found = _found(workspace)
    state = promotion.status(found)
    if as_json:
        _print(state, True)
    else:
        show.status(state)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1)],
    workspace: Folder = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also a version that the gate refused.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a registered version champion, after its Bento was built and tried."""
    from ayeaye.release import promotion

    found = _found(workspace)
    with found.lock(_say):
        _print(
            promotion.promote(found, version, reason=reason, force=force, dry_run=dry_run, say=_say), as_json
        )


@app.command()
def rollback(
    workspace: Folder = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion champion again, without retraining."""
    from ayeaye.release import promotion

    found = _found(workspace)
    with found.lock(_say):
        _print(promotion.rollback(found, reason=reason, dry_run=dry_run, say=_say), as_json)


@app.command()
def serve(
    workspace: Folder = HERE,
    host: Annotated[str | None, typer.Option(help="Address to listen on (params: serve.host).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port (params: serve.port).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (params: serve.workers).")] = None,
) -> None:
    """Serve the champion's Bento until interrupted.

    curl -F image=@photo.jpg http://127.0.0.1:3000/classify
    """
    from ayeaye.release import promotion

    found = _found(workspace)
    promotion.serve(found, host=host, port=port, workers=workers, say=_say)


@app.command()
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

    found = _found(workspace)
    answers = champion.classify(found, images, top)
    if as_json:
        _print(answers if len(images) > 1 else answers[0], True)
    else:
        show.answers(answers)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


@app.command()
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

    explained = champion.explain(_found(workspace), image, label, against)
    if as_json:
        _print(explained, True)
    else:
        show.explanation(explained, top)


class Labelling(StrEnum):
    nearest = "nearest"
    propagation = "propagation"


@app.command()
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

    found = _found(workspace)
    _print(champion.label_folder(found, folder, out, Progress(), labelling.value), as_json)


@data.command()
def review(
    accept: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Feedback to accept; may be repeated.")
    ] = None,
    reject: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Feedback to reject; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record; needed to reject.")] = "",
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pending pictures there, to be looked at.")
    ] = None,
    workspace: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """List the feedback that callers of the service gave, accept it or reject it.

    A picture that came with accepted feedback is in the next dataset, under its label, from the next
    `ayeaye prepare` or `ayeaye retrain` on. Feedback without a picture counts for monitoring alone. Exit
    status 1 where one could not be decided; the others are.
    """
    from ayeaye.release import promotion, show
    from ayeaye.service.review import Review, store_of

    if reject and not reason.strip():
        raise typer.BadParameter("to reject feedback, say why with --reason")
    found = _found(workspace)
    reviewing, reviewer = Review(found, store_of(found)), promotion.actor()
    delivered = reviewing.deliver()
    decided = [reviewing.decide(id, True, reviewer, reason) for id in accept or []]
    decided += [reviewing.decide(id, False, reviewer, reason) for id in reject or []]
    pending = reviewing.pending()
    written = reviewing.write_pictures(pictures) if pictures else []
    if as_json:
        _print({"pending": pending, "decided": decided, "pictures": written}, True)
    else:
        show.feedback(pending, decided)
        if delivered:
            _say(f"{delivered} pictures that were accepted earlier enter the next dataset, too.")
        if pictures:
            _say(f"{len(written)} pictures written to {pictures}.")
    if any("error" in each for each in decided):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a fault that a person can mend is one line and exit status 1."""
    try:
        # Without its standalone mode Typer hands an exit code back instead of raising it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except AyeayeError as error:
        from ayeaye.versioning import leave_error

        leave_error(error)
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command goes on where this one stopped", 130)
    except OSError as error:
        from ayeaye.versioning import leave_error

        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            what += "; nothing is lost, make room and run it again"
        leave_error(AyeayeError(what))
        _fail(what)
    except Exception as error:
        context = getattr(error, "ctx", None)
        if context is None or not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            context.get_help()  # prints it
            sys.exit(2)
        _fail(f"{error.format_message()} See `{context.command_path} --help`.", 2)


def _fail(message: str, code: int = 1) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(code)


def _found(folder: Path) -> Workspace:
    """The workspace, with its homes in the environment before anything reads them."""
    workspace = Workspace.find(folder)
    os.environ.update(workspace.environment())
    if home := os.environ.get("PREFECT_HOME"):
        Path(home).mkdir(parents=True, exist_ok=True)  # Prefect warns where it is missing
    return workspace


@contextmanager
def _stage_of(folder: Path) -> Iterator[Workspace]:
    """The workspace, held by one stage.

    A person may have started it, by `dvc repro` too: what DVC compares is brought up to date for the next.
    """
    workspace = _found(folder)
    with workspace.stage(_say):
        workspace.write_fingerprints()
        yield workspace


def _retrained(workspace: Workspace) -> dict[str, Any]:
    # A fault shows as one line here, not as Prefect's traceback; the run's own log keeps everything.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from ayeaye import versioning
    from flows.server import server

    versioning.require(workspace)
    _ = workspace.params  # a fault in them shows before anything starts
    with server(workspace) as started:
        # Importing the flow takes as long as the server's start: side by side.
        from flows.retrain import run

        return run(workspace, started(), say=_say)


def _absolute(setting: str) -> str:
    """A setting with the files and folders that it names made absolute, where they are in the current folder."""
    key, equals, value = setting.partition("=")
    name = key.strip()
    if name.startswith("classes.vectors.") or (name in PATHS and not value.lstrip().startswith("{")):
        return f"{key}{equals}{_found_here(value)}"
    if name in PATHS:  # {source: file}
        files = {source: _found_here(str(file or "")) for source, file in params.value_of(setting).items()}
        return f"{key}={json.dumps(files, ensure_ascii=False)}"
    return setting


def _check(before: params.Params, chosen: params.Params) -> None:
    """Names that are known only to the parts that use them."""
    from ayeaye.embedding import backbones
    from ayeaye.release import gate

    gate.check_thresholds(chosen.release)
    if chosen.embed.backbone != before.embed.backbone:  # the list of them takes seconds to import
        backbones.check_name(chosen.embed.backbone)


def _found_here(value: str) -> str:
    path = Path(value).expanduser()
    return str(path.resolve()) if value and value not in WORDS and path.exists() else value


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return
    for key, content in value.items():
        if not isinstance(content, dict | list):
            typer.echo(f"{key:>12}  {content}")
