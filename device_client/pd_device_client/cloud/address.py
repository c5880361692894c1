"""A cloud's address, and how to connect to it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pd_device_client.cloud.client_certificate import ClientCertificate

__all__ = ["CloudAddress"]


@dataclass(frozen=True, slots=True)
class CloudAddress:
    """One cloud's address; its key is never shown.

    Attributes:
        target: "host:port".
        tls_ca: PEM file of the certificate authority to trust.
        tls: TLS with this system's authorities; without this and tls_ca, plaintext.
        client: this device's own certificate and key, where the cloud asks for one.
        api_key: bearer key.
        insecure: allow plaintext to another machine.
    """

    target: str
    tls_ca: Path | None = None
    tls: bool = False
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    client: ClientCertificate | None = None

    def to(self, target: str) -> "CloudAddress":
        """Return the address of another cloud, which gets neither this one's key nor who we are."""
        if target == self.target:
            return self
        return replace(self, target=target, api_key=None, client=None)
