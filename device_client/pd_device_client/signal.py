"""A signal between the tasks of one event loop: something has changed, look again."""

import asyncio

__all__ = ["Signal"]


class Signal:
    """Wakes every waiter at each notification.

    There is no lost wake-up as long as a waiter checks its condition and calls `wait` without an
    await in between, since everything runs on one loop.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake all waiters."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next notification, or after timeout_s."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
