"""Loading and unloading the model: ready in memory, asleep to free memory, or closed."""

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

_LOOK_AGAIN_S = 5.0  # while answers are in progress


class Phase(StrEnum):
    """The state of a device's model."""

    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"  # unloaded after idle time; the next request loads it again
    WAKING = "waking"
    FAILED = "failed"
    CLOSED = "closed"

    @property
    def serving(self) -> bool:
        """Whether requests are answered, even if the first has to wait for the model."""
        return self in (Phase.READY, Phase.ASLEEP, Phase.WAKING)


class Observer(Protocol):
    """Knows whether the device is in use, and sees it when it is loaded."""

    @property
    def busy(self) -> bool:
        """Whether an answer is in progress, so that the device must stay loaded."""
        ...

    async def loaded(self, device: Device) -> None:
        """Look at a device before it serves; keep no reference, so that it can be freed."""
        ...


class Residency:
    """Loads the device, hands it to requests, and unloads it when idle.

    Args:
        open_device: loads it.
        observer: sees it, and says when it is in use.
        keep_alive_s: seconds without a request until it is unloaded; None: never.

    Attributes:
        phase: see Phase.
        model_name: the model's name; "" before the first load.
        max_context_tokens: the model's context; 0 before the first load.
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
        self._device = device  # before any await, so that `close` always closes it
        await self._observer.loaded(device)
        self.phase = Phase.READY
        self.model_name = device.loaded.name
        self.max_context_tokens = device.loaded.max_context_tokens
        self._touch()
        if self._keep_alive_s is not None:
            self._watch = asyncio.ensure_future(self._unload_when_idle(self._keep_alive_s))

    async def wake(self) -> Device:
        """Return the device for a request; load it again if it is asleep.

        Raises:
            NotReady: it is being loaded for the first time, or closed.
            PdError: it cannot be loaded again; the next request retries.
        """
        self._touch()
        if self.phase is Phase.ASLEEP:
            self.phase = Phase.WAKING
            self._waking = asyncio.ensure_future(self._wake())
        if self.phase is Phase.WAKING and self._waking is not None:
            await asyncio.shield(self._waking)  # several requests may wait for it
        return self.device

    async def close(self) -> None:
        """Close the device for good."""
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
