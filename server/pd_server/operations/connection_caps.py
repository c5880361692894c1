"""How many connections each port may have, so that neither takes the other's file descriptors."""

from typing import NamedTuple

__all__ = ["ConnectionCaps", "connection_caps"]

_OWN = 64  # at least: the engine, libraries, files, connections on their way out
_MOST_GRPC = 8192  # some 50 KB of memory each
_MOST_HTTP = 256  # probes, scrapers and the odd operator


class ConnectionCaps(NamedTuple):
    """Connections open at once."""

    grpc: int
    http: int


def connection_caps(open_files: int) -> ConnectionCaps:
    """Divide what this process may have open.

    Args:
        open_files: how many files, sockets included, it may have open.
    """
    own = min(max(_OWN, open_files // 8), open_files // 2)
    http = min(_MOST_HTTP, (open_files - own) // 4)
    return ConnectionCaps(grpc=min(_MOST_GRPC, open_files - own - http), http=http)
