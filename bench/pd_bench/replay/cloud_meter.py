"""What a scheme costs the cloud: the server's own totals, and its load over time."""

import asyncio
import contextlib
from itertools import count

from pd_bench.results.result import CloudTotals
from pd_bench.results.series import LoadPoint, LoadSeries
from pd_core.errors import CloudTimeout, PdError
from pd_core.generation import Load
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudMeter", "NoMeter"]

_IDLE_WITHIN_S = 60.0
_POLL_S = 0.05
_LOAD_EVERY_S = 0.25  # one small call: negligible beside a forward pass
_SAMPLES = 1 << 15  # 2.3 hours; then half as often, so that a trace of months ends


class NoMeter:
    """For a server that publishes neither its load nor its totals, as no OpenAI-compatible does.

    Attributes:
        load: no samples.
    """

    load: tuple[LoadPoint, ...] = ()

    async def start(self) -> None:
        """Do nothing."""

    async def totals(self) -> None:
        """Return None: they are not known."""


class CloudMeter:
    """Reads a server's totals when it is idle, since tokens made after a Stop count too.

    Args:
        link: the link to the server.
        idle_within_s: how long the server may take to become idle.
        load_every_s: seconds between two samples of its load; shorter peaks may be missed. They
            double after every 32,768 samples.
    """

    def __init__(
        self,
        link: CloudLink,
        idle_within_s: float = _IDLE_WITHIN_S,
        load_every_s: float = _LOAD_EVERY_S,
    ) -> None:
        self._link = link
        self._idle_within_s = idle_within_s
        self._load_every_s = load_every_s
        self._before: Load | None = None
        self._load = LoadSeries()
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the totals before a scheme."""
        self._before = await self._idle_load()
        self._watch = asyncio.ensure_future(self._watch_load())

    async def totals(self) -> CloudTotals:
        """Return the increase since `start`; the peak counts since the server's own start.

        Raises:
            TransportError: the server is gone, or did not become idle.
        """
        assert self._before is not None, "start() comes first"
        await self.stop()
        before, after = self._before, await self._idle_load()
        return CloudTotals(
            tokens_generated=after.tokens_generated - before.tokens_generated,
            busy_s=after.engine_busy_s - before.engine_busy_s,
            kv_byte_s=after.kv_byte_s - before.kv_byte_s,
            kv_bytes_peak=after.kv_bytes_peak,
        )

    @property
    def load(self) -> tuple[LoadPoint, ...]:
        """Samples of the running and waiting requests since `start`."""
        return self._load.points

    async def stop(self) -> None:
        """Stop sampling the load."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None

    async def _watch_load(self) -> None:
        """Sample the load until cancelled; others report a server that is gone."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with contextlib.suppress(PdError):
            for number in count(1):
                load = (await self._link.info()).load
                self._load.add(loop.time() - began_s, load.num_running, load.num_waiting)
                await asyncio.sleep(self._load_every_s * 2 ** (number // _SAMPLES))

    async def _idle_load(self) -> Load:
        try:
            async with asyncio.timeout(self._idle_within_s):
                while True:
                    load = (await self._link.info()).load
                    if load.num_running == load.num_waiting == 0:
                        return load
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise CloudTimeout(
                f"the server still had requests {self._idle_within_s:g} s after the last one "
                "ended here; does somebody else use it?"
            ) from None
