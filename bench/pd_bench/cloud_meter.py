"""What a scheme cost the cloud: the server's own totals before and after it."""

import asyncio

from pd_bench.result import CloudTotals
from pd_core.errors import CloudTimeout
from pd_core.generation import Load
from pd_device_client.ports import CloudLink

__all__ = ["CloudMeter"]

_IDLE_WITHIN_S = 60.0
_POLL_S = 0.05


class CloudMeter:
    """Reads a server's totals when it is idle, since tokens made after a Stop count too."""

    def __init__(self, link: CloudLink, idle_within_s: float = _IDLE_WITHIN_S) -> None:
        self._link = link
        self._idle_within_s = idle_within_s
        self._before: Load | None = None

    async def start(self) -> None:
        """Read the totals before a scheme."""
        self._before = await self._idle_load()

    async def totals(self) -> CloudTotals:
        """Return what was added since `start`; the peak is the server's since it started.

        Raises:
            TransportError: the server is gone, or did not become idle.
        """
        assert self._before is not None, "start() comes first"
        before, after = self._before, await self._idle_load()
        return CloudTotals(
            tokens_generated=after.tokens_generated - before.tokens_generated,
            busy_s=after.engine_busy_s - before.engine_busy_s,
            kv_byte_s=after.kv_byte_s - before.kv_byte_s,
            kv_bytes_peak=after.kv_bytes_peak,
        )

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
