"""A client whose session is prepared by the simulation before it runs."""

import asyncio
from collections.abc import Callable

from pd_bench.replay.dispatch import Client, DispatchedSession
from pd_device_client.contract.ask import Ask

__all__ = ["PreparedClient"]


class PreparedClient:
    """A client of one request.

    Args:
        client: the client.
        prepare: called with the session, and the instant at which the request times out.
        timeout_s: a request that takes longer fails.
    """

    def __init__(
        self, client: Client, prepare: Callable[[DispatchedSession, float], None], timeout_s: float
    ) -> None:
        self._client = client
        self._prepare = prepare
        self._timeout_s = timeout_s

    async def start(self) -> None:
        """Start the client."""
        await self._client.start()

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    def session(self, request: Ask, mode: str) -> DispatchedSession:
        """Return the client's session of a request, prepared."""
        session = self._client.session(request, mode)
        self._prepare(session, asyncio.get_running_loop().time() + self._timeout_s)
        return session
