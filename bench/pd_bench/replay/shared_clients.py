"""The turns of a conversation come from one device: rows of a session share a client."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from pd_bench.replay.dispatch import Client, DispatchedSession
from pd_bench.replay.workload import Work
from pd_device_client.contract.ask import Ask

__all__ = ["SharedClients"]


class SharedClients:
    """Gives every row its client: a new one, or that of its session.

    A session's client is started for its first row and closed after its last, so what the device
    has learnt stays with it from turn to turn.

    Args:
        works: all rows of the pass.
        make: makes a row's client.
    """

    def __init__(self, works: Iterable[Work], make: Callable[[Work], Client]) -> None:
        self._make = make
        self._rows = Counter(work.session for work in works if work.session is not None)
        self._shared: dict[str, _Shared] = {}

    def client_of(self, work: Work) -> Client:
        """Return a row's client; it is started and closed once for each of its rows."""
        if work.session is None or self._rows[work.session] == 1:
            return self._make(work)
        if work.session not in self._shared:
            self._shared[work.session] = _Shared(self._make(work), self._rows[work.session])
        return self._shared[work.session]

    async def close(self) -> None:
        """Close the clients of sessions that were broken off before their last row."""
        for shared in self._shared.values():
            await shared.close_now()


class _Shared:
    """A client of several rows."""

    def __init__(self, client: Client, num_rows: int) -> None:
        self._client = client
        self._rows_left = num_rows
        self._starting = asyncio.Lock()
        self._started = False

    async def start(self) -> None:
        async with self._starting:
            if not self._started:
                await self._client.start()
                self._started = True

    async def close(self) -> None:
        self._rows_left -= 1
        if not self._rows_left:
            await self._client.close()

    async def close_now(self) -> None:
        if self._rows_left > 0:
            self._rows_left = 0
            await self._client.close()

    def session(self, request: Ask, mode: str) -> DispatchedSession:
        return self._client.session(request, mode)
