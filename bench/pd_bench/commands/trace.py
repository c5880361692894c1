"""`pd-bench trace`: look at traces, convert, fit, generate and fetch them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.results.result_file import refuse_same_file, result_file
from pd_bench.traces.columns import COLUMNS_HELP, parse_columns
from pd_bench.traces.reader import SkippedRows, TraceRow, format_name, read_trace
from pd_bench.traces.slicing import TraceSlice, sorted_rows
from pd_bench.traces.sources import TRACE_SOURCES, trace_source
from pd_bench.traces.writer import OUTPUT_FORMATS, trace_text
from pd_core.errors import ConfigError, TraceError
from pd_core.files.text_file import read_text_file

if TYPE_CHECKING:
    from pd_bench.traces.fit import TraceFit

__all__ = ["read_fit", "trace_app"]

trace_app = typer.Typer(help="Look at traces, convert, fit and fetch them.", no_args_is_help=True)

_SHOWN_ROWS = 20_000  # rows generated to compare a fit with its trace

Trace = Annotated[
    Path, typer.Argument(help="Azure or BurstGPT CSV; Mooncake, Qwen or our JSONL; may be gzip.")
]
ColumnNames = Annotated[str | None, typer.Option("--columns", help=COLUMNS_HELP)]
Limit = Annotated[int | None, typer.Option(help="Only the first N rows.")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave broken rows out and count them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]
_NAMES = ", ".join(TRACE_SOURCES)


def _tell(message: str) -> None:
    typer.echo(f"pd-bench: {message}", err=True)


@trace_app.command()
def info(
    trace: Trace,
    columns: ColumnNames = None,
    limit: Limit = None,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Read a whole trace and print its rows, rate, lengths and sharing."""
    from pd_bench.traces.summary import profile_trace, trace_table

    skipped, meant = SkippedRows() if skip_broken else None, parse_columns(columns)
    rows = read_trace(trace, limit, skipped=skipped, columns=meant)
    profile = profile_trace(trace.name, format_name(trace, meant), rows, skipped)
    if as_json:
        typer.echo(profile.model_dump_json())
    else:
        Console().print(trace_table(profile))
    _tell_skipped(skipped)


@trace_app.command()
def convert(
    trace: Trace,
    out: Out,
    to: Annotated[str, typer.Option(help=f"One of {', '.join(OUTPUT_FORMATS)}.")] = "pd-trace",
    from_s: Annotated[float, typer.Option(help="Leave out rows that arrive before.")] = 0.0,
    to_s: Annotated[
        float | None, typer.Option(help="Leave out rows that arrive then or later.")
    ] = None,
    every: Annotated[int, typer.Option(help="Keep the first of every N rows.")] = 1,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Cut longer prompts.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="Cut longer answers.")] = None,
    columns: ColumnNames = None,
    limit: Limit = None,
    sort: Annotated[
        bool, typer.Option("--sort", help="Sort rows by arrival; holds them all in memory.")
    ] = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Write a trace, or a part of it, in a different format."""
    refuse_same_file(("the trace", trace), ("--out", out))
    part = TraceSlice(
        from_s,
        to_s if to_s is not None else float("inf"),
        every,
        max_prompt_tokens,
        max_output_tokens,
        limit,
    )
    skipped = SkippedRows() if skip_broken else None
    rows = read_trace(trace, skipped=skipped, any_order=sort, columns=parse_columns(columns))
    num_rows = _write(out, part.of(sorted_rows(rows) if sort else rows), to, trace.name)
    _tell(f"{out}: {num_rows} rows of {trace.name} as {to}")
    _tell_skipped(skipped)


@trace_app.command()
def fit(
    trace: Trace,
    out: Out,
    columns: ColumnNames = None,
    limit: Limit = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Fit arrivals, lengths and shared prefixes to a trace, and show how good the fit is."""
    from pd_bench.traces.fit import fit_rows
    from pd_bench.traces.generator import generate_rows
    from pd_bench.traces.summary import profile_trace, trace_table

    refuse_same_file(("the trace", trace), ("--out", out))
    skipped, meant = SkippedRows() if skip_broken else None, parse_columns(columns)
    name = format_name(trace, meant)
    with result_file(out, "--out") as write:
        rows = read_trace(trace, limit, skipped=skipped, columns=meant)
        fitted = fit_rows(trace.name, rows)
        write(fitted.model_dump_json(indent=2))
    console = Console()
    again = SkippedRows() if skip_broken else None
    rows = read_trace(trace, limit, skipped=again, columns=meant)
    console.print(trace_table(profile_trace(trace.name, name, rows, again)))
    generated = generate_rows(fitted, min(fitted.rows, _SHOWN_ROWS), seed=0)
    console.print(trace_table(profile_trace("generated from the fit", "none", generated)))
    _tell_skipped(skipped)


@trace_app.command()
def generate(
    fit_file: Annotated[Path, typer.Argument(help="A file of `trace fit`.", metavar="FIT")],
    out: Out,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")],
    seed: Annotated[int, typer.Option(min=0, help="A different seed gives different rows.")] = 0,
    to: Annotated[str, typer.Option(help=f"One of {', '.join(OUTPUT_FORMATS)}.")] = "pd-trace",
) -> None:
    """Write rows like those of a trace; the same seed gives the same rows."""
    from pd_bench.traces.generator import generate_rows

    refuse_same_file(("FIT", fit_file), ("--out", out))
    fitted = read_fit(fit_file)
    source = f"generated from a fit to {fitted.fitted_to}, seed {seed}"
    _write(out, generate_rows(fitted, rows, seed), to, source)
    _tell(f"{out}: {rows} rows {source}")


@trace_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"{_NAMES}; or an address.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; default: the source's name.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The expected checksum.")] = None,
) -> None:
    """Download a published trace; an interrupted download resumes."""
    from pd_bench.traces.fetch import fetch_trace

    source = trace_source(name)
    path = out if out is not None else Path(source.file_name)
    with _download_bar(path.name) as bar:
        fetched = fetch_trace(source, path, sha256=sha256.lower() if sha256 else None, progress=bar)
    if fetched.already_there:
        _tell(f"{path} is there already, and is what it should be")
    known = "as expected" if sha256 or source.sha256 else "not known beforehand: note it"
    typer.echo(f"{path}: {fetched.size} bytes, sha256 {fetched.sha256} ({known})")
    typer.echo(f"licence: {source.licence}; home: {source.home}")


@contextlib.contextmanager
def _download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows (bytes done, bytes in all), on a terminal only."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def read_fit(path: Path) -> "TraceFit":
    """Read a fit.

    Raises:
        ConfigError: it cannot be read, or is not a fit.
    """
    from pydantic import ValidationError

    from pd_bench.traces.fit import TraceFit

    try:
        return TraceFit.model_validate_json(read_text_file(path))
    except OSError as error:
        raise ConfigError(f"{path}: the fit cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path} is no fit of `pd-bench trace fit`: {where}: {first['msg']}"
        ) from None


def _write(out: Path, rows: Iterable[TraceRow], form: str, source: str) -> int:
    """Write rows one by one and return their number; replace an older file only at the end."""
    num_rows = 0

    def counted() -> Iterator[TraceRow]:
        nonlocal num_rows
        for row in rows:
            num_rows += 1
            yield row
        if not num_rows:
            raise TraceError(f"no row of {source} is left: nothing was written; ask for more of it")

    with result_file(out, "--out") as write:
        write(trace_text(counted(), form, source))
    return num_rows


def _tell_skipped(skipped: SkippedRows | None) -> None:
    if skipped is not None:
        _tell(skipped.label if skipped.count else "no row was broken")
