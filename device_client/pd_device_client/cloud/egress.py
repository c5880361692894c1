"""The one place where a way out of this machine is made."""

import logging

from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink

__all__ = ["way_out"]

logger = logging.getLogger(__name__)


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
    return GrpcCloudLink.to(address)
