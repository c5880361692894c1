"""Whether a request got what its reader was promised."""

from dataclasses import dataclass

from pd_bench.results.result import RequestRecord

__all__ = ["KeptPromise"]


@dataclass(frozen=True, slots=True)
class KeptPromise:
    """The promise to a reader.

    Attributes:
        ttft_s: longest time to the first token.
        largest_gap_s: longest gap.
        target: share of the requests that must keep both.
    """

    ttft_s: float
    largest_gap_s: float
    target: float = 0.99

    def broken_by(self, record: RequestRecord) -> str | None:
        """Return what broke it, in words; None: it was kept. A failed request has broken it."""
        if record.error is not None or record.ttft_s is None:
            return "requests that failed"
        if record.ttft_s > self.ttft_s:
            return f"a TTFT above {self.ttft_s:g} s"
        if record.largest_gap_s is not None and record.largest_gap_s > self.largest_gap_s + 1e-9:
            return f"a gap above {self.largest_gap_s:g} s"
        return None
