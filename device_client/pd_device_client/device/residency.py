"""Where the model is: loading, in memory and ready, asleep to free memory, or gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol

from pd_core.errors import NotReady, PdError
from pd_device_client.device.device import Device
from pd_device_client.engine.memory import give_memory_back

__all__ = ["Observer", "Phase", "Residency"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 5.0  # while answers are carried


class Phase(StrEnum):
    """How a device stands to its model."""

    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"  # unloaded for want of requests; the next one loads it again
    WAKING = "waking"
    FAILED = "failed"
    CLOSED = "closed"

    @property
    def serving(self) -> bool:
        """Whether requests are carried, even if the first has to wait for the model."""
        return self in (Phase.READY, Phase.ASLEEP, Phase.WAKING)


class Observer(Protocol):
    """Carries answers with a device, and tells of it."""

    @property
    def busy(self) -> bool:
        """Whether an answer is carried, so that the device is not to be unloaded."""
        ...

    async def loaded(self, device: Device) -> None:
        """See a device before it serves.

        Keep no reference to it: its memory is free again once it sleeps.
        """
        ...


class Residency:
    """Loads the device, hands it to requests, and unloads it when nobody asks.

    Args:
        open_device: loads it.
        observer: sees it, and says when it is in use.
        keep_alive_s: seconds without a request after which it is unloaded; None: never.

    Attributes:
        phase: where it stands.
        model_name: of the device, once it was loaded.
        max_context_tokens: of its model.
    """

    def __init__(
        self,
        open_device: Callable[[], Awaitable[Device]],
        observer: Observer,
        *,
        keep_alive_s: float | None = None,
    ) -> None:
        self._open = open_device
        self._observer = observer
        self._keep_alive_s = keep_alive_s
        self._device: Device | None = None
        self._waking: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._used_s = 0.0
        self.phase = Phase.LOADING
        self.model_name = ""
        self.max_context_tokens = 0

    @property
    def device(self) -> Device:
        """The device.

        Raises:
            NotReady: it is not loaded.
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
            device = await self._open()
        except PdError:
            self.phase = Phase.FAILED
            raise
        self._device = device  # before anything is awaited, so that it is closed whatever happens
        await self._observer.loaded(device)
        self.phase = Phase.READY
        self.model_name = device.loaded.name
        self.max_context_tokens = device.loaded.model.config.max_context_tokens
        self._touch()
        if self._keep_alive_s is not None:
            self._watch = asyncio.ensure_future(self._unload_when_idle(self._keep_alive_s))

    async def wake(self) -> Device:
        """Return the device for a request; load it again when it sleeps.

        Raises:
            NotReady: it is being loaded for the first time, or gone.
            PdError: it cannot be loaded again; the next request tries anew.
        """
        self._touch()
        if self.phase is Phase.ASLEEP:
            self.phase = Phase.WAKING
            self._waking = asyncio.ensure_future(self._wake())
        if self.phase is Phase.WAKING and self._waking is not None:
            await asyncio.shield(self._waking)  # others wait for it too
        return self.device

    async def close(self) -> None:
        """Close the device; requests get none any more."""
        self.phase = Phase.CLOSED
        for task in (self._waking, self._watch):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._unload()

    async def _wake(self) -> None:
        try:
            await self.load()
        except PdError:
            self.phase = Phase.ASLEEP
            raise

    async def _unload_when_idle(self, keep_alive_s: float) -> None:
        loop = asyncio.get_running_loop()
        while (left_s := self._used_s + keep_alive_s - loop.time()) > 0 or self._observer.busy:
            if self._observer.busy:
                self._touch()
                left_s = min(keep_alive_s, _LOOK_AGAIN_S)
            await asyncio.sleep(left_s)
        logger.info("no request for %g s: the model is unloaded", keep_alive_s)
        self.phase = Phase.ASLEEP
        await self._unload()

    async def _unload(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            await device.close()
            del device
            give_memory_back()

    def _touch(self) -> None:
        self._used_s = asyncio.get_running_loop().time()
