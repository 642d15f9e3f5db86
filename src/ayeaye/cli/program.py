"""The program: its commands together, and how a fault is told."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from ayeaye.version import __version__

from ayeaye.cli import settings, stages, releases, comparing, cards, serving, watching, platform, data, upkeep  # noqa: F401  # isort: skip
from ayeaye.cli.common import app
from ayeaye.core.errors import AyeayeError
from ayeaye.versioning.running import tell_error


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; a fault that a person can mend is one line and exit status 1."""
    try:
        # Without its standalone mode Typer hands an exit code back instead of raising it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except AyeayeError as error:
        tell_error(error)
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command goes on where this one stopped", 130)
    except OSError as error:
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            what += "; nothing is lost, make room and run it again"
        tell_error(AyeayeError(what))
        _fail(what)
    except Exception as error:
        context = getattr(error, "ctx", None)
        if context is None or not hasattr(error, "format_message"):
            tell_error(error)
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            context.get_help()  # prints it
            sys.exit(2)
        _fail(f"{error.format_message()} See `{context.command_path} --help`.", 2)


def _fail(message: str, code: int = 1) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(code)
