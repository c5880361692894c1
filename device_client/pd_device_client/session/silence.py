"""A timeout on silence: ends a wait when no message came for too long.

`asyncio.timeout` with `reschedule` does the same, but makes a timer for every message. Here one
timer stays, and is set again when it fires too early.
"""

import asyncio
from types import TracebackType

__all__ = ["Silence"]


class Silence:
    """Raises TimeoutError out of its `async with` block after `wait_s` without `heard`.

    Args:
        wait_s: the longest wait for the first message.
    """

    def __init__(self, wait_s: float) -> None:
        self._first_wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._ends_s = self._rings_s = 0.0

    async def __aenter__(self) -> "Silence":
        await self._timeout.__aenter__()
        self._ring_at(self._loop.time() + self._first_wait_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def heard(self, now_s: float, wait_s: float) -> None:
        """A message came at `now_s`; wait up to `wait_s` for the next."""
        self._ends_s = ends_s = now_s + wait_s
        if ends_s < self._rings_s:
            assert self._timer is not None, "the timer runs inside the block"
            self._timer.cancel()
            self._ring_at(ends_s)

    def _ring_at(self, at_s: float) -> None:
        self._ends_s = self._rings_s = at_s
        self._timer = self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        if self._loop.time() < self._ends_s:
            self._ring_at(self._ends_s)
        else:
            self._timeout.reschedule(self._ends_s)  # already past, so the wait ends now
