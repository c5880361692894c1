"""The command `pd-bench cloud`.

This process computes nothing, so it does not set torch's environment: the servers would inherit it.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.clouds.settings import CloudSettings
from pd_bench.harness.command_run import run_to_end
from pd_bench.results.result_file import result_file
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

if TYPE_CHECKING:
    from pd_bench.clouds.closed_loop import CloudAnswer

__all__ = ["Compared", "cloud"]


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison's settings, and where the result goes."""

    run: Annotated[CloudSettings, Part()] = field(default_factory=CloudSettings)
    json_out: Annotated[
        Path | None, Option("Write the result document here; - prints it last.", "json")
    ] = None


def cloud(asked: Compared, _: Read) -> None:
    """Compare the cloud's engines: throughput, TTFT, and KV cache use.

    Starts a real pd-server with each engine in turn, on the same cores, and
    keeps all slots busy over gRPC from the other cores. Each row is requested
    twice: whole (cloud-only), and only its first --cloud-tokens tokens
    (pd-device, as the cloud sees it).

    Examples:

      pd-bench cloud --engines torch,vllm --json cloud.json

      pd-bench cloud AzureLLMInferenceTrace_conv.csv --limit 100 --eager

    Starting vLLM takes half a minute to several minutes; compiling adds one.
    """
    _compare(asked.run, asked.json_out)


def _compare(settings: CloudSettings, json_out: Path | None) -> None:
    """Compare, print the table, and write the document."""
    from pd_bench.clouds.comparison import CloudComparison
    from pd_bench.clouds.report import print_comparison

    to_stdout = json_out is not None and str(json_out) == "-"
    with ExitStack() as files:
        write = None
        if json_out is not None and not to_stdout:
            write = files.enter_context(result_file(json_out))
        with _Bar(Console(stderr=True)) as bar:
            document = run_to_end(CloudComparison(settings, bar).run())
        print_comparison(document, Console())
        if write is not None:
            write(document.model_dump_json())
    if to_stdout:
        typer.echo(document.model_dump_json())


class _Bar:
    """One line per pass, with a bar on a terminal; drawn only when a request ends."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("failed {task.fields[failed]}"),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=0, failed=0, visible=False)
        self._failed = 0

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def starting(self, what: str) -> None:
        """Print what is being started."""
        self._console.print(f"starting {what}", highlight=False)

    def begin(self, what: str, num_requests: int) -> None:
        """Start the bar of one pass."""
        self._failed = 0
        self._task = self._bar.add_task(what, total=num_requests, failed=0)
        if self._bar.disable:
            self._console.print(f"{what}: {num_requests} requests", highlight=False)

    def ended(self, answer: "CloudAnswer") -> None:
        """Count a request."""
        self._failed += answer.error is not None
        self._bar.update(self._task, advance=1, failed=self._failed, refresh=True)
