"""The device's part of one request: prefill, catch-up in batched passes, claim, decode.

One loop does it all. Whatever is committed but not yet fed (the prompt first, then the cloud's
tokens) is fed in passes of at most one chunk; the pass that reaches the end of it also samples a
candidate for the next position. A candidate is committed after the claim, and dropped when a
cloud token took its position meanwhile.
"""

import asyncio
import logging
import math
from typing import Protocol

from pd_core.errors import EngineError, PdError
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import (
    DeviceBegan,
    DeviceFailed,
    DevicePassed,
    Tell,
    silent,
)
from pd_device_client.planning.estimates import DeviceEstimate
from pd_device_client.session.engine_turns import Turn
from pd_device_client.session.sides import Sides
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal

__all__ = ["ClaimPolicy", "DeviceLeg", "forecast_ready_s"]

logger = logging.getLogger(__name__)


class ClaimPolicy(Protocol):
    """The session's judgement, asked by the device's leg."""

    def may_claim(self, ready_s: float) -> bool:
        """Whether the device may claim, being able to show the next position at `ready_s`."""
        ...

    def hold_s(self, pass_s: float) -> float:
        """Seconds by which a catch-up pass of `pass_s` is better put off; 0: run it now."""
        ...

    def patience_s(self) -> float | None:
        """Seconds after which the questions above may be answered otherwise; None: on change."""
        ...


class DeviceLeg:
    """The local engine's work for one request.

    Args:
        ask: what to answer.
        sides: the local engine, which is there and is worked with during one's turn only, and what
            is known of its speed.
        log: where its tokens go.
        changed: notified after every pass.
        tell: told of every pass.

    Attributes:
        running: whether the leg was started and has not failed.
        error: why it failed, or None.
        num_fed: tokens fed so far, the prompt's included.
        num_cached: of the prompt, those that were cached from earlier answers.
    """

    def __init__(
        self,
        ask: Ask,
        sides: Sides,
        log: TokenLog,
        changed: Signal,
        tell: Tell = silent,
    ) -> None:
        assert sides.engine is not None, "a device's leg needs an engine"
        self._ask = ask
        self._engine = sides.engine
        self._estimate = sides.device_estimate
        self._turns = sides.turns
        self._log = log
        self._changed = changed
        self._tell = tell
        self._turn: Turn | None = None
        self._pass_s = 0.0  # forecast of the pass in progress
        self._pass_ends_s: float | None = None  # None between passes
        self.running = False
        self.error: PdError | None = None
        # What an earlier answer left behind is fed already, if it is still there in our turn.
        self.num_fed = self.num_cached = self._engine.cached_tokens(ask.prompt_token_ids)

    def ready_s(self, position: int) -> float:
        """Forecast the instant at which the device can show `position`, all before it committed.

        What remains is fed in passes, each of which costs a decode step at least; the last one
        makes the token. A pass in progress counts from its beginning; one that is late is
        expected to be as late again.
        """
        now_s = asyncio.get_running_loop().time()
        # Before our turn there is no pass in progress that would count it.
        wait_s = self._turns.forecast_s() if self._turn is None else self._turn.wait_s()
        return wait_s + forecast_ready_s(
            now_s,
            len(self._ask.prompt_token_ids) + position,
            self.num_fed,
            self._engine.card.chunk_tokens,
            self._estimate,
            self._pass_s,
            self._pass_ends_s,
        )

    async def run(self, policy: ClaimPolicy) -> None:
        """Work until the log closes or the engine fails; a failure gives the claim back.

        Args:
            policy: when to claim.
        """
        sequence = None
        self._turn = self._turns.join()
        try:
            self.running = True
            await self._turn.begin()
            prompt = self._ask.prompt_token_ids
            self.num_fed = self.num_cached = self._engine.cached_tokens(prompt)
            sequence = self._engine.open(self._ask.sampling, prompt)
            self._tell(DeviceBegan(self.num_cached))
            while not self._log.closed:
                candidate = await self._catch_up(sequence.feed, policy)
                if candidate is not None:
                    await self._place(candidate, policy)
        except PdError as error:
            self._fail(error)
        except Exception as error:  # the outermost frame of the engine's work
            logger.exception("request %s: the local engine failed", self._ask.request_id)
            self._fail(EngineError(f"the local engine failed: {type(error).__name__}"))
        finally:
            self.running = False
            if sequence is not None:
                sequence.close()
            self._turn.end()
            self._changed.notify()

    async def _catch_up(self, feed: "_Feed", policy: ClaimPolicy) -> int | None:
        """Feed one pass; return the next position's candidate if all there is was fed."""
        pending = self._pending()
        chunk = pending[: self._engine.card.chunk_tokens]
        last = len(chunk) == len(pending)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._pass_s = self._estimate.pass_s(self.num_fed, len(chunk))
        if last and self._log.claimed_at is None:
            if policy.may_claim(began_s + self._pass_s):
                self._log.claim()
                self._changed.notify()
            elif (hold_s := policy.hold_s(self._pass_s)) > 0 and self._caught_up:
                await self._changed.wait(hold_s)
                return None
        self._pass_ends_s = began_s + self._pass_s
        position = self._log.length
        sampled = await feed(chunk, position if last else None)
        self._pass_ends_s = None
        took_s = loop.time() - began_s
        self._estimate.observe_pass(self.num_fed, len(chunk), took_s)
        self.num_fed += len(chunk)
        self._tell(DevicePassed(self.num_fed, len(chunk), took_s))
        self._changed.notify()
        return sampled if position == self._log.length else None

    @property
    def _caught_up(self) -> bool:
        """Whether the prompt is fed: from here on passes only absorb."""
        return self.num_fed >= len(self._ask.prompt_token_ids)

    def _pending(self) -> list[int]:
        """What is committed and not fed: the prompt's rest, then response tokens."""
        prompt = self._ask.prompt_token_ids
        chunk = self._engine.card.chunk_tokens
        if self.num_fed < len(prompt):
            pending = list(prompt[self.num_fed : self.num_fed + chunk + 1])
            return pending + self._log.token_ids[: max(chunk + 1 - len(pending), 0)]
        return self._log.token_ids[self.num_fed - len(prompt) :]

    async def _place(self, candidate: int, policy: ClaimPolicy) -> None:
        """Commit the candidate when it may be, or wait until a cloud token takes its place."""
        log, position = self._log, self._log.length
        while not log.closed and log.length == position:
            if log.claimed_at is None and policy.may_claim(asyncio.get_running_loop().time()):
                log.claim()
            if log.open_to_device:
                log.commit_device(position, candidate)
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
    chunk_tokens: int,
    estimate: DeviceEstimate,
    pass_s: float,
    pass_ends_s: float | None,
) -> float:
    """Forecast when tokens num_fed .. end are fed and the next one made; see `ready_s`.

    Args:
        now_s: the present.
        end: tokens of prompt and answer before the position asked for.
        num_fed: of them, those fed by finished passes.
        chunk_tokens: of one pass at most.
        estimate: the device's speed.
        pass_s: forecast of the pass in progress.
        pass_ends_s: when that is to end; None between passes.
    """
    passes = math.ceil((end - num_fed) / chunk_tokens)
    work_s = estimate.prefill_s(end) - estimate.prefill_s(num_fed)
    remaining_s = max(work_s, passes * estimate.decode_s, 0.0)
    if pass_ends_s is None:
        return now_s + remaining_s
    began_s = pass_ends_s - pass_s
    late_s = max(now_s - pass_ends_s, 0.0)
    return max(began_s + remaining_s, now_s) + late_s


class _Feed(Protocol):
    async def __call__(self, token_ids: list[int], sample_position: int | None) -> int | None: ...
