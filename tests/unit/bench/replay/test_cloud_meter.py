import asyncio
from collections.abc import Sequence

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.cloud_meter import CloudMeter
from pd_bench.results.result import CloudTotals
from pd_core.errors import CloudTimeout
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo, Start
from pd_device_client.contract.ports import CloudStream


class FakeLink:
    """Reports one load after the other, the last one for ever."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._loads = list(loads)
        self.last_told = asyncio.Event()
        self.num_asked = 0

    async def info(self) -> ServerInfo:
        self.num_asked += 1
        load = self._loads.pop(0) if len(self._loads) > 1 else self._loads[0]
        if len(self._loads) == 1:
            self.last_told.set()
        model = ModelCard("m", "torch", Fingerprints(), 1, (), 1)
        return ServerInfo("0", model, Limits(1, 1, 1), load)

    async def open(self, start: Start) -> CloudStream:
        raise AssertionError("a meter opens no stream")

    async def close(self) -> None:
        """Nothing is held."""


def load(busy_s: float, tokens: int, *, running: int = 0, waiting: int = 0) -> Load:
    return Load(
        num_running=running,
        num_waiting=waiting,
        engine_busy_s=busy_s,
        kv_byte_s=busy_s * 10,
        kv_bytes_peak=int(busy_s * 100),
        tokens_generated=tokens,
    )


async def test_totals_are_read_when_the_server_is_idle() -> None:
    link = FakeLink(
        [
            load(1.0, 5),
            # After the last answer the server is still making tokens that nobody waits for.
            load(2.0, 8, running=1),
            load(2.5, 9, waiting=1),
            load(3.0, 12),
        ]
    )
    meter = CloudMeter(link)
    await meter.start()
    assert await meter.totals() == CloudTotals(
        tokens_generated=7, busy_s=2.0, kv_byte_s=20.0, kv_bytes_peak=300
    )


async def test_a_server_that_never_rests_is_an_error() -> None:
    meter = CloudMeter(FakeLink([load(1.0, 1, running=1)]), idle_within_s=0.1)
    with pytest.raises(CloudTimeout, match="somebody else"):
        await meter.start()


async def test_the_load_is_watched_from_the_start_of_a_pass_to_its_end() -> None:
    link = FakeLink([load(1.0, 5), load(1.0, 5), load(1.1, 6, running=2, waiting=1), load(2.0, 9)])
    meter = CloudMeter(link, load_every_s=0.001)
    await meter.start()
    await asyncio.wait_for(link.last_told.wait(), 60)
    await meter.totals()
    assert [(p.running, p.waiting) for p in meter.load[:2]] == [(0, 0), (2, 1)]
    assert [p.at_s for p in meter.load] == sorted(p.at_s for p in meter.load)
    watched = len(meter.load)
    await asyncio.sleep(0.01)
    assert len(meter.load) == watched


@pytest.mark.slow
def test_a_trace_of_a_year_is_watched_ever_more_rarely() -> None:
    link = FakeLink([load(1.0, 5)])
    meter = CloudMeter(link, load_every_s=2.0)

    async def watched(seconds: float) -> int:
        await meter.start()
        await asyncio.sleep(seconds)
        await meter.stop()
        return link.num_asked

    assert run_virtual(watched(3600)) == 1 + 1800
    assert run_virtual(watched(365 * 86_400)) < 10 * (1 << 15)
    assert meter.load[-1].at_s > 360 * 86_400
