"""One scheme of a simulation: a cloud, and one device for every row, on one clock.

The devices are the product's own clients: session, planner, controller and emulated engine as in
a fleet replay. In addition the cloud behind the link is emulated.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.harness.bounds import warm_up_failure
from pd_bench.replay.cloud_meter import CloudMeter
from pd_bench.replay.dispatch import Client, Dispatcher
from pd_bench.replay.scheme_client import scheme_client
from pd_bench.replay.schemes import Scheme
from pd_bench.replay.workload import Work, Workload
from pd_bench.results.result import CloudTotals, RequestRecord
from pd_bench.results.series import LoadPoint
from pd_bench.simulation.cloud.lazy_reader import read_lazily
from pd_bench.simulation.cloud.simulated_cloud import (
    EOS_TOKEN_ID,
    VOCAB_SIZE,
    SimulatedCloud,
    SimulatedLink,
)
from pd_bench.simulation.foresight import ForesightEngine
from pd_bench.simulation.past_lengths import past_lengths
from pd_bench.simulation.prepared_client import PreparedClient
from pd_bench.simulation.settings import SimulationSettings
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.speeds.profiles import link_profile

__all__ = ["SimulatedFleet", "workload_of"]

_SALT = "simulated"  # one is enough: every scheme has its own cloud, so nothing can be shared


def workload_of(settings: SimulationSettings) -> Workload:
    """Return the workload that turns the trace's rows into requests.

    Raises:
        ConfigError: the limits leave no room.
    """
    info = settings.cloud.info(VOCAB_SIZE, (EOS_TOKEN_ID,))
    return Workload(
        info.model,
        info.limits.max_output_tokens,
        seed=settings.seed,
        temperature=0.0,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_output_tokens=settings.max_output_tokens,
    )


class SimulatedFleet:
    """Runs one scheme on the running loop's clock.

    Args:
        settings: the simulation's settings.
        scheme: how requests are carried.
        workload: makes the requests.
        on_end: called with every request that ends.

    Attributes:
        cloud_load: the cloud's requests over time.
    """

    def __init__(
        self,
        settings: SimulationSettings,
        scheme: Scheme,
        workload: Workload,
        on_end: Callable[[RequestRecord, Outcome], None],
    ) -> None:
        self._settings = settings
        self._scheme = scheme
        self._workload = workload
        self._on_end = on_end
        self._lengths = past_lengths(settings.past)
        self._cloud = SimulatedCloud(settings.cloud, settings.seed)
        self._before = self._cloud.load()
        self._meter = CloudMeter(SimulatedLink(self._cloud, link_profile("loopback")))

    @property
    def cloud_load(self) -> tuple[LoadPoint, ...]:
        """The cloud's requests over time."""
        return self._meter.load

    @property
    def totals(self) -> CloudTotals:
        """The cloud's totals since the warm-up; the peak includes the warm-up."""
        before, now = self._before, self._cloud.load()
        return CloudTotals(
            tokens_generated=now.tokens_generated - before.tokens_generated,
            busy_s=now.engine_busy_s - before.engine_busy_s,
            kv_byte_s=now.kv_byte_s - before.kv_byte_s,
            kv_bytes_peak=now.kv_bytes_peak,
        )

    async def run(self, works: Iterable[Work]) -> None:
        """Send every request at its arrival; return when all have ended and the cloud is idle.

        Raises:
            ConfigError: the warm-up request did not end in time.
            EngineError: it failed.
        """
        await self._warm_up()
        self._before = self._cloud.load()
        await self._meter.start()
        try:
            await self._dispatcher(self._on_end).run_stream(works, self._client)
        finally:
            await self._meter.stop()
        await self._meter.totals()  # returns when the cloud is idle
        self._cloud.engine.check_integrity()

    async def _warm_up(self) -> None:
        ended: list[RequestRecord] = []
        dispatcher = self._dispatcher(lambda record, _: ended.append(record))
        await dispatcher.run_stream([self._workload.warm_up()], self._client)
        if error := ended[0].error:
            raise warm_up_failure(error, self._settings.timeout_s, self._scheme.name)
        await asyncio.sleep(1.0)  # by then everything it started has ended

    def _dispatcher(self, on_end: Callable[[RequestRecord, Outcome], None]) -> Dispatcher:
        return Dispatcher(
            self._scheme.name,
            0,
            lambda work: self._workload.request(work, self._scheme.name, _SALT),
            timeout_s=self._settings.timeout_s,
            on_end=on_end,
        )

    def _client(self, work: Work) -> Client:
        settings, scheme, mix = self._settings, self._scheme, self._settings.mix
        device, link_to_cloud = settings.device, settings.link
        if mix is not None:
            place = mix.place(work.line)
            device, link_to_cloud = place.devices.device, place.devices.link
            if scheme.planned:
                scheme = mix.scheme(scheme, place, len(work.prompt_token_ids))
        # Every device has its own spread and jitter, the same in every scheme.
        seed = settings.seed * 1_000_003 + work.line
        link = SimulatedLink(self._cloud, link_to_cloud, seed)
        make_engine = ForesightEngine if settings.foresight else EmulatedDeviceEngine
        engine = make_engine(
            device,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=(EOS_TOKEN_ID,),
            seed=seed,
            max_context_tokens=self._cloud.info().model.max_context_tokens,
        )
        client = scheme_client(
            scheme,
            link=lambda: link,
            engine=lambda: engine,
            pace_s=settings.pace_s,
            device_profile=device,
            lengths=self._lengths,
            promise=settings.promise,
        )
        if not scheme.uses_device and settings.foresight:
            return PreparedClient(client, partial(read_lazily, link), settings.timeout_s)
        if isinstance(engine, ForesightEngine):
            return PreparedClient(client, engine.watch, settings.timeout_s)
        return client
