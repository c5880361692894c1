"""Hand-made timestamps give hand-computed figures, and every rule of honesty holds."""

import hashlib
import struct

import pytest

from pd_bench.replay.dispatch import Dispatched, record_of
from pd_bench.replay.workload import Work
from pd_bench.results.result import (
    CloudTotals,
    CutRows,
    Distribution,
    EqualRows,
    KvBytesPeak,
    RequestRecord,
    ResultDocument,
    SchemeResult,
    output_sha256,
)
from pd_core.errors import QueueFull
from pd_device_client.contract.outcome import Origin, Outcome, Shown

CLOUD = CloudTotals(tokens_generated=9, busy_s=0.5, kv_byte_s=4e6, kv_bytes_peak=2048)


def work(output_tokens: int, index: int = 0) -> Work:
    return Work(index, index + 2, 0.0, (5, 6, 7), output_tokens)


def outcome(*at_s: float, handoff: int | None = None) -> Outcome:
    """An answer whose tokens 10, 11, ... are the cloud's up to the handoff."""
    first_device = len(at_s) if handoff is None else handoff
    shown = [
        Shown(i, 10 + i, "", Origin.CLOUD if i < first_device else Origin.DEVICE, at)
        for i, at in enumerate(at_s)
    ]
    return Outcome(
        "r",
        "pd-device",
        planned_tokens=3,
        pace_s=0.1,
        shown=shown,
        handoff_position=handoff,
        cloud_tokens=first_device,
        cloud_tokens_generated=first_device + 1,
    )


def test_golden_figures_of_one_request() -> None:
    # Submitted 0.25 s after its arrival; tokens 1.0, 1.5, 1.75 and 3.0 s after the submit.
    record = record_of(
        work(4), outcome(1.0, 1.5, 1.75, 3.0, handoff=2), Dispatched(scheme="s", lag_s=0.25)
    )
    assert record.shown_at_s == (1.25, 1.75, 2.0, 3.25)
    assert record.ttft_s == 1.25
    assert record.e2e_s == 3.25
    assert record.tpot_s == pytest.approx(2.0 / 3)
    assert record.gaps_s == [0.5, 0.25, 1.25]
    assert record.largest_gap_s == 1.25
    assert record.handoff_gap_s == 0.25  # the gap before position 2
    assert (record.cloud_tokens, record.cloud_tokens_generated, record.device_tokens) == (2, 3, 2)
    assert record.output_sha256 == hashlib.sha256(struct.pack("<4i", 10, 11, 12, 13)).hexdigest()
    assert record.error is None


def test_golden_figures_of_a_scheme() -> None:
    records = [
        record_of(work(3, 0), outcome(1.0, 1.1, 1.2), Dispatched(scheme="s")),
        record_of(work(3, 1), outcome(2.0, 2.5, 2.75, handoff=1), Dispatched(scheme="s")),
        record_of(work(1, 2), outcome(3.0), Dispatched(scheme="s")),
    ]
    result = SchemeResult.of(records, 0.2, CLOUD, device_kv_bytes_peak=512)
    assert result.ttft_s == Distribution(count=3, mean=2.0, p50=2.0, p90=2.8, p99=2.98, max=3.0)
    # A single token has no gap: two requests have a TPOT and a largest gap, four gaps are pooled.
    assert result.tpot_s.count == 2
    assert result.tpot_s.mean == pytest.approx((0.1 + 0.375) / 2)
    assert result.gap_s.count == 4
    assert result.gap_s.p50 == pytest.approx((0.1 + 0.25) / 2)
    assert result.largest_gap_s.max == 0.5
    assert result.largest_gap_s.p50 == pytest.approx(0.3)
    assert (result.handoff_gap_s.count, result.handoff_gap_s.max) == (1, 0.5)
    assert result.stalled_requests == 1  # 0.5 s exceeds twice 0.2 s; 0.1 s does not
    assert (result.cloud_tokens, result.device_tokens) == (5, 2)
    assert result.cloud_tokens_generated == 9  # the server's count, not the sum of the clients'
    assert (result.cloud_busy_s, result.cloud_kv_byte_s) == (0.5, 4e6)
    assert result.kv_bytes_peak == KvBytesPeak(cloud=2048, device=512)


def test_a_cloud_that_counts_nothing_of_itself_has_no_costs() -> None:
    records = [record_of(work(3), outcome(1.0, 1.1, 1.2), Dispatched(scheme="s"))]
    result = SchemeResult.of(records, 0.2, None, 0)
    assert (result.cloud_busy_s, result.cloud_kv_byte_s, result.kv_bytes_peak) == (None,) * 3
    assert result.cloud_tokens_generated == records[0].cloud_tokens_generated


def test_one_stall_among_two_hundred_gaps_is_seen_in_the_largest_gap_alone() -> None:
    at_s = [0.1 * i for i in range(200)] + [0.1 * 199 + 2.0]
    result = SchemeResult.of(
        [record_of(work(201), outcome(*at_s), Dispatched(scheme="s"))], 0.1, CLOUD, 0
    )
    assert result.gap_s.p99 == pytest.approx(0.1)
    assert result.largest_gap_s.p50 == pytest.approx(2.0)
    assert result.stalled_requests == 1


def test_a_gap_of_exactly_twice_the_pace_is_no_stall() -> None:
    record = record_of(work(2), outcome(1.0, 1.5), Dispatched(scheme="s"))
    assert not record.stalled(0.25)
    assert record.stalled(0.2499)


def test_a_failed_request_is_counted_and_breaks_its_promise() -> None:
    refused = outcome()
    refused.error = QueueFull("the queue is full")
    cut = outcome(1.0, 1.1)
    records = [
        record_of(work(2, 0), outcome(1.0, 1.1), Dispatched(scheme="s")),
        record_of(work(2, 1), refused, Dispatched(scheme="s")),
        record_of(work(3, 2), cut, Dispatched(scheme="s")),
        record_of(work(2, 3), outcome(1.0, 9.0), Dispatched(scheme="s")),
    ]
    assert records[1].error == "QueueFull: the queue is full"
    assert records[1].ttft_s is None
    assert records[2].error == "the answer has 2 tokens instead of 3"
    result = SchemeResult.of(records, 0.1, CLOUD, 0)
    assert (result.requests, result.failed) == (4, 2)
    assert (result.stalled_requests, result.broken_promises) == (1, 3)
    assert result.ttft_s.count == 3  # percentiles say over how many


def test_a_distribution_of_nothing_has_no_figures() -> None:
    empty = Distribution.of([None, None])
    assert empty == Distribution(count=0, mean=None, p50=None, p90=None, p99=None, max=None)
    assert Distribution.of([1.0, None, 3.0]).mean == 2.0


def test_the_sha256_is_of_little_endian_int32() -> None:
    assert output_sha256([1, 258]) == hashlib.sha256(b"\1\0\0\0\2\1\0\0").hexdigest()
    assert output_sha256([]) == hashlib.sha256(b"").hexdigest()


def test_rows_are_equal_only_when_every_scheme_answered_alike() -> None:
    def row(index: int, scheme: str, *at_s: float, length: int = 2) -> RequestRecord:
        return record_of(work(length, index), outcome(*at_s), Dispatched(scheme=scheme))

    same = [row(0, "a", 1, 2), row(0, "b", 3, 4)]
    assert EqualRows.of(same, 2) == EqualRows(equal=1, rows=1)
    other = row(1, "b", 1, 2).model_copy(update={"output_sha256": "other"})
    assert EqualRows.of([*same, row(1, "a", 1, 2), other], 2) == EqualRows(equal=1, rows=2)
    assert EqualRows.of(same, 3) == EqualRows(equal=0, rows=0)  # a third scheme has not run
    # A failed row is not equal, even where both schemes failed after the same tokens.
    failed = [row(2, "a", 1, length=2), row(2, "b", 1, length=2)]
    assert EqualRows.of([*same, *failed], 2) == EqualRows(equal=1, rows=2)


def test_totals_of_repeats_add_up_and_the_peak_is_the_larger() -> None:
    both = CLOUD.plus(CloudTotals(tokens_generated=1, busy_s=1.0, kv_byte_s=1.0, kv_bytes_peak=9))
    assert (both.tokens_generated, both.busy_s, both.kv_bytes_peak) == (10, 1.5, 2048)


def document() -> ResultDocument:
    records = (record_of(work(2), outcome(1.0, 1.1), Dispatched(scheme="pd-device")),)
    return ResultDocument(
        trace="t.csv",
        trace_sha256="00",
        fidelity="fleet",
        arrivals="trace",
        pace_s=0.1,
        exactness="identical",
        valid=True,
        labels=("devices: emulated",),
        dispatch_lag_s=Distribution.of([0.0]),
        cut_rows=CutRows(
            rows=2,
            prompt=0,
            output=1,
            max_prompt_tokens=8,
            max_output_tokens=2,
            max_context_tokens=10,
        ),
        equal_rows=EqualRows.of(records, 1),
        profiles={"device": {"name": "slow", "decode_s": 0.05}},
        versions={"pd-device": "0"},
        seed=0,
        schemes={"pd-device": SchemeResult.of(records, 0.1, CLOUD, 0)},
        requests=records,
    )


def test_a_document_round_trips() -> None:
    before = document()
    assert ResultDocument.model_validate_json(before.model_dump_json()) == before


def test_a_document_has_every_field_of_the_design() -> None:
    dumped = document().model_dump(mode="json")
    assert set(dumped) >= {
        "trace",
        "fidelity",
        "arrivals",
        "pace_s",
        "exactness",
        "valid",
        "dispatch_lag_s",
        "profiles",
        "versions",
        "seed",
        "schemes",
        "requests",
    }
    scheme = dumped["schemes"]["pd-device"]
    assert set(scheme) >= {
        "requests",
        "failed",
        "ttft_s",
        "tpot_s",
        "gap_s",
        "largest_gap_s",
        "handoff_gap_s",
        "e2e_s",
        "cloud_tokens",
        "cloud_tokens_generated",
        "device_tokens",
        "disagreed",
        "cloud_busy_s",
        "cloud_kv_byte_s",
        "stalled_requests",
        "kv_bytes_peak",
    }
    assert set(scheme["kv_bytes_peak"]) == {"cloud", "device"}
    assert set(scheme["ttft_s"]) >= {"mean", "p50", "p90", "p99", "max"}
    assert set(dumped["requests"][0]) >= {
        "id",
        "scheme",
        "arrival_s",
        "prompt_tokens",
        "output_tokens",
        "planned_tokens",
        "handoff_position",
        "cloud_tokens",
        "cloud_tokens_generated",
        "ttft_s",
        "largest_gap_s",
        "handoff_gap_s",
        "output_sha256",
        "error",
    }
