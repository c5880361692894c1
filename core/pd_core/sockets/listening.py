"""A listening socket of our own: bound before anything is loaded, with clear errors."""

import errno
import socket

from pd_core.errors import ConfigError, PortInUse

__all__ = ["bind", "format_address", "port_taken"]


# A port that was used a moment ago may be used again. On Windows that option would let another
# program take a port in use; there this one forbids it.
_ALONE: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)


def bind(host: str, port: int, option: str) -> socket.socket:
    """Return a listening, non-blocking socket.

    Args:
        host: an address of this machine; an IPv6 address may be in brackets.
        port: 0 picks a free one.
        option: the option that sets the port, for the message.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    bare = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"--host {host} is no address ({reason}); use 127.0.0.1 or one of this machine"
        ) from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ALONE, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken(host, port, option) from error
        raise ConfigError(
            f"cannot listen on {format_address(host, port)} ({error.strerror}); choose another "
            f"--host or {option}"
        ) from error
    listener.setblocking(False)
    return listener


def format_address(host: str, port: int) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def port_taken(host: str, port: int, option: str) -> PortInUse:
    """Return the error for a port that another process uses."""
    return PortInUse(
        f"port {port} on {host} is in use; stop what listens there, or give {option} another "
        "(0 picks a free one)"
    )
