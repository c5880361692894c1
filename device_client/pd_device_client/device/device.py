"""A device: its model and its client, opened and closed together."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

from pd_core.grammar.grammars import Grammars
from pd_core.host.cpu import num_cores
from pd_core.host.free_memory import trim_heap
from pd_core.process.loading_thread import in_loading_thread
from pd_core.process.tracing import Tracing
from pd_core.speculation.speculation import Speculation
from pd_core.text.protected import protected_ranges
from pd_device_client.client.breaker import CircuitBreaker
from pd_device_client.client.client import DeviceClient
from pd_device_client.client.measure import keep_profile, kept_profile
from pd_device_client.contract.ports import CloudLink
from pd_device_client.contract.progress import Progress
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.cloud_use import CloudUse, cloud_use_path
from pd_device_client.device.followed_numerics import following
from pd_device_client.device.local_engine import load_engine
from pd_device_client.device.manners import Manners
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.engine.served_model import ServedModel
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.planning.kept_lengths import keep_lengths, kept_lengths
from pd_device_client.privacy.judge import PrivacyJudge

__all__ = ["Device", "draw_seed", "open_device"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LARGE_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is ready.

    Attributes:
        loaded: its model.
        client: answers requests.
        speed_key: the key under which its speeds are kept for the next start; None: not kept.
        speculation: the account of its local engine's guesses.
        grammars: compiles the forms of its answers; None: none is found wrong before it begins.
        manners: how its engine gives way to other programs; None: it does not.
        judge: says which requests stay on this device.
    """

    loaded: ServedModel
    client: DeviceClient
    speed_key: list[object] | None = None
    speculation: Speculation = field(default_factory=lambda: Speculation(0))
    manners: Manners | None = None
    grammars: Grammars | None = None
    judge: PrivacyJudge = field(default_factory=PrivacyJudge)
    _large_text: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)
    _template: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    async def encoded(
        self, num_characters: int, encode: Callable[[], T], *, renders: bool = False
    ) -> T:
        """Run `encode` in a worker thread and return its result; large texts one at a time.

        Encoding eight million characters takes more than a gigabyte of memory, so large texts queue
        to bound the sum. A template renders one chat at a time, and may take seconds: its chats
        queue here, since threads that wait would be missing for everything else. Other small texts
        wait in no queue.

        Args:
            num_characters: the text's length.
            encode: turns the text into tokens.
            renders: it uses the model's chat template.
        """
        if num_characters >= _LARGE_CHARACTERS:
            return await self._queued(self._large_text, partial(_trimmed, encode))
        if renders:
            return await self._queued(self._template, encode)
        return await asyncio.to_thread(encode)

    async def _queued(self, turn: asyncio.Lock, encode: Callable[[], T]) -> T:
        await turn.acquire()
        work = asyncio.get_running_loop().run_in_executor(None, encode)
        work.add_done_callback(partial(self._encoded, turn))
        # A cancelled caller does not stop the thread; the lock is held until the thread is done.
        return await asyncio.shield(work)

    def _encoded(self, turn: asyncio.Lock, work: "asyncio.Future[Any]") -> None:
        turn.release()
        if not work.cancelled():
            work.exception()  # mark it as retrieved: the caller may be gone

    async def close(self) -> None:
        """Close both sides; keep speeds and answers' lengths for the next start."""
        await self.client.close()
        keep_lengths(self.client.lengths)
        if self.speed_key is not None:
            keep_profile(self.speed_key, self.client.device_estimate.learned)


async def open_device(
    settings: DeviceSettings,
    link: CloudLink | None,
    progress: Progress | None = None,
    battery: BatteryPolicy | None = None,
    *,
    forms: bool = False,
    judge: PrivacyJudge | None = None,
) -> Device:
    """Load the model, measure this device and meet the cloud.

    Args:
        settings: what to run.
        link: the cloud link, or None.
        progress: called with the weights' bytes, from another thread.
        battery: when a low one is spared; None: at the default.
        forms: get ready for answers of a given form, which the first of them would wait for.
        judge: applies the rules of `settings`, and outlives the device; None: a new one.

    Raises:
        ModelError: the model cannot be loaded.
        EngineError: it fails in its first passes.
    """
    manners = None
    if settings.polite and settings.slowed_to is None:
        clock = asyncio.get_running_loop().time
        manners = Manners(os.cpu_count() or 1, num_cores(), battery or BatteryPolicy(), clock)
    # Of this thread, since an earlier engine's worker has changed the number for new threads.
    threads = torch.get_num_threads()
    # In a thread, since the event loop must answer probes and signals meanwhile.
    followed = await following(settings, link)
    local = await in_loading_thread(lambda: load_engine(followed, threads, manners, progress))
    if forms:
        await in_loading_thread(local.grammars.prepare)
    loaded, engine, speed_key = local.served, local.engine, local.speed_key
    if settings.slowed_to is not None:
        speed_key = None
        engine = ThrottledEngine(engine, settings.slowed_to)
    client = DeviceClient(
        cloud=link,
        engine=engine,
        pace_s=settings.planned_pace_s,
        promise=settings.promise,
        caps=settings.promises.caps,
        account=CloudUse(cloud_use_path()) if settings.promises.caps.of_a_day else None,
        local_seqs=settings.local_seqs,
        device_profile=None if speed_key is None else kept_profile(speed_key),
        text=loaded.tokenizer.stream,
        lengths=kept_lengths(),
        protect=partial(protected_ranges, loaded.tokenizer),
        grammars=local.grammars,
        tokenizer=loaded.tokenizer,
        breaker=partial(CircuitBreaker, share=random.random),
        tracing=Tracing("pd-device") if settings.otel else None,
        judged_only=bool(settings.promises.rules),
    )
    await client.start()
    logger.debug("the device's speeds are known, from %s", client.device_profile.source)
    if manners is not None and local.threads is not None:  # only now: the profile is of all threads
        local.threads.give_way(manners.most_threads, client.device_estimate.give_way)
        client.before_plan = local.threads.look
    judge = judge or PrivacyJudge(settings.promises.rules)
    return Device(
        loaded, client, speed_key, local.speculation, manners, local.grammars, judge=judge
    )


def _trimmed(encode: Callable[[], T]) -> T:
    """Call `encode`, and give back the memory that a large text needed meanwhile."""
    try:
        return encode()
    finally:
        trim_heap()


def draw_seed() -> int:
    """Return a seed for a request without one; 53 bits survive JSON numbers read as doubles."""
    return secrets.randbits(53)
