"""Which cloud is used: the one given at start, or one chosen since."""

import re
from collections.abc import Callable

from pd_core.errors import ConfigError
from pd_device_client.cloud.address import is_url
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudChoice"]

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}")


class CloudChoice:
    """The current cloud's address, and how to get a link to it.

    Args:
        target: "host:port" or URL given at start, or None.
        way_out: makes a link to a target, or None if nothing may leave this machine; raises
            ConfigError for a target that may not be used.
        settable: whether another cloud may be chosen while the device serves.

    Attributes:
        target: the current one, or None.
    """

    def __init__(
        self,
        target: str | None,
        way_out: Callable[[str | None], CloudLink | None],
        *,
        settable: bool = False,
    ) -> None:
        self.target = target
        self.settable = settable
        self._way_out = way_out

    def link(self) -> CloudLink | None:
        """Make a link to the current cloud, on the loop that will use it."""
        return self._way_out(self.target)

    def choose(self, target: str | None) -> CloudLink | None:
        """Make another cloud, or none, the current one and return a link to it.

        Raises:
            ConfigError: it may not be used; nothing changes.
        """
        if target is not None and not is_url(target) and not _ADDRESS.fullmatch(target):
            raise ConfigError("the cloud's address must be HOST:PORT, or a URL: https://HOST/v1")
        link = self._way_out(target)
        self.target = target
        return link
