"""Progress of long work: a bar where a person looks on, silence elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ayeaye.core.processes import TERMINAL


class Progress:
    """Bars on standard error; silent where that is not a terminal, or when told to be."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        # What a stage prints is kept for its error; its bars go to the terminal of who started it.
        terminal = _opened(os.environ.get(TERMINAL))
        self._console = Console(file=terminal, stderr=terminal is None, quiet=quiet)

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with the number of steps done since the last call."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
        )
        shown = self._console.is_terminal
        with progress.Progress(*columns, console=self._console, disable=not shown, transient=True) as bars:
            bar = bars.add_task(name, total=total)
            yield lambda steps: bars.advance(bar, steps)

    def done_of(self, name: str) -> _Upto:
        """For callees that report (done, total) instead of steps."""
        return _Upto(self, name)


class _Upto:
    def __init__(self, progress: Progress, name: str) -> None:
        self._task = progress.task(name, None)
        self._seen = 0

    def __enter__(self) -> Callable[[int, int], None]:
        self._advance = self._task.__enter__()
        return self._report

    def __exit__(self, *error: object) -> None:
        self._task.__exit__(None, None, None)

    def _report(self, done: int, total: int) -> None:
        self._advance(done - self._seen)
        self._seen = done


def _opened(path: str | None) -> TextIO | None:
    try:
        return open(path, "w", encoding="utf-8") if path else None  # noqa: PTH123
    except OSError:
        return None
