"""This device as one thing: its model, its client, and how an answer is asked of them."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.host.cpu import cpu_description
from pd_device_client.client.client import DeviceClient
from pd_device_client.client.measure import keep_profile, kept_profile
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.contract.progress import Progress
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.engine.memory import check_memory
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine

__all__ = ["Device", "draw_seed", "open_device"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LARGE_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is ready.

    Attributes:
        loaded: its model.
        client: carries requests.
        speed_key: what its speeds are kept under for the next start; None: they are not.
    """

    loaded: LoadedModel
    client: DeviceClient
    speed_key: list[object] | None = None
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
        """Close both sides, and keep the device's speeds for its next start."""
        await self.client.close()
        if self.speed_key is not None:
            keep_profile(self.speed_key, self.client.device_estimate.learned)


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
    threads = settings.num_threads or torch.get_num_threads()
    speed_key = _speed_key(loaded, threads, engine.card.chunk_tokens)
    if settings.slowed_to is not None:
        speed_key = None
        engine = ThrottledEngine(engine, settings.slowed_to)
    client = DeviceClient(
        cloud=link,
        engine=engine,
        pace_s=settings.pace_s,
        ttft_s=settings.ttft_s,
        local_seqs=settings.local_seqs,
        device_profile=None if speed_key is None else kept_profile(speed_key),
        text=loaded.tokenizer.stream,
    )
    await client.start()
    logger.debug("the device's speeds are known, from %s", client.device_profile.source)
    return Device(loaded, client, speed_key)


def _load(settings: DeviceSettings, progress: Progress | None) -> LoadedModel:
    check_memory(settings.model, settings.kept_kv_bytes)
    if settings.num_threads is not None:
        # The probe that comes with loading must see the number of threads in use.
        torch.set_num_threads(settings.num_threads)
    return load_model(settings.model, fast=settings.fast_numerics, progress=progress)


def _speed_key(loaded: LoadedModel, threads: int, chunk_tokens: int) -> list[object] | None:
    """Return all that the speed of a model depends on here; None where that cannot be told."""
    cpu = cpu_description()
    if cpu is None:
        return None
    numerics = [loaded.numerics.reproducible, loaded.numerics.isa, loaded.numerics.packed]
    return [cpu, torch.__version__, threads, chunk_tokens, numerics, loaded.fingerprints.weights]


def draw_seed() -> int:
    """Return a seed for a request that brings none; every reader of JSON keeps all its digits."""
    return secrets.randbits(53)
