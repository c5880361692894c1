"""The proxy that is taken from the environment: gRPC's, as its core chooses it, and HTTP's."""

import os
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pd_core.sockets.loopback import is_loopback, is_loopback_url

__all__ = ["http_proxy_words", "proxy_options", "proxy_words", "uses_http_proxy"]

# gRPC reads only the lower case; the first that is set decides, even if it is empty.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def proxy_options(host: str) -> list[tuple[str, int]]:
    """Return the channel options for a host: on loopback, no proxy is ever used.

    It could only fail, or pass prompts in the clear through another machine.
    """
    return [("grpc.enable_http_proxy", 0)] if is_loopback(host) else []


def proxy_words(host: str) -> str:
    """Return which variable sends calls to a host through which proxy, for errors; "" if none does.

    A user name and password of the proxy are left out.
    """
    variable = next((name for name in _PROXIES if name in os.environ), None)
    if variable is None or is_loopback(host) or _excepted(host):
        return ""
    try:
        url = urlsplit(os.environ[variable])
    except ValueError:
        return ""
    if url.scheme != "http":  # gRPC knows no other
        return ""
    return (
        f"the variable {variable} sends it through the proxy {url.netloc.rpartition('@')[2]}; if "
        f"it should not, put {host} into no_proxy"
    )


def uses_http_proxy(url: str) -> bool:
    """Whether the environment's proxies count for a URL: never for one of this machine."""
    return not is_loopback_url(url)


def http_proxy_words(url: str) -> str:
    """Return through which proxy HTTP calls to a URL go, for errors; "" if through none."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    scheme = next((name for name in (parts.scheme, "all") if name in proxies), None)
    if scheme is None or not uses_http_proxy(url) or proxy_bypass(host):
        return ""
    try:
        through = urlsplit(proxies[scheme]).netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return (
        f"the variable {scheme}_proxy sends it through the proxy {through}; if it should not, put "
        f"{host} into no_proxy"
    )


def _excepted(host: str) -> bool:
    """Whether no_proxy names the host, the end of its name, or a network it is in."""
    said = next((os.environ[name] for name in _EXCEPTIONS if name in os.environ), "")
    bare = host.strip("[]").lower()
    entries = [entry for each in said.split(",") if (entry := each.strip().lower())]
    return any(bare.endswith(entry) or _in_network(bare, entry) for entry in entries)


def _in_network(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
