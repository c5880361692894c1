import io

from rich.console import Console

from pd_bench.replay.dispatch import Dispatched, record_of
from pd_bench.replay.workload import Work
from pd_bench.reports.table import print_result
from pd_bench.results.result import (
    CloudTotals,
    CutRows,
    Distribution,
    EqualRows,
    RequestRecord,
    ResultDocument,
    SchemeResult,
)
from pd_core.errors import QueueFull
from pd_device_client.contract.outcome import Origin, Outcome, Shown


def record(
    scheme: str, *at_s: float, failed: bool = False, notes: tuple[str, ...] = ()
) -> RequestRecord:
    shown = [Shown(i, i, "", Origin.CLOUD, at) for i, at in enumerate(at_s)]
    outcome = Outcome("r", scheme, 0, 0.1, shown, cloud_tokens=len(shown))
    outcome.notes = list(notes)
    outcome.error = QueueFull("full") if failed else None
    return record_of(Work(0, 2, 0.0, (1,), len(at_s)), outcome, Dispatched(scheme=scheme))


def printed(*records: RequestRecord, partial: bool = False, because: tuple[str, ...] = ()) -> str:
    cost = CloudTotals(tokens_generated=77, busy_s=1.5, kv_byte_s=3e6, kv_bytes_peak=2_000_000)
    document = ResultDocument(
        trace="t.csv",
        trace_sha256="00",
        fidelity="fleet",
        arrivals="trace",
        pace_s=0.1,
        exactness="identical",
        valid=not because,
        invalid_because=because,
        partial=partial,
        labels=("devices: emulated, slow", "link: emulated, wifi"),
        dispatch_lag_s=Distribution.of([0.001]),
        cut_rows=CutRows(
            rows=9,
            prompt=3,
            output=1,
            max_prompt_tokens=8,
            max_output_tokens=2,
            max_context_tokens=10,
        ),
        equal_rows=EqualRows.of(records, len(records)),
        profiles={},
        versions={},
        seed=0,
        schemes={r.scheme: SchemeResult.of([r], 0.1, cost, 1_000_000) for r in records},
        requests=records,
    )
    out = io.StringIO()
    print_result(document, Console(file=out, width=80))
    return out.getvalue()


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if name in line)
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_schemes_stand_side_by_side() -> None:
    text = printed(record("cloud-only", 0.5, 0.6), record("pd-device", 12.0, 12.5))
    assert row(text, "TTFT p50/p99") == ["500.0 / 500.0", "12000 / 12000"]
    assert row(text, "largest gap") == ["100.0 / 100.0", "500.0 / 500.0"]
    assert row(text, "stalled") == ["0", "1"]
    assert row(text, "handoff gap") == ["- / -", "- / -"]
    assert row(text, "cloud tokens generated") == ["77", "77"]
    assert row(text, "cloud busy") == ["1.50", "1.50"]
    assert row(text, "KV peak") == ["2.0 / 1.0", "2.0 / 1.0"]
    assert "rows with equal answers in all schemes: 1/1" in text
    assert "…" not in text  # nothing is cut off at eighty columns


def test_everything_emulated_is_named_with_the_figures() -> None:
    text = printed(record("pd-device", 0.5))
    assert "t.csv: fleet, trace arrivals, pace 0.1 s" in text
    assert "- devices: emulated, slow" in text
    assert "- link: emulated, wifi" in text
    assert "- cut of 9 rows: 3 prompts to 8 tokens, 1 answers to 2 tokens" in text
    assert "(room for both: 10 tokens)" in text
    assert "INVALID" not in text


def test_failures_partial_and_invalid_runs_cannot_be_overlooked() -> None:
    text = printed(record("pd-device", 0.5, failed=True), partial=True, because=("interrupted",))
    assert row(text, "failed") == ["1"]
    assert "(PARTIAL)" in text
    assert "INVALID: interrupted" in text
    assert "rows with equal answers in all schemes: 0/1" in text


def test_what_requests_noted_is_printed_once_with_its_count() -> None:
    text = printed(
        record("pd-device", 0.5, notes=("cloud: the weights differ", "cloud: the weights differ")),
        record("cloud-only", 0.5, notes=("[red]slow[/]", "cloud: the weights differ")),
    )
    assert "- noted by 2 requests: cloud: the weights differ\n" in text
    assert "- noted by 1 request: [red]slow[/]\n" in text


def test_why_requests_failed_is_printed_with_how_many() -> None:
    def failed(scheme: str, error: str) -> RequestRecord:
        return record(scheme, failed=True).model_copy(update={"error": error})

    text = printed(
        failed("cloud-only", "QueueFull: no room for 7"),
        failed("cloud-only", "QueueFull: no room for 9"),
        failed("pd-device", "CloudUnavailable: \x1b[2Jgone"),
        record("x", 0.5),
    )
    assert "- why 2 requests failed, such as: cloud-only: QueueFull: no room for 7\n" in text
    assert "- why 1 request failed: pd-device: CloudUnavailable:  [2Jgone\n" in text
    assert text.count("- why ") == 2


def test_many_notes_are_cut_to_the_most_frequent_ones() -> None:
    often, once = "often", tuple(f"once {letter}" for letter in "abcdefghijkl")
    text = printed(record("pd-device", 0.5, notes=(*once, often)), record("x", 0.5, notes=(often,)))
    assert text.count("noted by") == 10
    assert "- noted by 2 requests: often" in text
    assert "- and 3 notes more, in the document's requests" in text


def test_notes_that_differ_in_numbers_alone_are_one() -> None:
    text = printed(
        record("pd-device", 0.5, notes=("needs 2.41 s", "needs 7 s")),
        record("x", 0.5, notes=("needs 0.9 s",)),
        record("y", 0.5, notes=("it is slow",)),
    )
    assert text.count("needs") == 1
    assert "- noted by 2 requests, such as: needs " in text
    assert "- noted by 1 request: it is slow\n" in text


def test_a_table_in_a_pipe_is_as_wide_as_its_schemes() -> None:
    names = ("device-only", "cloud-only", "pd-device", "pd-device-k14", "race-only")
    text = printed(*(record(name, 0.5) for name in names))
    assert "…" not in text
    assert all(name in text for name in names)
