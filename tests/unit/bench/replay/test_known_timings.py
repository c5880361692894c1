"""A cloud whose tokens come at scripted instants gives TTFT, TPOT and gaps computed by hand."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.dispatch import Dispatcher
from pd_bench.replay.scheme_client import scheme_client
from pd_bench.replay.schemes import parse_scheme
from pd_bench.replay.workload import Work
from pd_bench.results.result import CloudTotals, RequestRecord, SchemeResult
from pd_bench.simulation.cloud.simulated_cloud import EOS_TOKEN_ID, VOCAB_SIZE
from pd_bench.simulation.tally import SchemeTally
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Limits,
    Load,
    ModelCard,
    ServerInfo,
    Start,
    Stop,
    Tokens,
)
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.speeds.profiles import SpeedProfile

PROMPT = tuple(range(10, 110))


class _ScriptedLink:
    """Token i of every answer arrives `arrivals_s[i]` after its Start."""

    def __init__(self, arrivals_s: tuple[float, ...]) -> None:
        self._arrivals_s = arrivals_s

    async def info(self) -> ServerInfo:
        model = ModelCard(
            "scripted",
            "scripted",
            Fingerprints(),
            VOCAB_SIZE,
            (EOS_TOKEN_ID,),
            10_000,
            "rolling-hash",
        )
        return ServerInfo("1", model, Limits(1000, 8, 8), Load())

    async def open(self, start: Start) -> "_ScriptedStream":
        return _ScriptedStream(start, self._arrivals_s)

    async def close(self) -> None:
        pass


class _ScriptedStream:
    def __init__(self, start: Start, arrivals_s: tuple[float, ...]) -> None:
        self._start = start
        self._arrivals_s = arrivals_s
        self._limit = start.token_limit

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        yield Admitted(Load())
        state = RollingHash(VOCAB_SIZE, (EOS_TOKEN_ID,), self._start.prompt_token_ids)
        made = 0
        for position, at_s in enumerate(self._arrivals_s):
            if position >= self._limit:
                break
            await asyncio.sleep(began_s + at_s - loop.time())
            token_id = state.next_token(position, self._start.sampling)
            state.extend((token_id,))
            made += 1
            yield Tokens(position, (token_id,))
        yield Finished(FinishReason.STOP, made)

    async def send(self, message: Extend | Stop) -> None:
        self._limit = message.token_limit if isinstance(message, Extend) else 0

    def cancel(self) -> None:
        self._limit = 0


def _measure(
    arrivals_s: tuple[float, ...],
    pace_s: float,
    scheme: str = "cloud-only",
    output_tokens: int | None = None,
) -> tuple[RequestRecord, SchemeResult]:
    """One request through the dispatcher that every replay and simulation uses."""
    tokens = output_tokens or len(arrivals_s)
    device = SpeedProfile("by hand", "a test", prefill_b_s=0.01, decode_s=0.05)
    tally = SchemeTally(pace_s, 1)
    records: list[RequestRecord] = []

    def ended(record: RequestRecord, outcome: Outcome) -> None:
        records.append(record)
        tally.add(record, outcome)

    async def main() -> None:
        sampling = SamplingParams(forced_length=tokens)
        dispatcher = Dispatcher(
            scheme,
            0,
            lambda work: Ask("a", work.prompt_token_ids, 100, sampling),
            timeout_s=60.0,
            on_end=ended,
        )
        await dispatcher.run_stream(
            [Work(0, 1, 0.0, PROMPT, tokens)],
            lambda work: scheme_client(
                parse_scheme(scheme),
                link=lambda: _ScriptedLink(arrivals_s),
                engine=lambda: EmulatedDeviceEngine(
                    device, vocab_size=VOCAB_SIZE, eos_token_ids=(EOS_TOKEN_ID,)
                ),
                pace_s=pace_s,
                device_profile=device,
            ),
        )

    run_virtual(main())
    assert records[0].error is None
    totals = CloudTotals(tokens_generated=0, busy_s=0.0, kv_byte_s=0.0, kv_bytes_peak=0)
    return records[0], tally.result(totals, 0)


def _gaps(record: RequestRecord) -> list[float]:
    return [round(gap, 9) for gap in record.gaps_s]


def test_a_cloud_faster_than_the_pace() -> None:
    record, result = _measure((0.3, 0.32, 0.34, 0.36, 0.38), pace_s=0.1)
    assert record.ttft_s == pytest.approx(0.3, abs=1e-12)
    assert _gaps(record) == [0.1] * 4
    assert record.tpot_s == pytest.approx(0.1, abs=1e-12)
    assert record.e2e_s == pytest.approx(0.7, abs=1e-12)
    assert result.ttft_s.p50 == record.ttft_s
    assert result.gap_s.count == 4
    assert result.stalled_requests == 0


def test_a_cloud_slower_than_the_pace() -> None:
    record, result = _measure((0.5, 0.8, 1.1, 1.4), pace_s=0.1)
    assert record.ttft_s == pytest.approx(0.5, abs=1e-12)
    assert _gaps(record) == [0.3] * 3
    assert record.tpot_s == pytest.approx(0.3, abs=1e-12)
    assert result.stalled_requests == result.broken_promises == 1


def test_a_stall_in_the_middle() -> None:
    record, result = _measure((0.3, 0.32, 0.34, 1.0, 1.02), pace_s=0.1)
    # Shown at 0.3, 0.4, 0.5, then nothing until 1.0; lost time is not made up: 1.1.
    assert _gaps(record) == [0.1, 0.1, 0.5, 0.1]
    assert record.tpot_s == pytest.approx(0.8 / 4, abs=1e-12)
    assert record.largest_gap_s == pytest.approx(0.5, abs=1e-12)
    assert result.largest_gap_s.max == record.largest_gap_s
    assert result.gap_s.p50 == pytest.approx(0.1, abs=1e-12)


def test_the_device_alone() -> None:
    """100 tokens at 10 ms, the first token with the last pass; then a decode step each."""
    record, _ = _measure((), pace_s=0.04, scheme="device-only", output_tokens=6)
    assert record.ttft_s == pytest.approx(1.0, abs=1e-12)
    assert _gaps(record) == [0.05] * 5
    record, _ = _measure((), pace_s=0.2, scheme="device-only", output_tokens=6)
    assert _gaps(record) == [0.2] * 5


def test_a_handoff_without_a_seam() -> None:
    """The device is ready at 1.05 s; at a pace of 0.2 s the cloud's share lasts so long."""
    arrivals_s = tuple(0.3 + 0.02 * i for i in range(20))
    record, _ = _measure(arrivals_s, pace_s=0.2, scheme="pd-device", output_tokens=20)
    assert record.ttft_s == pytest.approx(0.3, abs=1e-12)
    assert _gaps(record) == [0.2] * 19
    assert record.tpot_s == pytest.approx(0.2, abs=1e-12)
    assert record.handoff_position is not None
    assert 0 < record.handoff_position < 10
    assert record.cloud_tokens + record.device_tokens == 20
    assert record.handoff_gap_s == pytest.approx(0.2, abs=1e-12)
