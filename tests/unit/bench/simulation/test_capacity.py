"""Capacity: traffic of any rate, the search, and the arithmetic beside it."""

import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.cli import main
from pd_bench.commands.capacity_search import _gain, num_slots_of
from pd_bench.replay.dispatch import Dispatched, record_of
from pd_bench.replay.schemes import parse_scheme
from pd_bench.replay.workload import Work
from pd_bench.reports.figures import CurveFigure, figures
from pd_bench.results.result import ResultDocument
from pd_bench.simulation import capacity
from pd_bench.simulation.capacity import TriedRate, find_capacity
from pd_bench.simulation.capacity_table import Gain, capacity_table, progress_line, reasons
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.kept_promise import KeptPromise
from pd_bench.simulation.overlay import Overlay
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.slot_formula import MeanLoad, compute_gain, slot_gain
from pd_bench.traces.reader import TraceRow
from pd_core.errors import ConfigError
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.speeds.profiles import SpeedProfile

CLOUD = CloudProfile(
    name="test",
    source="a test",
    step_s=0.02,
    prefill_token_s=0.0001,
    kv_bytes_per_token=100,
    kv_tokens=64 * 10_000,
    max_num_seqs=2,
    max_num_batched_tokens=512,
    max_num_waiting=1000,
    max_context_tokens=8192,
    max_output_tokens=1024,
)
ROWS = [TraceRow(i + 2, i * 1.0, 400, 50, (i, i + 1)) for i in range(21)]


def test_an_overlay_has_the_rate_asked_for_and_keeps_the_order() -> None:
    overlay = Overlay(ROWS)
    assert overlay.rate_per_s == pytest.approx(1.0)
    for rate in (0.25, 1.0, 2.5, 7.0):
        rows = list(overlay.at_rate(rate, 200.0))
        assert len(rows) == pytest.approx(rate * 200, rel=0.05)
        assert all(a.arrival_s <= b.arrival_s for a, b in itertools.pairwise(rows))
        assert all(0 <= row.arrival_s < 200 for row in rows)
        assert len({row.line for row in rows}) == len(rows)
    assert [r.arrival_s for r in overlay.at_rate(1.0, 21.0)] == [r.arrival_s for r in ROWS]


def test_copies_share_no_prompt_but_each_keeps_its_own_sharing() -> None:
    rows = list(Overlay(ROWS).at_rate(3.0, 21.0))
    by_copy: dict[int, list[TraceRow]] = {}
    for row in rows:
        by_copy.setdefault(row.line // 10_000_000, []).append(row)
    keys = [{key for row in copy for key in row.block_hashes or ()} for copy in by_copy.values()]
    for a, b in itertools.combinations(keys, 2):
        assert not a & b
    assert all(len(k) < 2 * len(copy) for k, copy in zip(keys, by_copy.values(), strict=True))


def test_rows_that_come_all_at_once_have_no_rate() -> None:
    with pytest.raises(ConfigError, match="all at once"):
        Overlay([TraceRow(2, 0.0, 10, 10), TraceRow(3, 0.0, 10, 10)])


def test_the_formula_of_the_design() -> None:
    """Azure conversation, k = 14: 15 when prefill is free, about 8 at 0.3 s of prefill."""
    free = CLOUD.model_copy(update={"prefill_token_s": 0.0, "step_s": 0.0, "decode_s": 0.02})
    whole, share = MeanLoad(1237, 211), MeanLoad(1237, 14)
    assert slot_gain(free, whole, share, 1).gain == pytest.approx(211 / 14)
    costly = free.model_copy(update={"prefill_token_s": 0.3 / 1237})
    assert slot_gain(costly, whole, share, 1).gain == pytest.approx(
        (0.3 + 4.22) / (0.3 + 0.28), rel=1e-6
    )
    assert 1 < compute_gain(CLOUD.model_copy(update={"decode_s": 0.0001}), whole, share) < 2


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer requests a rate than a real search has."""
    monkeypatch.setattr(capacity, "_LEAST_REQUESTS", 60)


@pytest.mark.slow
def test_the_capacity_of_two_slots_is_near_what_they_hold(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("the rows are given")
    device = SpeedProfile("test", "a test", 1 / 250, 0.04)
    settings = SimulationSettings(
        trace, device=device, cloud=CLOUD, link_profile="lan", pace_s=0.2, keep_requests=0
    )
    overlay, promise = Overlay(ROWS), KeptPromise(ttft_s=1.0, largest_gap_s=0.4)
    found = {}
    told: list[float] = []
    for name in ("cloud-only", "pd-device"):
        found[name] = find_capacity(
            settings,
            parse_scheme(name),
            overlay,
            promise,
            regime="slots: 2 slots",
            mean_output_tokens=10.0,
            guess_per_s=1.0,
            progress=lambda tried: told.append(tried.rate_per_s),
        )
    # Slot seconds of a whole answer: 0.06 s of prefill and 50 steps of 20 ms.
    most = 2 / (0.06 + 50 * 0.02)
    cloud_only, pd_device = found["cloud-only"].curve, found["pd-device"].curve
    assert 0.4 * most < cloud_only.capacity_per_s < 1.05 * most
    assert found["cloud-only"].cloud_tokens == pytest.approx(50)
    assert pd_device.capacity_per_s > 2 * cloud_only.capacity_per_s
    assert found["pd-device"].cloud_tokens < 25
    for curve in (cloud_only, pd_device):
        kept = [point.kept >= 0.99 for point in curve.points]
        assert kept == sorted(kept, reverse=True), "a higher rate was kept where a lower was not"
        rates = [point.rate_per_s for point in curve.points]
        good = [rate for rate, well in zip(rates, kept, strict=True) if well]
        bad = [rate for rate, well in zip(rates, kept, strict=True) if not well]
        assert max(good) == curve.capacity_per_s
        assert min(bad) <= 1.06 * curve.capacity_per_s
    assert found["pd-device"].curve.bounded
    assert len(told) == len(cloud_only.points) + len(pd_device.points)


@pytest.mark.slow
def test_devices_that_keep_the_promise_alone_bound_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("the rows are given")
    device = SpeedProfile("test", "a test", 1 / 2000, 0.04)
    settings = SimulationSettings(
        trace, device=device, cloud=CLOUD, link_profile="lan", pace_s=0.05, keep_requests=0
    )
    found = find_capacity(
        settings,
        parse_scheme("device-only"),
        Overlay(ROWS),
        KeptPromise(ttft_s=1.0, largest_gap_s=0.1),
        regime="slots",
        mean_output_tokens=5.0,
        guess_per_s=1.0,
        progress=lambda tried: None,
    )
    assert not found.curve.bounded
    assert found.curve.capacity_per_s >= 16
    promise = KeptPromise(ttft_s=1.0, largest_gap_s=0.1)
    gains = [Gain("device-only", "slots: 2 slots", found, 64.0, None)]
    shown = Console(width=200, file=io.StringIO(), record=True)
    shown.print(capacity_table(settings, promise, gains))
    assert "over 64.0" in shown.export_text()
    assert "none above was tried" in reasons(gains)[0]
    beside = MeanLoad(10.0, 5.0)
    none = _gain("device-only", "slots: 2 slots", found, found, CLOUD, beside)
    assert none.measured is None, "of two lower bounds there is no quotient"


def test_a_promise_that_nobody_can_keep_has_a_rate_of_0_and_a_reason(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("the rows are given")
    device = SpeedProfile("test", "a test", 1 / 2000, 0.04)
    settings = SimulationSettings(
        trace, device=device, cloud=CLOUD, link_profile="lan", pace_s=0.05, keep_requests=0
    )
    tried: list[TriedRate] = []
    found = find_capacity(
        settings,
        parse_scheme("cloud-only"),
        Overlay(ROWS),
        KeptPromise(ttft_s=0.001, largest_gap_s=0.1),
        regime="slots",
        mean_output_tokens=5.0,
        guess_per_s=1.0,
        progress=tried.append,
    )
    assert found.curve.capacity_per_s == 0.0
    assert found.curve.none_because is not None
    assert "not even 0.0312 requests/s" in found.curve.none_because
    assert "1 requests 1 break it, by a TTFT above 0.001 s (1)" in found.curve.none_because
    assert min(run.rate_per_s for run in tried) == found.curve.points[0].rate_per_s == 1 / 32
    for run, point in zip(tried, reversed(found.curve.points), strict=True):
        assert run.left_early
        assert not run.good
        assert run.broken > 0
        assert point.at_most
        line = progress_line("slots: 2 slots", run, 0.99)
        assert f"tried {run.rate_per_s:.3g} requests/s: of the first {run.measured}" in line
        assert "99 % are to be kept: too few, left early" in line


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"ttft_s": 0.5, "largest_gap_s": 0.1}, None),
        ({"ttft_s": 0.5, "largest_gap_s": None}, None),
        ({"ttft_s": 1.5, "largest_gap_s": 0.9}, "a TTFT above 1 s"),
        ({"ttft_s": 0.5, "largest_gap_s": 0.9}, "a gap above 0.4 s"),
        ({"ttft_s": 0.5, "largest_gap_s": 0.1, "error": "cut"}, "requests that failed"),
        ({"ttft_s": None, "largest_gap_s": None, "error": "cut"}, "requests that failed"),
    ],
)
def test_a_broken_promise_has_a_cause(
    record: dict[str, float | str | None], cause: str | None
) -> None:
    work = Work(0, 2, 0.0, (1, 2), 0)
    whole = record_of(work, Outcome("id", "pd-device", 0, 0.0), Dispatched(scheme="pd-device"))
    assert KeptPromise(1.0, 0.4).broken_by(whole.model_copy(update=record)) == cause


@pytest.mark.slow
def test_a_scheme_without_a_rate_is_a_row_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device too slow for the promise; the cloud keeps it."""
    monkeypatch.setenv("COLUMNS", "200")
    trace = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:17:{i:02}.0,400,20" for i in range(20)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]))
    out = tmp_path / "capacity.json"
    schemes, cloud = "device-only,pd-device", "small-gpu-8b"
    arguments = ["--schemes", schemes, "--device-profile", "phone", "--cloud-profile", cloud]
    arguments += ["--regimes", "slots", "--ttft", "0.5", "--pace", "0.1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", ["pd-bench", "capacity", str(trace), *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    document = ResultDocument.model_validate_json(out.read_text())
    rates = {scheme: curves[0].capacity_per_s for scheme, curves in document.capacity.items()}
    assert list(rates) == ["cloud-only", "device-only", "pd-device"]
    assert rates["device-only"] == 0.0
    assert rates["cloud-only"] > 0
    assert rates["pd-device"] > 0
    assert document.settings["gain device-only slots"] == 0.0
    assert document.settings["gain by formula device-only slots"] is None
    why = "device-only: not even"
    assert any(why in label and "a TTFT above 0.5 s" in label for label in document.labels)
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("│") and "device-on" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][2:4] == ["none", "-"]
    assert why in printed
    # A search holds no other scheme: its curves are drawn all the same, without a line at 0.
    (figure,) = [f for f in figures(document) if f.title.startswith("Capacity")]
    assert isinstance(figure, CurveFigure)
    assert [curve.name for curve in figure.curves] == list(rates)
    assert all(curve.points for curve in figure.curves)
    assert sorted(mark.text for mark in figure.marks) == ["cloud-only", "pd-device"]


def test_slots_that_a_step_has_no_tokens_for_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pd-bench", "capacity", str(tmp_path), "--slots", "2048"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--slots is 2048; a step of cloud small-gpu-8b computes 2048" in capsys.readouterr().err


def test_many_slots_are_no_more_than_a_step_has_tokens_for() -> None:
    assert num_slots_of("compute", 4, CLOUD) == 511
    assert num_slots_of("compute", 4, CLOUD.model_copy(update={"max_num_batched_tokens": 64})) == 63
    assert (
        num_slots_of("compute", 4, CLOUD.model_copy(update={"max_num_batched_tokens": 999})) == 512
    )
    assert num_slots_of("slots", 4, CLOUD) == 4
