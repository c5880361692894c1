"""Shared by the measuring commands: a status line, and a file for the figures."""

import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from rich.console import Console

from pd_bench.harness.command_run import run_to_end
from pd_bench.harness.cores import num_processors
from pd_bench.results.result_file import result_file
from pd_core.settings.option import Option

__all__ = ["JsonOut", "json_file", "run_measurement"]

T = TypeVar("T")

JsonOut = Annotated[Path | None, Option("Write the figures here.", "json")]


@contextmanager
def json_file(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that writes the document, if one is wanted; open the file before the run."""
    if path is None:
        yield lambda _: None
        return
    with result_file(path) as write:
        yield lambda document: write(json.dumps(document))


def run_measurement(
    measure: Callable[[Callable[[str], None]], Coroutine[Any, Any, T]], *, two_sides: bool = True
) -> T:
    """Run a measurement, with a status line on a terminal.

    Args:
        measure: called with a function that says what is being done.
        two_sides: a server and a client run on this machine, and disturb each other on one core.
    """
    from pd_bench.results.validity import sharing_problems

    console = Console(stderr=True)
    for problem in sharing_problems(num_processors()) if two_sides else ():
        console.print(f"not to be quoted: {problem}", soft_wrap=True, highlight=False)
    with console.status("starting the server") as status:
        return run_to_end(measure(lambda doing: status.update(doing)))
