"""A port that nobody else is given, for what must be told its port before it listens."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Hold a free port of 127.0.0.1 and yield its number.

    Connections to it are refused until a process that allows the reuse of addresses, as servers
    do, listens on it. A port that is let go before could be given to somebody else meanwhile.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
