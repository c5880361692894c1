"""Whether a host is this machine: only there is plaintext allowed without an explicit option.

And no proxy is used there, since a proxy's loopback is another machine's.
"""

import ipaddress
from urllib.parse import urlsplit

__all__ = ["is_loopback", "is_loopback_url"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_loopback_url(url: str) -> bool:
    """Whether only this machine can reach a URL's host."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
