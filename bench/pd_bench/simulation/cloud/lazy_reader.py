"""The reader of an answer from the cloud alone: tokens arrive in batches and are shown in time.

With no engine on the device, nothing but the reader depends on the instant at which a token
arrives. So a stream's messages may be kept for a while and handed over together, each with the
clock set to its own instant; and between two of them whatever was due is shown, at its instant,
by the session's own controller and methods. A test holds this against the session's own course.
"""

import asyncio
import math
from collections.abc import Callable

from pd_bench.emulation.virtual_loop import VirtualLoop
from pd_bench.replay.dispatch import DispatchedSession
from pd_bench.simulation.cloud.simulated_cloud import SimulatedLink
from pd_device_client.session.session import Session

__all__ = ["LazyReader", "read_lazily"]


class LazyReader:
    """Shows a session's tokens up to an instant, when told to.

    Args:
        session: the session, whose own reader is stopped.
        ends_by_s: nothing is shown at or after this instant.
    """

    def __init__(self, session: Session, ends_by_s: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "to read lazily needs a virtual clock"
        self._visit: Callable[[float], None] = loop.visit
        self._reader, self._log = session.reader, session.log
        self._ends_by_s = ends_by_s
        self._next_show_s: float | None = None

    def show_until(self, at_s: float) -> None:
        """Show all tokens due before `at_s`; the clock's time afterwards is undefined."""
        end_s = min(at_s, self._ends_by_s)
        while self._next_show_s is not None and self._next_show_s < end_s:
            shown_s = self._next_show_s
            self._visit(shown_s)
            self._next_show_s = None
            self._reader.show()
            self._decide(shown_s)

    def look(self, at_s: float) -> None:
        """React to input at `at_s`, to which the clock is set."""
        self._decide(at_s)
        if self._log.closed:
            self.show_until(math.inf)

    def _decide(self, now_s: float) -> None:
        if self._next_show_s is None and self._reader.shows_next:
            self._next_show_s = now_s + self._reader.next_wait_s()


def read_lazily(link: SimulatedLink, session: DispatchedSession, ends_by_s: float) -> None:
    """Have a session's stream over `link` read in batches."""
    assert isinstance(session, Session), "a race's reader must see its first token come"
    session.reader.held = True
    link.reader = LazyReader(session, ends_by_s)
