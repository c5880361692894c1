"""The server's ports, bound early, so that a port in use is found before the model is loaded."""

import socket

import grpc

from pd_core.sockets.listening import bind, format_address, port_taken
from pd_server.config import TlsConfig

__all__ = ["add_grpc_port", "bind_http"]


def bind_http(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    return bind(host, port, "--http-port")


def add_grpc_port(server: grpc.aio.Server, host: str, port: int, tls: TlsConfig | None) -> int:
    """Let a gRPC server listen, and return the port it got.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    # gRPC does not say why it cannot bind; a socket does.
    bind(host, port, "--grpc-port").close()
    address = format_address(host, port)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        pair = (tls.key.read_bytes(), tls.cert.read_bytes())
        authority = None if tls.client_ca is None else tls.client_ca.read_bytes()
        credentials = grpc.ssl_server_credentials(
            [pair], authority, require_client_auth=authority is not None
        )
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise port_taken(host, port, "--grpc-port") from error
