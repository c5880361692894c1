"""Where the model is: loading, in memory and ready, or gone."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

from pd_core.errors import NotReady, PdError
from pd_device_client.device import Device

__all__ = ["Phase", "Residency"]


class Phase(StrEnum):
    """How a device stands to its model."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


class Residency:
    """Loads the device and hands it to requests.

    Args:
        open_device: loads it.

    Attributes:
        phase: where it stands.
    """

    def __init__(self, open_device: Callable[[], Awaitable[Device]]) -> None:
        self._open = open_device
        self._device: Device | None = None
        self.phase = Phase.LOADING

    @property
    def device(self) -> Device:
        """The device.

        Raises:
            NotReady: it is not ready yet, or not any more.
        """
        if self._device is None:
            raise NotReady(f"the device is {self.phase.value}; try again in a moment")
        return self._device

    async def load(self) -> None:
        """Load the device.

        Raises:
            PdError: it cannot be loaded.
        """
        try:
            self._device = await self._open()
        except PdError:
            self.phase = Phase.FAILED
            raise
        self.phase = Phase.READY

    async def close(self) -> None:
        """Close the device; requests get none any more."""
        self.phase = Phase.CLOSED
        device, self._device = self._device, None
        if device is not None:
            await device.close()
