"""One bearer key, compared in constant time."""

import hmac
from pathlib import Path

from pd_core.errors import ConfigError, Unauthenticated

__all__ = ["ApiKey", "checked_api_key", "read_api_key"]

_SCHEME = "bearer "


class ApiKey:
    """Checks the `authorization` header of a call or an HTTP request.

    Args:
        key: the expected key, or None when none is asked for.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def __repr__(self) -> str:
        return f"ApiKey({'set' if self._key is not None else 'none'})"

    def check(self, authorization: str | bytes | None) -> None:
        """Let the right key pass.

        Raises:
            Unauthenticated: a key is asked for, and this is none or another.
        """
        if self._key is None:
            return
        if isinstance(authorization, bytes):
            authorization = authorization.decode("latin-1")
        if not authorization or not authorization.lower().startswith(_SCHEME):
            raise Unauthenticated(
                "no key was sent; this server asks for the header 'authorization: Bearer <key>'"
            )
        given = authorization[len(_SCHEME) :].strip().encode()
        if not hmac.compare_digest(given, self._key):
            raise Unauthenticated("the key is wrong; use the key this server was started with")


def read_api_key(path: Path) -> str:
    """Read a key file: one line, printable ASCII without spaces.

    Raises:
        ConfigError: the file cannot be read or holds no such key. The key itself is never shown.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the key file {path} cannot be read ({type(error).__name__}); give a readable text "
            "file with the key as its only line"
        ) from error
    return checked_api_key(key, f"the key file {path}")


def checked_api_key(key: str, source: str) -> str:
    """Return a key that can stand in a header.

    Raises:
        ConfigError: it cannot; the message names its source, not the key.
    """
    if not key or not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"{source} holds no usable key; it must be one line of printable ASCII characters "
            "without spaces"
        )
    return key
