"""A run over a trace: the inputs and document fields that all kinds share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from pd_bench.traces.columns import COLUMNS_HELP, parse_columns
from pd_core.settings.option import Argument, Option

if TYPE_CHECKING:  # the settings are read without them, for a help at once
    from pd_bench.results.result import ResultDocument
    from pd_bench.traces.reader import SkippedRows, TraceRow

__all__ = ["PaceOption", "TraceRun"]

PaceOption = Annotated[float, Option("Seconds between shown tokens.", "pace")]


@dataclass(frozen=True, slots=True)
class TraceRun:
    """The inputs that every replay has; a gap of more than twice the pace is a stall."""

    trace: Annotated[
        Path, Argument("Azure or BurstGPT CSV; Mooncake, Qwen or our JSONL; may be gzip.")
    ]
    columns: Annotated[str | None, Option(COLUMNS_HELP)] = None
    pace_s: PaceOption = 0.1
    limit: Annotated[int | None, Option("Only the first N rows.")] = None
    max_prompt_tokens: Annotated[
        int | None, Option("Cut longer prompts; the context's room when not given.")
    ] = None
    max_output_tokens: Annotated[
        int, Option("Cut longer answers; also every request's token limit.")
    ] = 1024
    seed: Annotated[int, Ge(0), Option("Seed of prompts, sampling and every spread.")] = 0
    timeout_s: Annotated[float, Option("Seconds after which a request fails.", "timeout")] = 600.0
    skip_broken: Annotated[bool, Option("Leave broken rows of the trace out; count them.")] = False

    def rows(self, skipped: "SkippedRows") -> "Iterator[TraceRow]":
        """Yield the rows, without holding the file in memory.

        Args:
            skipped: counts broken rows, if they may be left out.

        Raises:
            ConfigError: the columns are not named as they must be.
            TraceError: the trace cannot be read or a row is broken.
        """
        from pd_bench.traces.reader import read_trace

        return read_trace(
            self.trace,
            self.limit,
            skipped=skipped if self.skip_broken else None,
            columns=parse_columns(self.columns),
        )

    def document(
        self, skipped: "SkippedRows", problems: Sequence[str], **measured: Any
    ) -> "ResultDocument":
        """Return the result document.

        Args:
            skipped: rows left out.
            problems: why the run is not valid.
            measured: the other fields of the document.
        """
        from pd_bench.results.provenance import file_sha256, hardware, versions
        from pd_bench.results.result import ResultDocument

        if self.columns is not None:
            measured["settings"] = {**measured["settings"], "columns": self.columns}
        return ResultDocument(
            trace=self.trace.name,
            trace_sha256=file_sha256(self.trace),
            pace_s=self.pace_s,
            valid=not problems,
            invalid_because=tuple(problems),
            versions=versions(),
            hardware=hardware(),
            seed=self.seed,
            skipped_rows=skipped.count,
            **measured,
        )
