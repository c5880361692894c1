"""Takes the connections of an HTTP server: never too many, and none that only waits.

Whoever can reach a port can open connections to it without a key. Each costs a file descriptor, of
which the whole process has a fixed number, the gRPC service's included. So there is a most; at the
most a new connection takes the place of one that asks again before it was answered, as no ordinary
client does; or of the one that has been quiet the longest; or else of one whose request's body is
not here yet. It is refused when all are being answered. A connection that sends no whole header in
time is closed.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from pd_core.sockets.episode import Episode

__all__ = ["Reception"]

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=asyncio.Protocol)

_REQUEST_S = 10.0  # from the connection, or a request's first byte, to the end of its header
_AT_ONCE = 16  # connections taken before those that make room for them are closed
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S = 0.5  # until the next try when the process or the machine has no descriptor left


class Reception(Generic[P]):
    """The connections of one listening socket.

    Args:
        listener: a listening, non-blocking socket; stays open.
        make_protocol: makes what speaks HTTP on a connection.
        answers: whether it is answering a request now.
        most: connections open at once.
        tls: None: plain HTTP.
        request_s: seconds a connection gets for its TLS handshake and a request's header.
        awaits_body: whether it is answering a request of which a part is still to come.

    Attributes:
        answers, awaits_body, tls, request_s: as given.
        loop: the event loop on which it was made.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], P],
        answers: Callable[[P], bool],
        most: int,
        tls: ssl.SSLContext | None = None,
        *,
        request_s: float = _REQUEST_S,
        awaits_body: Callable[[P], bool] = lambda protocol: False,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self.answers = answers
        self.awaits_body = awaits_body
        self._most = most
        self.tls = tls
        self.request_s = request_s
        self.loop = asyncio.get_running_loop()
        self._visits: dict[_Visit[P], None] = {}  # the longest quiet first
        self._pause: asyncio.TimerHandle | None = None
        port = listener.getsockname()[1]
        self._crowded = Episode(
            logger,
            f"port {port}: {most} connections are open, the most that are taken; new ones take the "
            "place of the longest idle, or are refused",
        )
        self._exhausted = Episode(
            logger,
            f"port {port}: no more connections can be taken, as no file descriptor is left; "
            "raise the limit of open files (ulimit -n)",
        )

    def open(self) -> None:
        """Take connections from now on."""
        self.loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Take no more; open connections stay."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self.loop.remove_reader(self._listener.fileno())
        self._crowded.close()
        self._exhausted.close()
        for visit in [visit for visit in self._visits if not visit.begun]:
            visit.end()

    def spoke(self, visit: "_Visit[P]") -> None:
        """Something came from this client, as the last of all."""
        if visit in self._visits:
            self._visits[visit] = self._visits.pop(visit)

    def left(self, visit: "_Visit[P]") -> None:
        """This connection is closed, or will be at once."""
        self._visits.pop(visit, None)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait_for_descriptors()
                return  # nobody waits, or the one who did has gone
            if len(self._visits) >= self._most:
                self._crowded.happened()
                if not self._send_one_away():
                    connection.close()
                    continue
            connection.setblocking(False)
            visit = _Visit(self, self._make_protocol())
            self._visits[visit] = None
            visit.begin(connection)

    def _wait_for_descriptors(self) -> None:
        """A connection that cannot be taken would wake the loop again and again."""
        self._exhausted.happened()
        self._send_one_away()
        self.loop.remove_reader(self._listener.fileno())
        self._pause = self.loop.call_later(_PAUSE_S, self.open)

    def _send_one_away(self) -> bool:
        """Close one that asks ahead, or the longest quiet of the idle, or one still sending, or one
        that does not read."""
        kinds = (_Visit.asks_ahead, _Visit.is_idle, _Visit.is_sending, _Visit.is_stalled)
        for dispensable in kinds:
            for visit in self._visits:
                if dispensable(visit):
                    visit.end()
                    return True
        return False


class _Visit(asyncio.Protocol, Generic[P]):
    """One connection, around the protocol that speaks on it."""

    def __init__(self, reception: Reception[P], protocol: P) -> None:
        self._reception = reception
        self._protocol = protocol
        self._opening: asyncio.Task[object] | None = None
        self._transport: asyncio.Transport | None = None
        self._stalled = False
        self._deadline: asyncio.TimerHandle | None = None

    def begin(self, connection: socket.socket) -> None:
        house = self._reception
        self._await_request()
        self._opening = house.loop.create_task(
            house.loop.connect_accepted_socket(
                lambda: self,
                connection,
                ssl=house.tls,
                ssl_handshake_timeout=None if house.tls is None else house.request_s,
            )
        )
        self._opening.add_done_callback(partial(self._opened, connection))

    def _opened(self, connection: socket.socket, opening: asyncio.Task[object]) -> None:
        error = None if opening.cancelled() else opening.exception()
        if error is None and not opening.cancelled():
            return
        connection.close()
        self._leave()
        if error is not None and not isinstance(error, OSError):  # those are the client's
            raise error

    @property
    def begun(self) -> bool:
        """Whether the connection is made; before it there is the TLS handshake."""
        return self._transport is not None

    def asks_ahead(self) -> bool:
        """Whether it has asked again before it was answered; HTTP reads no more of it then."""
        whole = not (self.is_idle() or self.is_sending())
        return whole and self._transport is not None and not self._transport.is_reading()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return not self._reception.answers(self._protocol)

    def is_sending(self) -> bool:
        """Whether a part of the request is still to come."""
        return self._reception.awaits_body(self._protocol)

    def is_stalled(self) -> bool:
        """Whether the client does not read its answer."""
        return self._stalled

    def end(self) -> None:
        """Close the connection at once."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a TCP connection is a stream"
        self._transport = transport
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._reception.spoke(self)
        self._protocol.data_received(data)
        if not self.is_idle():
            self._cancel_deadline()
        elif self._deadline is None:
            self._await_request()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._stalled = True
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._stalled = False
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._protocol.connection_lost(exc)

    def _await_request(self) -> None:
        house = self._reception
        self._deadline = house.loop.call_later(house.request_s, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self.is_idle():
            self.end()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _leave(self) -> None:
        self._cancel_deadline()
        self._reception.left(self)
