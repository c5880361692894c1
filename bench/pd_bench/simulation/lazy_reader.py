"""The reader of an answer that only the cloud makes: tokens taken in by the batch, shown in time.

With no engine on the device, nothing but the reader depends on the instant at which a token
arrives. So a stream's messages may be kept for a while and handed over together, each with the
clock set to its own instant; and between two of them whatever was due is shown, at its instant,
by the session's own controller and methods. A test holds this against the session's own course.
"""

import asyncio
import math
from collections.abc import Callable

from pd_bench.dispatch import Client
from pd_bench.dispatch import Session as DispatchedSession
from pd_bench.simulation.cloud import SimulatedLink
from pd_bench.simulation.virtual_loop import VirtualLoop
from pd_device_client.outcome import GenerationRequest
from pd_device_client.session import Session

__all__ = ["LazyClient", "LazyReader"]


class LazyClient:
    """A client without an engine, of one request.

    Args:
        client: the client.
        link: its link.
        timeout_s: nothing is shown ahead of time beyond so many seconds from the submit.
    """

    def __init__(self, client: Client, link: SimulatedLink, timeout_s: float) -> None:
        self._client = client
        self._link = link
        self._timeout_s = timeout_s

    async def start(self) -> None:
        """Start the client."""
        await self._client.start()

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    def session(self, request: GenerationRequest, mode: str) -> DispatchedSession:
        """Return the client's session of a request, read lazily."""
        session = self._client.session(request, mode)
        assert isinstance(session, Session), "a race's reader must see its first token come"
        session.hold_reader = True
        ends_by_s = asyncio.get_running_loop().time() + self._timeout_s
        self._link.reader = LazyReader(session, ends_by_s)
        return session


class LazyReader:
    """Shows a session's tokens when it is told how far time has come.

    Args:
        session: whose reader waits.
        ends_by_s: nothing is shown at or after this instant.
    """

    def __init__(self, session: Session, ends_by_s: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "to read lazily needs a virtual clock"
        self._visit: Callable[[float], None] = loop.visit
        self._session = session
        self._ends_by_s = ends_by_s
        self._next_show_s: float | None = None

    def show_until(self, at_s: float) -> None:
        """Show all that is due before `at_s`; the clock is left anywhere."""
        end_s = min(at_s, self._ends_by_s)
        while self._next_show_s is not None and self._next_show_s < end_s:
            shown_s = self._next_show_s
            self._visit(shown_s)
            self._next_show_s = None
            self._session.show()
            self._decide(shown_s)

    def look(self, at_s: float) -> None:
        """Something was taken in at `at_s`, which the clock shows."""
        self._decide(at_s)
        if self._session.complete:
            self.show_until(math.inf)

    def _decide(self, now_s: float) -> None:
        if self._next_show_s is None and self._session.shows_next:
            self._next_show_s = now_s + self._session.next_wait_s()
