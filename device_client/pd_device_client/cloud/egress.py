"""The only place that opens a connection out of this machine."""

import logging

from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress, is_url
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.cloud.openai.openai_link import OpenAiCloudLink
from pd_device_client.cloud.proxy import http_proxy_words, proxy_words
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink

__all__ = ["link_to", "way_out"]

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
            raise ConfigError("--mode cloud-only needs --cloud HOST:PORT, or a URL")
        return None
    link = link_to(address)  # first, as the address may not be fit to be shown
    words = http_proxy_words if is_url(address.target) else proxy_words
    through = words(address.target if is_url(address.target) else address.host)
    logger.info(
        "prompts may be sent to the cloud at %s%s", address.target, through and f": {through}"
    )
    return link


def link_to(address: CloudAddress) -> CloudLink:
    """Return the link to a cloud: a pd-server, or any OpenAI-compatible server by its URL.

    Raises:
        ConfigError: the address is wrong.
    """
    if is_url(address.target):
        return OpenAiCloudLink(address)
    return GrpcCloudLink.to(address)
