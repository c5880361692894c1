"""This device as one thing: its model, its client, and how an answer is asked of them."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.contract.progress import Progress
from pd_device_client.engine.memory import check_memory
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import KEPT_KV_BYTES, TorchLocalEngine
from pd_device_client.planning.profiles import SpeedProfile

__all__ = ["Device", "DeviceSettings", "draw_seed", "open_device"]

T = TypeVar("T")

_LARGE_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a device runs.

    Attributes:
        model: as `load_model` takes it.
        pace_s: the gap between shown tokens.
        ttft_s: the first token's latest instant; None: as early as possible.
        throttle: slow the local engine down to this profile.
        num_threads: torch threads; None leaves torch's default.
        fast_numerics: the faster arithmetic that is not reproducible.
        kept_kv_bytes: KV caches kept for a conversation's next turn; 0 keeps none.
        local_seqs: answers that the local engine works on at a time; more wait their turn.
    """

    model: str
    pace_s: float
    ttft_s: float | None = None
    throttle: SpeedProfile | None = None
    num_threads: int | None = None
    fast_numerics: bool = False
    kept_kv_bytes: int = KEPT_KV_BYTES
    local_seqs: int = 1


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is ready.

    Attributes:
        loaded: its model.
        client: carries requests.
    """

    loaded: LoadedModel
    client: DeviceClient
    _large_text: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    async def encoded(self, num_characters: int, encode: Callable[[], T]) -> T:
        """Return what `encode` makes of a text, in a worker thread; large texts one at a time.

        Eight million characters take more than a gigabyte while they become tokens, so what many
        of them take at once is bounded by their queue; who has small ones does not wait in it.

        Args:
            num_characters: of the text.
            encode: makes tokens of it.
        """
        if num_characters < _LARGE_CHARACTERS:
            return await asyncio.to_thread(encode)
        await self._large_text.acquire()
        work = asyncio.get_running_loop().run_in_executor(None, encode)
        work.add_done_callback(self._encoded)
        # Who goes away does not end the thread, and the next one begins when that has ended.
        return await asyncio.shield(work)

    def _encoded(self, work: "asyncio.Future[Any]") -> None:
        self._large_text.release()
        if not work.cancelled():
            work.exception()  # nobody may be there to take it

    async def close(self) -> None:
        """Close both sides."""
        await self.client.close()


async def open_device(
    settings: DeviceSettings, link: CloudLink | None, progress: Progress | None = None
) -> Device:
    """Load the model, measure this device and meet the cloud.

    Args:
        settings: what to run.
        link: the way to the cloud, or None.
        progress: told of the weights' bytes, from another thread.

    Raises:
        ModelError: the model cannot be loaded.
        EngineError: it fails in its first passes.
    """
    # Off the event loop, which has probes and signals to answer meanwhile.
    loaded = await asyncio.to_thread(_load, settings, progress)
    engine: LocalEngine = TorchLocalEngine(
        loaded, num_threads=settings.num_threads, kept_kv_bytes=settings.kept_kv_bytes
    )
    if settings.throttle is not None:
        engine = ThrottledEngine(engine, settings.throttle)
    client = DeviceClient(
        cloud=link,
        engine=engine,
        pace_s=settings.pace_s,
        ttft_s=settings.ttft_s,
        local_seqs=settings.local_seqs,
        text=loaded.tokenizer.stream,
    )
    await client.start()
    return Device(loaded, client)


def _load(settings: DeviceSettings, progress: Progress | None) -> LoadedModel:
    check_memory(settings.model, settings.kept_kv_bytes)
    if settings.num_threads is not None:
        # The probe that comes with loading must see the number of threads in use.
        torch.set_num_threads(settings.num_threads)
    return load_model(settings.model, fast=settings.fast_numerics, progress=progress)


def draw_seed() -> int:
    """Return a seed for a request that brings none; every reader of JSON keeps all its digits."""
    return secrets.randbits(53)
