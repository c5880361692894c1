"""Where a cloud is, and how it is spoken to."""

from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["CloudAddress"]


@dataclass(frozen=True, slots=True)
class CloudAddress:
    """One cloud's address; its key is never shown.

    Attributes:
        target: "host:port".
        tls_ca: PEM file of the authority to trust.
        tls: TLS with this system's authorities; neither this nor tls_ca means plaintext.
        api_key: bearer key.
        insecure: allow plaintext to another machine.
    """

    target: str
    tls_ca: Path | None = None
    tls: bool = False
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False

    def to(self, target: str) -> "CloudAddress":
        """Return another cloud, spoken to by the same rules; the key is for the first one alone."""
        return replace(self, target=target, api_key=self.api_key if target == self.target else None)
