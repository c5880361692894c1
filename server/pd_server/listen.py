"""Ports to listen on: taken early, so that a taken one is found before a model is loaded."""

import errno
import socket

import grpc

from pd_core.errors import ConfigError, PortInUse
from pd_server.config import TlsConfig

__all__ = ["add_grpc_port", "bind_http", "format_address"]


def bind_http(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        PortInUse: somebody else listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    return _bind(host, port, "--http-port")


def add_grpc_port(server: grpc.aio.Server, host: str, port: int, tls: TlsConfig | None) -> int:
    """Let a gRPC server listen, and return the port it got.

    Raises:
        PortInUse: somebody else listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    # gRPC does not say why it cannot bind; a socket does.
    _bind(host, port, "--grpc-port").close()
    address = format_address(host, port)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        pair = (tls.key.read_bytes(), tls.cert.read_bytes())
        return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise PortInUse(_taken(host, port, "--grpc-port")) from error


def format_address(host: str, port: int) -> str:
    """Return host:port, with brackets about an IPv6 address."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def _bind(host: str, port: int, option: str) -> socket.socket:
    bare = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"--host {host} is no address ({error.strerror}); use 127.0.0.1 or one of this machine"
        ) from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(_taken(host, port, option)) from error
        raise ConfigError(
            f"cannot listen on {format_address(host, port)} ({error.strerror}); choose another "
            f"--host or {option}"
        ) from error
    listener.setblocking(False)
    return listener


def _taken(host: str, port: int, option: str) -> str:
    return (
        f"port {port} on {host} is in use; stop what listens there, or give {option} another "
        "(0 picks a free one)"
    )
