"""`pd-bench report`: a result as a page, a picture or a table; also used at the end of a run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pd_bench.results.result_file import refuse_same_file, result_file
from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file

if TYPE_CHECKING:
    from pd_bench.results.result import ResultDocument

__all__ = ["read_result", "report", "report_files"]

Html = Annotated[Path | None, typer.Option("--html", help="Write one self-contained page.")]
Png = Annotated[Path | None, typer.Option("--png", help="Write the figures as one picture.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write one line per request.")]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="Print the main figures as a Markdown table.")
]


def read_result(path: Path) -> "ResultDocument":
    """Read a result document.

    Raises:
        ConfigError: it cannot be read, or is not a result; the message names the field.
    """
    from pydantic import ValidationError

    from pd_bench.results.result import ResultDocument

    try:
        return ResultDocument.model_validate_json(read_text_file(path))
    except OSError as error:
        raise ConfigError(f"{path}: the result cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("schema_version",):
            raise ConfigError(
                f"{path} has the schema version {str(first['input'])[:20]}, and this pd-bench "
                "reads 1: it was written by another one; read it with that, or measure again"
            ) from None
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path} is no result of pd-bench: {where}: {first['msg']}; give what --json wrote"
        ) from None


@contextmanager
def report_files(
    html: Path | None = None,
    png: Path | None = None,
    csv: Path | None = None,
    html_option: str = "--html",
) -> "Iterator[Callable[[ResultDocument], None]]":
    """Yield a function that writes the requested reports.

    The files are opened on entry, so that a wrong path fails before a long run, not after it.

    Raises:
        ConfigError: a file cannot be written, or matplotlib is missing for a picture.
    """
    from pd_bench.reports.csv_table import report_csv
    from pd_bench.reports.page import report_html
    from pd_bench.reports.png import check_can_draw, report_png

    if png is not None:
        check_can_draw()
    with ExitStack() as files:
        write_html = files.enter_context(result_file(html, html_option)) if html else None
        write_png = files.enter_context(result_file(png, "--png")) if png else None
        write_csv = files.enter_context(result_file(csv, "--csv")) if csv else None

        def write(document: "ResultDocument") -> None:
            if write_html is not None:
                write_html(report_html(document))
            if write_png is not None:
                write_png(report_png(document))
            if write_csv is not None:
                write_csv(report_csv(document))

        yield write


def report(
    result: Annotated[Path, typer.Argument(help="A file that --json wrote.", metavar="RESULT")],
    html: Html = None,
    png: Png = None,
    csv: Csv = None,
    markdown: Markdown = False,
) -> None:
    """Show a result: one self-contained page, a picture, or tables of its requests and figures."""
    if html is None and png is None and csv is None and not markdown:
        raise ConfigError("say what to write: --html FILE, --png FILE, --csv FILE or --markdown")
    refuse_same_file(("RESULT", result), ("--html", html), ("--png", png), ("--csv", csv))
    document = read_result(result)
    with report_files(html, png, csv) as write:
        write(document)
    for path in (html, png, csv):
        if path is not None:
            typer.echo(f"{path}: {path.stat().st_size} bytes")
    if markdown:
        from pd_bench.reports.short_table import short_table

        typer.echo(short_table(document))
