"""The model's life: loaded, lent, unloaded when idle, loaded again; memory and battery."""

import asyncio
import ctypes
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import ModelError, NotReady
from pd_device_client.device import residency as residency_module
from pd_device_client.device.battery import Battery, BatteryPolicy, read_battery
from pd_device_client.device.device import Device
from pd_device_client.device.residency import Phase, Residency
from pd_device_client.engine.memory import give_memory_back


class FakeDevice:
    """Counts how often it is opened and closed."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.fails = False
        self.loaded = SimpleNamespace(name="m", max_context_tokens=512)

    async def open(self) -> Device:
        await asyncio.sleep(3.0)
        if self.fails:
            raise ModelError("no room")
        self.opened += 1
        return cast(Device, self)

    async def close(self) -> None:
        self.closed += 1


class Observer:
    """Sees devices, and says whether one is in use."""

    def __init__(self) -> None:
        self.busy = False
        self.seen: list[Device] = []

    async def loaded(self, device: Device) -> None:
        self.seen.append(device)


def _run(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


def test_it_is_not_ready_before_it_is_loaded_and_gone_after_it_is_closed() -> None:
    async def main() -> None:
        fake = FakeDevice()
        residency = Residency(fake.open, Observer())
        with pytest.raises(NotReady, match="loading"):
            await residency.wake()
        assert not residency.phase.serving
        await residency.load()
        assert cast(object, await residency.wake()) is fake
        assert (residency.model_name, residency.max_context_tokens) == ("m", 512)
        await asyncio.sleep(1e6)  # without a keep-alive it stays
        assert residency.phase is Phase.READY
        await residency.close()
        assert fake.closed == 1
        with pytest.raises(NotReady, match="closed"):
            await residency.wake()

    _run(main())


def test_without_requests_it_is_unloaded_and_the_next_one_loads_it_once_for_all() -> None:
    async def main() -> None:
        fake, loop, observer = FakeDevice(), asyncio.get_running_loop(), Observer()
        residency = Residency(fake.open, observer, keep_alive_s=60.0)
        await residency.load()
        for _ in range(5):
            await asyncio.sleep(50)
            await residency.wake()
        assert residency.phase is Phase.READY
        await asyncio.sleep(61)
        assert (residency.phase, fake.closed) == (Phase.ASLEEP, 1)
        assert residency.phase.serving
        assert residency.model_name == "m"
        asked_s = loop.time()
        devices = await asyncio.gather(*(residency.wake() for _ in range(4)))
        assert loop.time() - asked_s == pytest.approx(3.0)
        assert len({id(d) for d in devices}) == 1
        assert fake.opened == 2
        assert cast(object, observer.seen) == [fake, fake], "each is seen before it serves"
        await asyncio.sleep(100)
        assert residency.phase.value == "asleep"
        await residency.close()

    _run(main())


def test_what_is_unloaded_is_given_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()

    async def main() -> None:
        fake = FakeDevice()
        monkeypatch.setattr(residency_module, "give_memory_back", lambda: given.append(fake.closed))
        residency = Residency(fake.open, Observer(), keep_alive_s=1.0)
        await residency.load()
        await asyncio.sleep(2)
        assert given == [1], "after it was closed"
        await residency.close()

    _run(main())


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library gives it back itself"
)
def test_freed_memory_goes_back_to_the_system() -> None:
    before = psutil.Process().memory_info().rss
    # Blocks that are not mapped one by one, and some that stay between them.
    blocks = [bytearray(100_000) for _ in range(2000)]
    del blocks[::2], blocks[::3]
    kept = blocks[::20]
    del blocks
    give_memory_back()
    assert psutil.Process().memory_info().rss < before + 100_000_000  # of 200 that were taken
    assert len(kept) > 10


def test_an_answer_that_is_carried_keeps_it_however_long_it_takes() -> None:
    async def main() -> None:
        fake, observer = FakeDevice(), Observer()
        observer.busy = True
        residency = Residency(fake.open, observer, keep_alive_s=20.0)
        await residency.load()
        await asyncio.sleep(1000)
        assert residency.phase is Phase.READY
        observer.busy = False
        await asyncio.sleep(15)
        assert residency.phase is Phase.READY, "the time counts from the answer's end"
        await asyncio.sleep(15)
        assert residency.phase.value == "asleep"
        await residency.close()

    _run(main())


def test_a_load_that_fails_is_told_and_tried_again_by_the_next_request() -> None:
    async def main() -> None:
        fake = FakeDevice()
        residency = Residency(fake.open, Observer(), keep_alive_s=10.0)
        await residency.load()
        await asyncio.sleep(20)
        fake.fails = True
        for _ in range(2):
            with pytest.raises(ModelError, match="no room"):
                await residency.wake()
            assert residency.phase.value == "asleep"
        fake.fails = False
        await residency.wake()
        assert residency.phase is Phase.READY
        await residency.close()

    _run(main())


def test_a_first_load_that_fails_is_final() -> None:
    async def main() -> None:
        fake = FakeDevice()
        fake.fails = True
        residency = Residency(fake.open, Observer())
        with pytest.raises(ModelError):
            await residency.load()
        assert residency.phase is Phase.FAILED

    _run(main())


@pytest.mark.parametrize(
    ("battery", "spared"),
    [
        (None, False),
        (Battery(5, plugged=True), False),
        (Battery(5, plugged=None), False),
        (Battery(19.9, plugged=False), True),
        (Battery(20.0, plugged=False), False),
    ],
)
def test_a_low_battery_is_spared(battery: Battery | None, spared: bool) -> None:
    assert BatteryPolicy(20.0).spares(battery) is spared
    assert not BatteryPolicy(0).spares(battery)


def test_the_battery_is_read_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(percent=42, power_plugged=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: state, raising=False)
    assert read_battery() == Battery(42.0, plugged=False)
    state.power_plugged = None
    assert read_battery() == Battery(42.0, plugged=None)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert read_battery() is None
    monkeypatch.delattr(psutil, "sensors_battery")
    assert read_battery() is None
