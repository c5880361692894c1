"""The only place that opens a connection out of this machine."""

import logging

from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.cloud.proxy import proxy_words
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink

__all__ = ["way_out"]

logger = logging.getLogger(__name__)


def way_out(address: CloudAddress | None, mode: Mode) -> CloudLink | None:
    """Return the link to the cloud, or None; in device-only nothing leaves this machine.

    Call it on the loop that will use the link.

    Raises:
        ConfigError: the mode needs a cloud and none is given, or the address is wrong.
    """
    if mode is Mode.DEVICE_ONLY:
        return None
    if address is None:
        if mode is Mode.CLOUD_ONLY:
            raise ConfigError("--mode cloud-only needs --cloud HOST:PORT")
        return None
    through = proxy_words(address.target.rpartition(":")[0])
    logger.info(
        "prompts may be sent to the cloud at %s%s", address.target, through and f": {through}"
    )
    return GrpcCloudLink.to(address)
