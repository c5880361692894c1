"""Writing a run's document: to a file, the last line of stdout, or a page."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pd_bench.commands.report import report_files
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_core.settings.option import Option

if TYPE_CHECKING:
    from pd_bench.results.result import ResultDocument

__all__ = ["Outputs", "document_into"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a document goes."""

    json_out: Annotated[
        Path | None, Option("Write the result document here; - prints it last.", "json")
    ] = None
    report_out: Annotated[
        Path | None, Option("Write the result as one page here, too.", "report")
    ] = None


def document_into(
    trace: Path, outputs: Outputs, run: "Callable[[], ResultDocument]"
) -> "ResultDocument":
    """Run, write the document, and return it.

    Args:
        trace: the input, which no output may replace.
        outputs: where the document goes.
        run: makes the document.

    Raises:
        ConfigError: an output cannot be written, or would replace the trace or the other output;
            nothing was run.
    """
    json_out, report_out = outputs.json_out, outputs.report_out
    printed = str(json_out) == "-"
    to_file = None if printed else json_out
    refuse_same_file(("the trace", trace), ("--json", to_file), ("--report", report_out))
    with ExitStack() as files:
        # Opened before the run, so that an unwritable path fails early.
        write = files.enter_context(result_file(to_file)) if to_file else None
        show = files.enter_context(report_files(report_out, html_option="--report"))
        document = run()
        if write is not None:
            write(document.model_dump_json())
        show(document)
    if printed:
        typer.echo(document.model_dump_json())
    return document
