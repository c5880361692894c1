"""A cloud's address, and how to connect to it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pd_device_client.cloud.client_certificate import ClientCertificate

__all__ = ["CloudAddress", "is_url"]


def is_url(target: str) -> bool:
    """Whether a target is the URL of an OpenAI-compatible server, and not a pd-server's address."""
    return "://" in target


@dataclass(frozen=True, slots=True)
class CloudAddress:
    """One cloud's address; its key is never shown.

    Attributes:
        target: "host:port" of a pd-server, or the URL of an OpenAI-compatible server.
        tls_ca: PEM file of the certificate authority to trust.
        tls: TLS with this system's authorities; without this and tls_ca, plaintext. A URL says
            itself whether it has TLS.
        client: this device's own certificate and key, where the cloud asks for one.
        api_key: bearer key.
        insecure: allow plaintext to another machine.
        model: of an OpenAI-compatible server: the name of the model to ask for; None: its only one.
        api: of an OpenAI-compatible server: what it is, one of `openai.services.APIS`.
    """

    target: str
    tls_ca: Path | None = None
    tls: bool = False
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    client: ClientCertificate | None = None
    model: str | None = None
    api: str = "auto"

    @property
    def host(self) -> str:
        """The machine's name or address; "" where the target is no address."""
        if not is_url(self.target):
            return self.target.rpartition(":")[0]
        try:
            return urlsplit(self.target).hostname or ""
        except ValueError:
            return ""

    def to(self, target: str) -> "CloudAddress":
        """Return the address of another cloud.

        It gets neither this one's key and model nor who we are.
        """
        if target == self.target:
            return self
        return replace(self, target=target, api_key=None, client=None, model=None, api="auto")
