"""The device's part of one request: prefill, catch-up in batched passes, claim, decode.

One loop feeds the committed tokens (the prompt first, then the cloud's) in passes of at most one
chunk. The pass that feeds the last of them also samples a candidate for the next position. The
candidate is committed after the claim, and dropped if a cloud token takes its position first.
"""

import asyncio
import logging
import math
from typing import Protocol

from pd_core.errors import EngineError, PdError
from pd_core.generation import TokenLogprobs
from pd_core.refinement import Ranges
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import (
    DeviceBegan,
    DeviceFailed,
    DevicePassed,
    PromptRefined,
    Tell,
    silent,
)
from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.outlook import DeviceOutlook, device_outlook
from pd_device_client.session.engine_turns import Turn
from pd_device_client.session.kept_prompt import KeptPrompt
from pd_device_client.session.sides import Sides
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal

__all__ = ["ClaimPolicy", "DeviceLeg", "forecast_ready_s"]

logger = logging.getLogger(__name__)


class ClaimPolicy(Protocol):
    """Decides when the device's leg claims."""

    def may_claim(self, ready_s: float) -> bool:
        """Whether the device, which can show the next position at `ready_s`, may claim."""
        ...

    def hold_s(self, pass_s: float) -> float:
        """Seconds by which to delay a catch-up pass of `pass_s`; 0: run it now."""
        ...

    def patience_s(self) -> float | None:
        """Seconds until the decisions above may change by themselves; None: only on a change."""
        ...


class DeviceLeg:
    """The local engine's work for one request.

    Args:
        ask: what to answer.
        sides: has the local engine (never None here), used only during this leg's turn, and the
            estimate of its speed.
        log: receives the tokens.
        changed: notified after every pass.
        tell: receives events.

    Attributes:
        prompt: what it reads of the prompt.
        running: whether the leg was started and has not ended.
        error: why it failed, or None.
        num_fed: tokens fed so far, the prompt's included.
        num_cached: tokens of the prompt that were cached from earlier answers.
        generated: all tokens it made, unused ones included.
    """

    def __init__(
        self,
        ask: Ask,
        sides: Sides,
        log: TokenLog,
        changed: Signal,
        tell: Tell = silent,
    ) -> None:
        assert sides.engine is not None, "a device leg needs an engine"
        self._ask = ask
        self._engine = sides.engine
        self._estimate = sides.device_estimate
        self._turns = sides.turns
        self._log = log
        self._changed = changed
        self._tell = tell
        self._turn: Turn | None = None
        self._pass_s = 0.0  # forecast of the pass in progress
        self._probable_pass_s = 0.0
        self._pass_ends_s: float | None = None  # None between passes
        self.running = False
        self.generated = 0
        self.error: PdError | None = None
        self.prompt = KeptPrompt(ask.prompt_token_ids)
        self._kept_ranges: Ranges | None = None
        # Cached tokens count as fed; `run` looks again, as the cache may change before our turn.
        self.num_fed = self.num_cached = self._engine.cached_tokens(ask.prompt_token_ids)
        self._num_begun = self.num_fed  # tokens fed, or being fed by the pass in progress
        self._reads = False  # the sequence is open

    def refine(self, kept_ranges: Ranges) -> None:
        """Leave out what the cloud's refined prompt does not keep of what is not read yet."""
        self._kept_ranges = kept_ranges
        num_left_out = self.prompt.refine(kept_ranges, self._num_begun)
        if num_left_out and self._reads:
            self._tell(PromptRefined(num_left_out))

    def ready_s(self, position: int) -> float:
        """Forecast the instant at which the device can show `position`.

        Assumes that all positions before it are committed. The remaining tokens are fed in passes,
        each of which takes at least a decode step; the last one samples the token. A pass in
        progress counts from its start; if it is late, the same delay is added once more.
        """
        return self._forecast_s(position, self._estimate, self._pass_s)

    def probably_ready_s(self, position: int, speeds: DeviceOutlook) -> tuple[float, float]:
        """When the device probably can show `position`, as `ready_s`, and the standard deviation.

        Args:
            position: as in `ready_s`.
            speeds: the device's present outlook.
        """
        at_s = self._forecast_s(position, speeds, self._probable_pass_s)
        to_feed = self.prompt.num_tokens + position - self.num_fed
        passes = math.ceil(to_feed / self._engine.chunk_tokens)
        left_s = max(at_s - asyncio.get_running_loop().time(), 0.0)
        return at_s, speeds.spread_s(left_s, passes, decodes=to_feed <= 1)

    def _forecast_s(
        self, position: int, speeds: DeviceEstimate | DeviceOutlook, pass_s: float
    ) -> float:
        now_s = asyncio.get_running_loop().time()
        prompt = self._ask.prompt_token_ids
        # A leg that ended keeps no more than the engine's cache.
        num_fed = self.num_fed if self.running else self._engine.cached_tokens(prompt)
        # Before our turn no pass is in progress, so the wait comes on top.
        wait_s = self._turns.forecast_s() if self._turn is None else self._turn.wait_s()
        ends_s = self._pass_ends_s
        return wait_s + forecast_ready_s(
            now_s,
            self.prompt.num_tokens + position,
            num_fed,
            speeds,
            pass_s,
            None if ends_s is None else ends_s - self._pass_s + pass_s,
        )

    async def run(self, policy: ClaimPolicy) -> None:
        """Work until the log closes or the engine fails; a failure gives the claim back.

        A leg that was cancelled and has ended may run again.
        """
        sequence = None
        self._turn = self._turns.join()
        try:
            self.running = True
            await self._turn.begin()
            prompt = self._ask.prompt_token_ids
            self.num_fed = self.num_cached = self._engine.cached_tokens(prompt)
            self._num_begun = self.num_fed
            self.prompt = KeptPrompt(prompt)
            sequence = self._engine.open(self._ask.sampling, prompt)
            self._reads = True
            self._tell(DeviceBegan(self.num_cached))
            if self._kept_ranges is not None:
                self.refine(self._kept_ranges)
            while not self._log.closed:
                candidate = await self._catch_up(sequence.feed, policy)
                if candidate is not None:
                    await self._place(candidate, sequence.logprobs, policy)
        except PdError as error:
            self._fail(error)
        except Exception as error:  # the outermost frame of the leg
            logger.exception("request %s: the local engine failed", self._ask.request_id)
            self._fail(EngineError(f"the local engine failed: {type(error).__name__}"))
        finally:
            self.running = self._reads = False
            if sequence is not None:
                sequence.close()
            self._turn.end()
            self._turn = self._pass_ends_s = None
            self._changed.notify()

    async def _catch_up(self, feed: "_Feed", policy: ClaimPolicy) -> int | None:
        """Feed one pass; return the next position's candidate once everything is fed."""
        most = self._engine.chunk_tokens
        pending = self.prompt.reading(self.num_fed, most + 1, self._log.token_ids)
        chunk = pending.token_ids[:most]
        last = len(chunk) == len(pending.token_ids)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._pass_s = self._estimate.pass_s(self.num_fed, len(chunk))
        outlook = device_outlook(self._estimate)
        self._probable_pass_s = outlook.pass_s(self.num_fed, len(chunk))
        if last and self._log.claimed_at is None:
            if policy.may_claim(began_s + self._pass_s):
                self._log.claim()
                self._changed.notify()
            elif (hold_s := policy.hold_s(self._pass_s)) > 0 and self._caught_up:
                await self._changed.wait(hold_s)
                return None
        self._pass_ends_s = began_s + self._pass_s
        self._num_begun = self.num_fed + len(chunk)
        position = self._log.length
        sample_position = position if last else None
        if pending.positions is None:
            sampled = await feed(chunk, sample_position)
        else:
            sampled = await feed(chunk, sample_position, pending.positions[: len(chunk)])
        self._pass_ends_s = None
        self.generated += last
        took_s = loop.time() - began_s
        self._estimate.observe_pass(self.num_fed, len(chunk), took_s)
        self.num_fed += len(chunk)
        self._tell(DevicePassed(self.num_fed, len(chunk), took_s))
        self._changed.notify()
        return sampled if position == self._log.length else None

    @property
    def _caught_up(self) -> bool:
        """Whether the prompt is fed, so that passes only absorb the cloud's tokens."""
        return self.num_fed >= self.prompt.num_tokens

    async def _place(
        self, candidate: int, logprobs: TokenLogprobs | None, policy: ClaimPolicy
    ) -> None:
        """Wait until the candidate can be committed, or a cloud token takes its position."""
        log, position = self._log, self._log.length
        while not log.closed and log.length == position:
            if log.claimed_at is None and policy.may_claim(asyncio.get_running_loop().time()):
                log.claim()
            if log.open_to_device:
                log.commit_device(position, candidate, logprobs)
                self._changed.notify()
                return
            await self._changed.wait(policy.patience_s())

    def _fail(self, error: PdError) -> None:
        self.error = error
        self._tell(DeviceFailed(error))
        self._log.release_claim()


def forecast_ready_s(
    now_s: float,
    end: int,
    num_fed: int,
    estimate: DeviceEstimate | DeviceOutlook,
    pass_s: float,
    pass_ends_s: float | None,
) -> float:
    """Forecast when tokens num_fed .. end are fed and the next one sampled; see `ready_s`.

    Args:
        now_s: the present time.
        end: tokens of prompt and answer before the position.
        num_fed: tokens fed by finished passes.
        estimate: the device's speed.
        pass_s: forecast duration of the pass in progress.
        pass_ends_s: forecast end of that pass; None between passes.
    """
    remaining_s = estimate.work_s(num_fed, end)
    if pass_ends_s is None:
        return now_s + remaining_s
    began_s = pass_ends_s - pass_s
    late_s = max(now_s - pass_ends_s, 0.0)
    return max(began_s + remaining_s, now_s) + late_s


class _Feed(Protocol):
    async def __call__(
        self,
        token_ids: list[int],
        sample_position: int | None,
        positions: list[int] | None = None,
    ) -> int | None: ...
