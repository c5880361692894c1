"""A run over a trace: what every kind of it is asked, and what all their documents say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pd_bench.results.provenance import file_sha256, hardware, versions
from pd_bench.results.result import ResultDocument
from pd_bench.traces.reader import SkippedRows, TraceRow, read_trace

__all__ = ["TraceRun"]


@dataclass(frozen=True, slots=True)
class TraceRun:
    """The inputs of a replay, whatever it is replayed on.

    Attributes:
        trace: the trace's file.
        pace_s: seconds between shown tokens asked of every scheme's controller; a gap of more
            than twice this is a stall.
        limit: only the first N rows; None: all.
        max_prompt_tokens: longer prompts are cut; None: to what the context has room for.
        max_output_tokens: longer answers are cut; the token limit of every request.
        seed: of prompts, sampling and every spread.
        timeout_s: a request that takes longer has failed.
        skip_broken: leave broken rows of the trace out, and count them.
    """

    trace: Path
    pace_s: float = 0.1
    limit: int | None = None
    max_prompt_tokens: int | None = None
    max_output_tokens: int = 1024
    seed: int = 0
    timeout_s: float = 600.0
    skip_broken: bool = False

    def rows(self, skipped: SkippedRows) -> Iterator[TraceRow]:
        """Yield the rows, without holding the file in memory.

        Args:
            skipped: counts the broken ones, where they may be left out.

        Raises:
            TraceError: the trace cannot be read or a row is broken.
        """
        return read_trace(self.trace, self.limit, skipped=skipped if self.skip_broken else None)

    def document(
        self, skipped: SkippedRows, problems: Sequence[str], **measured: Any
    ) -> ResultDocument:
        """Return the result document.

        Args:
            skipped: rows left out.
            problems: what speaks against the run.
            measured: the other fields of the document.
        """
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
