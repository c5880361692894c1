"""One bearer key, compared in constant time."""

import hmac

from pd_core.errors import Unauthenticated

__all__ = ["ApiKey"]

_SCHEME = "bearer "


class ApiKey:
    """Checks the `authorization` header of a call or an HTTP request.

    Args:
        key: the expected key; None: no key is required.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def __repr__(self) -> str:
        return f"ApiKey({'set' if self._key is not None else 'none'})"

    def check(self, authorization: str | bytes | None) -> None:
        """Let the right key pass.

        Raises:
            Unauthenticated: a key is required, and it is missing or wrong.
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
