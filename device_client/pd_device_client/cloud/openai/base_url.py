"""The address of an OpenAI-compatible server, checked."""

from urllib.parse import SplitResult, urlsplit

from pd_core.errors import ConfigError
from pd_core.sockets.loopback import is_loopback

__all__ = ["checked_base_url", "url_host"]


def checked_base_url(url: str, *, insecure: bool = False) -> str:
    """Return the URL to which "/completions" is added: without a path it gets /v1.

    Args:
        url: as the user gave it.
        insecure: allow plaintext to another machine.

    Raises:
        ConfigError: it is no such address, holds a key, or is plaintext beyond this machine.
    """
    parts = _split(url)
    if parts is None:
        # Not repeated here: what is wrong with it may be a password.
        raise ConfigError(
            "--cloud is no address of a server; give HOST:PORT of a pd-server, or a URL such as "
            "https://HOST/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "--cloud holds a user name or a password, which logs would show; leave them out, and "
            "give the key with --api-key-file"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            "--cloud has a part after ? or #; give the address alone, such as https://HOST/v1, and "
            "a key with --api-key-file"
        )
    host = parts.hostname or ""
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise ConfigError(
            f"{host} is not on this machine and http:// would be plaintext; give https://, or "
            "--insecure by name"
        )
    path = parts.path.rstrip("/") or "/v1"
    for end in ("/chat/completions", "/completions"):
        path = path.removesuffix(end)
    return f"{parts.scheme}://{parts.netloc}{path}"


def url_host(url: str) -> str:
    """Return the host of a checked URL."""
    return urlsplit(url).hostname or ""


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no port
    except ValueError:
        return None
    known = parts.scheme in ("http", "https") and parts.hostname
    return parts if known and not any(c.isspace() for c in url) else None
