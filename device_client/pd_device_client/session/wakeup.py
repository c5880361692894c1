"""A signal between tasks of one event loop: something changed, check again."""

import asyncio

__all__ = ["Signal"]


class Signal:
    """Wakes every waiter at each notification.

    No wake-up is lost if a waiter checks its condition and calls `wait` without an await between.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake all waiters."""
        if self._waiters:  # often there are none
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                _wake(waiter)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next notification, or after timeout_s."""
        # A session waits several times per token; a timer costs a third of asyncio.timeout.
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
