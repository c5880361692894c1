"""Every handoff of an answer between two real sides, against the answer of the device alone.

The cloud is a real server process. The device's engine is real and may compute by other kernels and
threads, as a machine of another kind would. The plan is fixed: the cloud makes k tokens, then the
device goes on, for every k from 0 on.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from importlib import resources

from rich.table import Table

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_bench.exactness.settings import HandoffSettings
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError, FingerprintMismatch
from pd_core.generation import CloudEvent, Finished
from pd_core.integer.kernel_library import KERNEL_VARIABLE
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.handshake import shake_hands
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import device_profile
from pd_device_client.session.session import Session
from pd_device_client.session.sides import Sides

__all__ = ["HandedOver", "handoffs_table", "measure_handoffs"]

_PACE_S = 0.001  # as soon as a token is there
_KEPT_KV_BYTES = 256 << 20
_PAGE = "tutorial-modules.rst.txt"


@dataclass(frozen=True, slots=True)
class HandedOver:
    """An answer that was handed over at every position.

    Attributes:
        numerics: of both sides.
        numerics_ids: the cloud's and the device's.
        device_threads: threads of the device's engine.
        sampling: "greedy" or "seeded".
        exactness: what the handshake promised.
        handoffs: positions at which the device really took over.
        differing: positions whose answer is not the device's own; the promise is none.
    """

    numerics: str
    numerics_ids: tuple[str, str]
    device_threads: int
    sampling: str
    exactness: str
    handoffs: int
    differing: tuple[int, ...]


async def measure_handoffs(
    settings: HandoffSettings, tick: Callable[[str], None] = lambda _: None
) -> list[HandedOver]:
    """Hand answers over at every position, for each numerics, number of threads and sampling.

    Raises:
        ConfigError: the model has no room for prompt and answer.
        PdError: the server could not be started, or a request failed.
    """
    found = []
    for numerics in settings.numerics:
        tick(f"starting a server with {numerics} numerics")
        options = ServerOptions(settings.model, flags=("--numerics", numerics))
        async with own_server(options) as target:
            link = GrpcCloudLink(target)
            try:
                with _kernel(settings.device_kernel):
                    found += await _beside(link, settings, numerics, tick)
            finally:
                await link.close()
    return found


async def _beside(
    link: GrpcCloudLink, settings: HandoffSettings, numerics: str, tick: Callable[[str], None]
) -> list[HandedOver]:
    """Carry answers beside one cloud."""
    loaded = await in_loading_thread(lambda: load_model(settings.model, numerics=numerics))
    prompt = _prompt(loaded, settings)
    found = []
    for threads in settings.device_threads:
        engine = TorchLocalEngine(loaded, num_threads=threads, kept_kv_bytes=_KEPT_KV_BYTES)
        try:
            pair = await _Pair.of(loaded, link, engine, settings.positions + 1)
            for name, sampling in _samplings(settings.seed).items():
                tick(f"{numerics}, {threads} threads, {name}")
                differing, handoffs = await pair.hand_over(prompt, sampling)
                found.append(
                    HandedOver(
                        numerics=numerics,
                        numerics_ids=pair.numerics_ids,
                        device_threads=threads,
                        sampling=name,
                        exactness=pair.sides.exactness,
                        handoffs=handoffs,
                        differing=differing,
                    )
                )
        finally:
            await engine.close()
    return found


@contextmanager
def _kernel(name: str) -> Iterator[None]:
    """Choose the kernels for this process, which chooses once, and not for its children."""
    before = os.environ.get(KERNEL_VARIABLE)
    if name != "auto":
        os.environ[KERNEL_VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(KERNEL_VARIABLE, None)
        if before is not None:
            os.environ[KERNEL_VARIABLE] = before


def _samplings(seed: int) -> dict[str, SamplingParams]:
    return {
        "greedy": SamplingParams(ignore_eos=True),
        "seeded": SamplingParams(temperature=0.8, top_p=0.95, seed=seed, ignore_eos=True),
    }


def _prompt(loaded: LoadedModel, settings: HandoffSettings) -> tuple[int, ...]:
    path = resources.files("pd_bench") / "assets" / _PAGE
    ids = loaded.tokenizer.encode_prompt(path.read_text(encoding="utf-8"))
    room = loaded.model.config.max_context_tokens - settings.positions - 1
    if settings.prompt_tokens > min(room, len(ids)):
        raise ConfigError(
            f"--prompt-tokens is {settings.prompt_tokens}; the text has {len(ids)} tokens, and "
            f"the model room for {room}"
        )
    return tuple(ids[: settings.prompt_tokens])


def handoffs_table(found: list[HandedOver], settings: HandoffSettings) -> Table:
    """Return what was handed over, and how many answers differ."""
    wrong = sum(len(each.differing) for each in found)
    table = Table(
        title=f"{settings.model}: answers of {settings.positions + 1} tokens, handed over at 0 to "
        f"{settings.positions}; the device's kernels: {settings.device_kernel}",
        caption="every answer is the device's own" if not wrong else f"{wrong} answers DIFFER",
    )
    for column in ("numerics", "device threads", "sampling", "promised"):
        table.add_column(column)
    for column in ("handoffs", "other answers"):
        table.add_column(column, justify="right")
    for each in found:
        table.add_row(
            each.numerics,
            str(each.device_threads),
            each.sampling,
            each.exactness,
            str(each.handoffs),
            str(len(each.differing)),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Pair:
    """A cloud and a device that carry answers of one length; the device waits for the cloud."""

    sides: Sides
    cloud_finished: asyncio.Event
    numerics_ids: tuple[str, str]
    length: int

    @classmethod
    async def of(
        cls, loaded: LoadedModel, link: GrpcCloudLink, engine: TorchLocalEngine, length: int
    ) -> "_Pair":
        """Shake hands; the numerics ids say what is promised."""
        info = await link.info()
        hands = shake_hands(engine.card, info.model)
        if hands.mismatch:
            raise FingerprintMismatch(hands.mismatch)
        finished = asyncio.Event()

        def note(event: CloudEvent, _: int) -> None:
            if isinstance(event, Finished):
                finished.set()

        sides = Sides(
            link=WatchedLink(link, note),
            engine=HeldEngine(engine, finished.wait),
            cloud_estimate=CloudEstimate(),
            device_estimate=DeviceEstimate(device_profile("laptop")),
            fingerprints=loaded.fingerprints,
            eos_token_ids=loaded.eos_token_ids,
            exactness=hands.exactness,
        )
        ids = info.model.fingerprints.numerics_id, loaded.fingerprints.numerics_id
        return cls(sides, finished, ids, length)

    async def hand_over(
        self, prompt: tuple[int, ...], sampling: SamplingParams
    ) -> tuple[tuple[int, ...], int]:
        """Return the positions whose answer differs, and how many handoffs there were."""
        alone = await self._answer(prompt, sampling, Plan(Mode.DEVICE_ONLY, 0, _PACE_S))
        differing, handoffs = [], 0
        for position in range(self.length):
            plan = Plan(Mode.PD_DEVICE, position, _PACE_S, adapts=False)
            outcome = await self._answer(prompt, sampling, plan)
            handoffs += outcome.handoff_position == position
            if outcome.token_ids != alone.token_ids:
                differing.append(position)
        return tuple(differing), handoffs

    async def _answer(
        self, prompt: tuple[int, ...], sampling: SamplingParams, plan: Plan
    ) -> Outcome:
        self.cloud_finished.clear()
        if plan.cloud_tokens == 0:
            self.cloud_finished.set()
        ask = Ask("handoff", prompt, self.length, sampling)
        session = Session(ask, plan, self.sides, expected_tokens=self.length)
        async with aclosing(session.run()) as answer:
            async for _ in answer:
                pass
        return session.outcome
