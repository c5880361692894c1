"""The one place where a way out of this machine is made."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from pd_core.errors import ConfigError
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudAddress", "way_out"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloudAddress:
    """Where the cloud is, and how it is spoken to.

    Attributes:
        target: "host:port".
        tls_ca: PEM file of the authority to trust.
        tls: TLS with this system's authorities.
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


def way_out(address: CloudAddress | None, mode: Mode) -> CloudLink | None:
    """Return the link to the cloud, or None: in device-only nothing leaves this machine.

    To be called on the loop that will use it.

    Raises:
        ConfigError: the mode needs a cloud and none is given, or the address is wrong.
    """
    if mode is Mode.DEVICE_ONLY:
        return None
    if address is None:
        if mode is Mode.CLOUD_ONLY:
            raise ConfigError("--mode cloud-only needs --cloud HOST:PORT")
        return None
    logger.info("prompts may be sent to the cloud at %s", address.target)
    return GrpcCloudLink(
        address.target,
        tls_ca=address.tls_ca,
        tls=address.tls,
        api_key=address.api_key,
        insecure=address.insecure,
    )
