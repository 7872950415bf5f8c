"""What commands print: results to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Report = Callable[[str, int, int | None], None]


def say(text: str, quiet: bool = False) -> None:
    """One line or table of the result; nothing where JSON is wanted instead."""
    if not quiet:
        print(text)


def emit(values: dict[str, Any]) -> None:
    """The result as JSON, the only thing on stdout."""
    json.dump(values, sys.stdout, indent=1, default=str)
    print()


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on stderr for each stage of the work, if stderr is a terminal: ``report(stage, done, total)``."""
    console = rich.console.Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
