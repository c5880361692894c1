"""A scheme's figures, counted as its requests end, so that memory does not grow with the trace."""

import hashlib
import heapq
from array import array
from collections.abc import Sequence

import numpy as np

from pd_bench.replay.dispatch import timeline_of
from pd_bench.results.result import CloudTotals, EqualRows, KvBytesPeak, RequestRecord, SchemeResult
from pd_bench.results.series import MAX_TIMELINES, Timeline
from pd_bench.results.sketch import QuantileSketch
from pd_bench.simulation.kept_promise import KeptPromise
from pd_device_client.contract.outcome import Outcome

__all__ = ["AnswerDigests", "SchemeTally"]

_QUANTILE_POINTS = 101


class SchemeTally:
    """Counts the requests of one scheme.

    The full records are kept only of some rows, the same ones in every scheme: those whose number
    hashes lowest.

    Args:
        pace_s: the promised pace.
        max_requests: most records to keep.
        promise: what else is promised; None: nothing.

    Attributes:
        lag_s: the dispatch lags.
        digests: digests of the answers, by row.
        exactness: "identical" as long as every request was promised identical text.
    """

    def __init__(
        self, pace_s: float, max_requests: int, promise: KeptPromise | None = None
    ) -> None:
        self._promise = promise
        self._unused = 0
        self._pace_s = pace_s
        self._max_requests = max_requests
        self._kept: list[tuple[int, int, RequestRecord, Timeline]] = []  # a heap, worst first
        self._requests = self._failed = self._stalled = self._broken = 0
        self._cloud_tokens = self._cloud_tokens_generated = self._device_tokens = 0
        self._disagreed = 0
        self._longest = 0
        self._sketches = {
            name: QuantileSketch()
            for name in ("ttft_s", "tpot_s", "gap_s", "largest_gap_s", "handoff_gap_s", "e2e_s")
        }
        self.lag_s = QuantileSketch()
        self.digests = AnswerDigests()
        self.exactness = "identical"

    @property
    def num_requests(self) -> int:
        """Requests that have ended, failed ones included."""
        return self._requests

    @property
    def num_failed(self) -> int:
        """Requests that ended without a whole answer."""
        return self._failed

    @property
    def num_stalled(self) -> int:
        """Requests with a gap above two paces."""
        return self._stalled

    @property
    def longest(self) -> int:
        """Prompt and shown tokens of the longest request."""
        return self._longest

    def add(self, record: RequestRecord, outcome: Outcome) -> None:
        """Count one request that has ended."""
        failed, stalled = record.error is not None, record.stalled(self._pace_s)
        self._requests += 1
        self._failed += failed
        self._stalled += stalled
        missed = self._promise is not None and self._promise.broken_by(record) is not None
        self._broken += failed or missed or (self._promise is None and stalled)
        self._unused += outcome.unused_tokens
        self._cloud_tokens += record.cloud_tokens
        self._cloud_tokens_generated += record.cloud_tokens_generated
        self._device_tokens += record.device_tokens
        self._disagreed += record.disagreed
        self._longest = max(self._longest, record.prompt_tokens + len(record.shown_at_s))
        if record.exactness != "identical":
            self.exactness = "consistent"
        for name in ("ttft_s", "tpot_s", "largest_gap_s", "handoff_gap_s", "e2e_s"):
            value: float | None = getattr(record, name)
            if value is not None:
                self._sketches[name].add(value)
        self._sketches["gap_s"].add(np.maximum(np.diff(record.shown_at_s), 0.0))
        self.lag_s.add(max(record.dispatch_lag_s, 0.0))
        self.digests.add(record)
        self._keep(record, outcome)

    def _keep(self, record: RequestRecord, outcome: Outcome) -> None:
        order = -_priority(record.id)
        if len(self._kept) < self._max_requests:
            entry = (order, record.id, record, timeline_of(record, outcome))
            heapq.heappush(self._kept, entry)
        elif self._kept and order > self._kept[0][0]:
            entry = (order, record.id, record, timeline_of(record, outcome))
            heapq.heapreplace(self._kept, entry)

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The kept records, by row."""
        return tuple(sorted((kept[2] for kept in self._kept), key=lambda r: r.id))

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """Every token of a few of the kept requests."""
        best = sorted(self._kept, reverse=True)[:MAX_TIMELINES]
        return tuple(kept[3] for kept in best)

    def result(self, cloud: CloudTotals, device_kv_bytes_peak: int) -> SchemeResult:
        """Return the scheme's figures."""
        sketches = self._sketches
        shares = np.linspace(0, 1, _QUANTILE_POINTS)
        return SchemeResult(
            requests=self._requests,
            failed=self._failed,
            stalled_requests=self._stalled,
            broken_promises=self._broken,
            **{name: sketch.distribution() for name, sketch in sketches.items()},
            cloud_tokens=self._cloud_tokens,
            cloud_tokens_generated=cloud.tokens_generated,
            device_tokens=self._device_tokens,
            disagreed=self._disagreed,
            unused_tokens=self._unused,
            cloud_busy_s=cloud.busy_s,
            cloud_kv_byte_s=cloud.kv_byte_s,
            kv_bytes_peak=KvBytesPeak(cloud=cloud.kv_bytes_peak, device=device_kv_bytes_peak),
            quantiles_s={
                name: tuple(found)
                for name, sketch in sketches.items()
                if (found := sketch.quantiles(shares))
            },
        )


class AnswerDigests:
    """A digest of each row's answer, eight bytes a row; 0 stands for none or a broken one."""

    def __init__(self) -> None:
        self._digests = array("Q")

    def add(self, record: RequestRecord) -> None:
        """Add an answer."""
        missing = record.id + 1 - len(self._digests)
        if missing > 0:
            self._digests.extend([0] * missing)
        if record.error is None:
            self._digests[record.id] = int(record.output_sha256[:16], 16) or 1

    @staticmethod
    def compare(all_digests: Sequence["AnswerDigests"]) -> tuple[EqualRows, int]:
        """Return the rows with equal answers in all schemes, and how many have different ones."""
        rows = max((len(digests._digests) for digests in all_digests), default=0)
        table = np.zeros((len(all_digests), rows), dtype=np.uint64)
        for line, digests in zip(table, all_digests, strict=True):
            line[: len(digests._digests)] = np.frombuffer(digests._digests, dtype=np.uint64)
        if not table.size:
            return EqualRows(equal=0, rows=0), 0
        whole = (table != 0).all(axis=0)
        highest = table.max(axis=0)
        differ = ((table != 0) & (table != highest)).any(axis=0)
        return EqualRows(equal=int((whole & ~differ).sum()), rows=rows), int(differ.sum())


def _priority(row: int) -> int:
    """Return a hash of the row, which chooses rows evenly and reproducibly."""
    return int.from_bytes(hashlib.blake2b(row.to_bytes(8, "big"), digest_size=8).digest(), "big")
