"""More traffic from the same trace, by overlaying shifted copies.

Compressing a trace in time would change its bursts and the ratio of answer lengths to gaps. Copies
keep the trace's own pattern, and every copy's requests come from different devices with different
prompts. For a rate between two whole numbers of copies, the last copy is thinned.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pd_bench.traces.row import TraceRow
from pd_core.errors import ConfigError

__all__ = ["Overlay"]

_LINES = 10_000_000  # more than any trace has, so that lines of two copies are never equal
_GOLDEN = 0.6180339887498949  # its multiples modulo 1 are spread evenly over [0, 1)


class Overlay:
    """A trace as traffic at any rate.

    Args:
        rows: the trace's rows, by arrival.

    Raises:
        ConfigError: the rows come all at once, so that they have no rate.
    """

    def __init__(self, rows: Sequence[TraceRow]) -> None:
        last_s = rows[-1].arrival_s if rows else 0.0
        if last_s <= 0:
            raise ConfigError("a trace whose rows come all at once has no arrival rate to raise")
        self._rows = rows
        # The wrap from the last row to the first is as long as a gap between rows.
        self._span_s = last_s * len(rows) / (len(rows) - 1)

    @property
    def rate_per_s(self) -> float:
        """Requests a second of the trace as it is."""
        return len(self._rows) / self._span_s

    def at_rate(self, rate_per_s: float, duration_s: float) -> Iterator[TraceRow]:
        """Yield rows at this mean rate, by arrival, from 0 to duration_s."""
        copies = rate_per_s / self.rate_per_s
        whole = math.ceil(copies - 1e-9)
        shares = [1.0] * (whole - 1) + [copies - (whole - 1)]
        streams = [
            self._copy(number, number * self._span_s * _GOLDEN % self._span_s, share)
            for number, share in enumerate(shares)
        ]
        for row in heapq.merge(*streams, key=lambda row: row.arrival_s):
            if row.arrival_s >= duration_s:
                return
            yield row

    def _copy(self, number: int, shift_s: float, share: float) -> Iterator[TraceRow]:
        """Yield one copy's rows, repeated endlessly and shifted; only `share` of them."""
        rounds = 0
        while True:
            for index, row in enumerate(self._rows):
                arrival_s = row.arrival_s + rounds * self._span_s - shift_s
                place = (index + rounds * len(self._rows)) * _GOLDEN % 1.0
                if arrival_s < 0 or place >= share:
                    continue
                turn = number + 1000 * rounds
                hashes = row.block_hashes
                if hashes is not None and number:
                    hashes = tuple(key + (turn << 40) for key in hashes)
                line = row.line + turn * _LINES
                yield replace(row, line=line, arrival_s=arrival_s, block_hashes=hashes)
            rounds += 1
