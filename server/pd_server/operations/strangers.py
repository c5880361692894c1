"""Keeps room on the gRPC port for devices when others only hold connections open.

gRPC bounds its connections, and refuses all new ones while it has the most. It does not know which
of them have shown a key. So when it is nearly full, those that never made a call are closed here,
the oldest first: gRPC takes the end of the socket as the client's.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from pathlib import Path
from urllib.parse import unquote

from pd_core.sockets.episode import Episode

__all__ = ["Strangers"]

logger = logging.getLogger(__name__)

_OPEN_FILES = Path("/dev/fd")  # on Linux and macOS
_LOOK_S = 0.5
_CROWDED = 3 / 4  # of the most connections

_Peer = tuple[str, int]


class Strangers:
    """The connections of one port whose clients have made no call.

    Args:
        port: the port.
        most: connections open at once.
    """

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._room = int(most * _CROWDED)
        self._known: set[_Peer] = set()
        self._seen: dict[_Peer, None] = {}  # strangers of the last look, the oldest first
        self._crowded = Episode(
            logger,
            f"port {port} has nearly the most connections it may have ({most}); the oldest that "
            "never made a call are closed",
        )

    def made_a_call(self, peer: str) -> None:
        """This client's key was right, or none is asked for.

        Args:
            peer: as gRPC writes it, such as "ipv4:127.0.0.1:5000".
        """
        host, _, port = unquote(peer).partition(":")[2].rpartition(":")
        if port.isdecimal():
            self._known.add((host.strip("[]").removeprefix("::ffff:"), int(port)))

    async def watch(self) -> None:
        """Look after the port until cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                if max(_num_open(), len(self._known)) >= self._room:
                    await self.close_some()
        finally:
            self._crowded.close()

    async def close_some(self) -> None:
        """Close strangers, if the port is nearly full; not those that have come since last time."""
        open_now = await asyncio.to_thread(_connections, self._port)
        self._known &= open_now.keys()
        strangers = open_now.keys() - self._known
        oldest = [peer for peer in self._seen if peer in strangers]
        too_many = oldest[: max(0, len(open_now) - self._room)]
        if too_many:
            self._crowded.happened(len(too_many))
            await asyncio.to_thread(_close, {peer: open_now[peer] for peer in too_many})
        self._seen = dict.fromkeys([*oldest, *strangers])


def _num_open() -> int:
    try:
        return sum(1 for _ in _OPEN_FILES.iterdir())
    except OSError:
        return 0  # no descriptor left to look with, or no such folder here


def _connections(port: int) -> dict[_Peer, int]:
    """Return the descriptor of each connection to a port, by its peer."""
    found = {}
    for entry in _OPEN_FILES.iterdir():
        peer = _peer(int(entry.name), port)
        if peer is not None:
            found[peer] = int(entry.name)
    return found


def _peer(number: int, port: int | None = None) -> _Peer | None:
    """Return who is at the other end of a descriptor; None if it is no connection to the port."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return None
        borrowed = socket.socket(fileno=number)
    except OSError:
        return None  # closed meanwhile
    try:
        ours, peer = borrowed.getsockname(), borrowed.getpeername()
    except OSError:
        return None
    finally:
        borrowed.detach()  # it stays gRPC's
    if not isinstance(ours, tuple) or port not in (None, ours[1]):
        return None
    return peer[0].removeprefix("::ffff:"), peer[1]


def _close(connections: dict[_Peer, int]) -> None:
    """End these connections, unless the descriptor is meanwhile another's."""
    for peer, number in connections.items():
        with contextlib.suppress(OSError):  # it has gone by itself
            held = os.dup(number)  # so that it cannot become another's now
            try:
                if _peer(held) == peer:
                    with socket.socket(fileno=os.dup(held)) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
            finally:
                os.close(held)
