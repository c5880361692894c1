"""A trace's shape in a few numbers: arrivals, lengths, shared prefixes; fitted in one pass.

- Times between arrivals: a Gamma distribution by the method of moments; shape 1 is a Poisson
  process, less is burstier. Daily patterns are not modelled.
- Prompt and answer lengths: log-normal, by the mean and deviation of the logarithms, with their
  correlation; cut to the observed range.
- Shared prefixes: the share of rows that begin with blocks of a recent row, and a Beta
  distribution of the shared part of such a row's prompt.

The fit is rough: a real trace's lengths often have several peaks. `pd-bench trace fit` therefore
shows generated rows beside the trace's.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable

from pydantic import Field

from pd_bench.results.document_part import DocumentPart
from pd_bench.traces.cells import MAX_TOKENS
from pd_bench.traces.moments import Moments
from pd_bench.traces.row import TraceRow
from pd_core.errors import TraceError

__all__ = ["GammaArrivals", "Lengths", "Prefixes", "TraceFit", "fit_rows"]

_RECENT_BLOCKS = 1 << 18  # number of blocks that a row is compared with


class GammaArrivals(DocumentPart):
    """Gamma-distributed times between arrivals.

    Attributes:
        rate_per_s: arrivals per second.
        shape: shape of the Gamma distribution; 1 is a Poisson process.
    """

    rate_per_s: float = Field(gt=0)
    shape: float = Field(gt=0)


class Lengths(DocumentPart):
    """Log-normal lengths in tokens.

    Attributes:
        log_mean: mean of the logarithm.
        log_deviation: its standard deviation.
        least: the shortest.
        most: the longest.
    """

    log_mean: float
    log_deviation: float = Field(ge=0)
    least: int = Field(ge=1, le=MAX_TOKENS)
    most: int = Field(ge=1, le=MAX_TOKENS)


class Prefixes(DocumentPart):
    """Prompts that begin like a recent one.

    Attributes:
        block_tokens: prompt tokens per block.
        share: share of the rows that begin with blocks of a recent row, 0 to 1.
        kept_mean: mean share of such a row's blocks that are shared, 0 to 1.
        kept_variance: variance of that share.
    """

    block_tokens: int = Field(ge=1, le=MAX_TOKENS)
    share: float = Field(ge=0, le=1)
    kept_mean: float = Field(ge=0, le=1)
    kept_variance: float = Field(ge=0, le=0.25)


class TraceFit(DocumentPart):
    """The parameters from which rows are generated.

    Attributes:
        fitted_to: the trace's name.
        rows: number of rows in the trace.
        arrivals: times between requests.
        prompt_tokens: lengths of prompts.
        output_tokens: lengths of answers.
        length_correlation: correlation of the two lengths' logarithms, from -1 to 1.
        prefixes: None when the trace has no block hashes.
    """

    format: str = Field(default="pd-trace-fit", pattern="^pd-trace-fit$")
    fitted_to: str = ""
    rows: int = Field(default=0, ge=0)
    arrivals: GammaArrivals
    prompt_tokens: Lengths
    output_tokens: Lengths
    length_correlation: float = Field(default=0.0, ge=-1, le=1)
    prefixes: Prefixes | None = None


class _RecentBlocks:
    """Measures how much of each prompt is shared with the last rows, by their blocks."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._kept = Moments()
        self._rows = 0
        self.block_tokens: int | None = None

    def add(self, row: TraceRow) -> None:
        if row.block_hashes is None:
            return
        self.block_tokens = row.block_tokens
        self._rows += 1
        known = 0
        for block in row.block_hashes:
            if block not in self._blocks:
                break
            known += 1
        if known:
            self._kept.add(known / len(row.block_hashes))
        for block in row.block_hashes:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > _RECENT_BLOCKS:
            self._blocks.popitem(last=False)

    def prefixes(self) -> Prefixes | None:
        if self.block_tokens is None:
            return None
        return Prefixes(
            block_tokens=self.block_tokens,
            share=self._kept.n / self._rows,
            kept_mean=self._kept.mean_x,
            kept_variance=min(self._kept.variance_x, 0.25),
        )


def fit_rows(name: str, rows: Iterable[TraceRow]) -> TraceFit:
    """Fit the rows, reading them once.

    Raises:
        TraceError: a row is broken, or there are too few rows.
    """
    gaps, logs, recent = Moments(), Moments(), _RecentBlocks()
    least, most = [MAX_TOKENS, MAX_TOKENS], [1, 1]
    last_s: float | None = None
    for row in rows:
        if last_s is not None:
            gaps.add(row.arrival_s - last_s)
        last_s = row.arrival_s
        lengths = (row.prompt_tokens, row.output_tokens)
        logs.add(math.log(lengths[0]), math.log(lengths[1]))
        least = [min(a, b) for a, b in zip(least, lengths, strict=True)]
        most = [max(a, b) for a, b in zip(most, lengths, strict=True)]
        recent.add(row)
    if gaps.n < 2 or gaps.mean_x <= 0 or gaps.variance_x <= 0:
        raise TraceError(
            f"{name}: {logs.n} rows over {last_s or 0:g} s are too few to fit arrivals to; "
            "it takes three that arrive at uneven times"
        )
    return TraceFit(
        fitted_to=name,
        rows=logs.n,
        arrivals=GammaArrivals(
            rate_per_s=1 / gaps.mean_x, shape=gaps.mean_x * gaps.mean_x / gaps.variance_x
        ),
        prompt_tokens=Lengths(
            log_mean=logs.mean_x,
            log_deviation=math.sqrt(logs.variance_x),
            least=least[0],
            most=most[0],
        ),
        output_tokens=Lengths(
            log_mean=logs.mean_y,
            log_deviation=math.sqrt(logs.variance_y),
            least=least[1],
            most=most[1],
        ),
        length_correlation=logs.correlation,
        prefixes=recent.prefixes(),
    )
