"""Which cloud is used: the one the device was started with, or another that was chosen since."""

import re
from collections.abc import Callable

from pd_core.errors import ConfigError
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudChoice"]

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}")


class CloudChoice:
    """The cloud's address, and the way to it.

    Args:
        target: "host:port" that the device was started with, or None.
        way_out: makes a link to a target, or None where nothing is to leave this machine; raises
            ConfigError for one that may not be used.
        settable: whether another may be chosen while the device serves.

    Attributes:
        target: the present one.
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
        """Make a link to the present cloud, on the loop that will use it."""
        return self._way_out(self.target)

    def choose(self, target: str | None) -> CloudLink | None:
        """Make a link to another cloud, which is the present one from here on; None: to none.

        Raises:
            ConfigError: it may not be used; all stays as it was.
        """
        if target is not None and not _ADDRESS.fullmatch(target):
            raise ConfigError("the cloud's address must be HOST:PORT")
        link = self._way_out(target)
        self.target = target
        return link
