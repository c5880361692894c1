"""Who calls: the bearer key of a call is looked up among all keys in constant time."""

import hmac
import time
from collections.abc import Callable, Iterable

from pd_core.errors import Unauthenticated
from pd_server.keys.key_file import NamedKey, digest
from pd_server.keys.quota import Account, Quota

__all__ = ["Keyring"]

_SCHEME = "bearer "
_NO_KEYS = ""


class Keyring:
    """The keys of one server.

    Args:
        keys: all that may call; empty: everyone may, without a key and without bounds.
        clock: seconds, monotonic, for the quotas.
    """

    def __init__(
        self, keys: Iterable[NamedKey] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._digests: tuple[tuple[bytes, Account], ...] = ()
        self._anyone = Account(_NO_KEYS, Quota(), clock)
        self._open = True
        self.replace(keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.names) or 'open to all'})"

    @property
    def names(self) -> tuple[str, ...]:
        """The keys' names."""
        return tuple(dict.fromkeys(account.name for _, account in self._digests))

    def replace(self, keys: Iterable[NamedKey]) -> None:
        """Take other keys from now on; those whose names stay keep what they have used.

        Calls that are under way go on, also those of keys that are gone.
        """
        found = []
        for key in keys:
            account = self._accounts.setdefault(key.name, Account(key.name, key.quota, self._clock))
            account.change(key.quota)
            found += [(one, account) for one in key.digests]
        self._open = not found and self._open
        self._digests = tuple(found)

    def account(self, authorization: str | bytes | None) -> Account:
        """Return the account of the key in an `authorization` header.

        Every key is compared, whichever fits, so the time tells nothing.

        Raises:
            Unauthenticated: keys are asked for, and this one is missing or wrong.
        """
        if self._open:
            return self._anyone
        if isinstance(authorization, bytes):
            authorization = authorization.decode("latin-1")
        if not authorization or not authorization.lower().startswith(_SCHEME):
            raise Unauthenticated(
                "no key was sent; this server asks for the header 'authorization: Bearer <key>'"
            )
        given = digest(authorization[len(_SCHEME) :].strip().encode(errors="replace"))
        owner = None
        for known, account in self._digests:
            if hmac.compare_digest(given, known):
                owner = account
        if owner is None:
            raise Unauthenticated("the key is wrong; use a key that this server was given")
        return owner
