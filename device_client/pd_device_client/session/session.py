"""A session carries one request: race, catch-up, handoff, fallback both ways, even pace.

Three things run beside each other on one event loop and meet in the token log: the cloud's leg,
the device's leg, and the reader's side (`Session.run`), which shows what is committed through the
speed controller. After every change `_steer` says what is wanted of the cloud. Time is taken from
the running loop only, so the same code runs on a virtual clock.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from pd_core.errors import BothEnginesFailed, PdError
from pd_device_client.contract.happenings import Happening, Tell, Watcher, silent
from pd_device_client.contract.outcome import GenerationRequest, Origin, Outcome, Shown
from pd_device_client.contract.text_source import TextSource
from pd_device_client.planning.planner import Mode, Plan
from pd_device_client.session.clock import loop_time
from pd_device_client.session.cloud_leg import CloudLeg, LegState
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.handoff import Handoff
from pd_device_client.session.sides import Sides
from pd_device_client.session.speed_controller import SpeedController
from pd_device_client.session.standing import Standing
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal

__all__ = ["Session"]


# Estimates err: a queued request is given at least this long.
_LEAST_USEFUL_S = 0.5
# A device that goes on losing its promise is left to its own pace after so many claims.
_CLAIMS = 3
# So that rounding cannot make a wait of nothing out of one that is about to end.
_LEAST_LOOK_S = 0.001


class Session:
    """One request; iterate `run` once, then read `outcome`.

    Args:
        request: what to answer.
        plan: how.
        sides: with what.
        expected_tokens: N of the forecasts, a quantile of past answers' lengths.
        text: detokeniser with stop strings; without one no text is made.
        notes: shown with the outcome, in words for the user.
        read_along: show every token at its time; False: show the rest at once when the answer is
            complete, for a reader who gets it in one piece.
        on_end: called with the outcome when it is complete.
        watcher: called with what happens, when it happens.

    Attributes:
        hold_reader: `run` shows nothing while tokens may still come; for a simulation that calls
            `show` itself.
        asked_s: when the reader asked, on the loop's clock; all times count from there. None: when
            `run` begins.
    """

    def __init__(
        self,
        request: GenerationRequest,
        plan: Plan,
        sides: Sides,
        *,
        expected_tokens: int,
        text: TextSource | None = None,
        notes: Sequence[str] = (),
        read_along: bool = True,
        on_end: Callable[[Outcome], None] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.plan = plan
        self.outcome = Outcome(
            request_id=request.request_id,
            mode=plan.mode.value,
            planned_tokens=min(plan.cloud_tokens, request.max_tokens),
            pace_s=plan.pace_s,
            exactness=sides.exactness,
            notes=list(notes),
        )
        self._on_end = on_end
        self._watcher = watcher
        self._tell: Tell = silent if watcher is None else self._tell_watcher
        self._read_along = read_along
        self._request = request
        self._sides = sides
        self._changed = Signal()
        self._log = TokenLog(request.max_tokens, sides.eos_token_ids, self._release, self._tell)
        self._text = text
        self._texts: list[str] = []  # of the released positions
        self._controller = SpeedController(plan.pace_s)
        self._time: Callable[[], float] = loop_time
        self._driven = False
        self.hold_reader = False
        self.asked_s: float | None = None
        self._submitted_s = 0.0
        self._next_show_s: float | None = None
        self._due_s: float | None = None
        self._device_started = False
        self._claims_given_back = 0
        self._handoff = Handoff(
            plan,
            sides,
            self._log,
            self.outcome.shown,
            expected_tokens=expected_tokens,
            max_tokens=request.max_tokens,
        )
        self._cloud = self._handoff.cloud = self._make_cloud()
        self._device = self._handoff.device = self._make_device()

    def _make_cloud(self) -> CloudLeg | None:
        sides = self._sides
        if sides.link is None:
            return None
        return CloudLeg(
            sides.link,
            self._request,
            self._log,
            sides.cloud_estimate,
            self._changed,
            fingerprints=sides.fingerprints,
            timeouts=sides.timeouts,
            useful_for_s=self._useful_for_s(),
            tell=self._tell,
        )

    def _make_device(self) -> DeviceLeg | None:
        sides = self._sides
        if sides.engine is None:
            return None
        return DeviceLeg(
            sides.engine,
            self._request,
            self._log,
            sides.device_estimate,
            self._changed,
            self._handoff,
            sides.turns,
            self._tell,
        )

    def _tell_watcher(self, happening: Happening) -> None:
        assert self._watcher is not None, "nobody is told without a watcher"
        self._watcher(self._time() - self._submitted_s, happening)

    def _useful_for_s(self) -> float | None:
        """A queued request is of no use once the device shows the first token itself."""
        if self._sides.engine is None or self.plan.mode is not Mode.PD_DEVICE:
            return None
        device = self._sides.device_estimate
        prompt = self._request.prompt_token_ids
        cached = self._sides.engine.cached_tokens(prompt)
        alone_s = device.prefill_s(len(prompt)) - device.prefill_s(cached) + device.decode_s
        alone_s += self._sides.turns.forecast_s()
        return max(alone_s, _LEAST_USEFUL_S)

    @property
    def num_prompt_tokens(self) -> int:
        """The prompt's length."""
        return len(self._request.prompt_token_ids)

    # The reader's side

    @property
    def shows_next(self) -> bool:
        """Whether a token is there that has not been shown."""
        return len(self._texts) > len(self.outcome.shown)

    @property
    def complete(self) -> bool:
        """Whether the answer's last token is there."""
        return bool(self._log.closed)

    async def run(self) -> AsyncGenerator[Shown, None]:
        """Yield each token at its time.

        Closing the generator cancels both sides within one step.

        Raises:
            PdError: no side can go on; everything committed was shown before.
        """
        self._time = asyncio.get_running_loop().time
        self._submitted_s = self._time() if self.asked_s is None else self.asked_s
        driver = asyncio.ensure_future(self._drive())
        outcome = self.outcome
        try:
            while await self._next_is_released():
                position = len(self.outcome.shown)
                await self._pace()
                if len(self.outcome.shown) == position:  # else shown ahead of time, by foresight
                    yield self.show()
            await driver
            outcome.finish_reason = self._log.closed
            outcome.error = self._failure()
        finally:
            try:
                driver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await driver
            finally:
                self._complete()
        if outcome.error is not None:
            raise outcome.error

    async def _next_is_released(self) -> bool:
        """Wait for the next position; False when there is none."""
        while (self.hold_reader or not self.shows_next) and not self._driven:
            await self._changed.wait()
        return self.shows_next

    async def _pace(self) -> None:
        """Wait until the next token may be shown; without a pace, not at all."""
        at_once = not self.plan.pace_s or (self._driven and not self._read_along)
        if not self.outcome.shown or at_once:
            return
        wait_s = self.next_wait_s()
        self._next_show_s = self._time() + wait_s
        await asyncio.sleep(wait_s)
        self._due_s, self._next_show_s = self._next_show_s, None

    def next_wait_s(self) -> float:
        """Seconds from now after which the next token, which is there, is to be shown."""
        last = len(self.outcome.shown) - 1
        if last < 0:
            return 0.0
        shown_s = self._handoff.shown_s
        gap_s = self._controller.next_gap_s(last, shown_s, self._handoff.arrivals())
        return max(shown_s + gap_s - self._time(), 0.0)

    def show(self) -> Shown:
        """Show the next token now; `run` does, at its time."""
        log, all_shown = self._log, self.outcome.shown
        position = len(all_shown)
        now_s = self._time()
        self._handoff.shown_s = self._controller.counted_s(self._due_s, now_s)
        self._due_s = None
        shown = Shown(
            position,
            log.token_ids[position],
            self._texts[position],
            log.origins[position],
            now_s - self._submitted_s,
        )
        all_shown.append(shown)
        self._changed.notify()
        return shown

    def _release(self, position: int, token_id: int) -> None:
        """A token was committed: release the text that is complete with it."""
        self.outcome.arrived_at_s.append(self._time() - self._submitted_s)
        if self._text is None:
            self._texts.append("")
        elif token_id not in self._sides.eos_token_ids:
            self._texts.extend(text for _, text in self._text.push(token_id))
            if self._text.stopped:
                self._log.close("stop")
        self._changed.notify()

    def _flush(self) -> None:
        """The log is closed: release everything."""
        if self._text is not None:
            self._texts.extend(text for _, text in self._text.flush())
        self._texts.extend([""] * (self._log.length - len(self._texts)))

    def standing(self) -> Standing:
        """Return where the request stands, for a simulation that foresees the rest."""
        assert self._text is None, "text may end an answer at any token"
        return Standing(
            request=self._request,
            plan=self.plan,
            log=self._log,
            cloud=self._cloud,
            device=self._device,
            estimate=self._sides.device_estimate,
            expected_tokens=self._handoff.expected_tokens,
            shown=self.outcome.shown,
            shown_s=self._handoff.shown_s,
            next_show_s=self._next_show_s,
            submitted_s=self._submitted_s,
            show=self.show,
        )

    # Both legs, from submit to the end

    async def _drive(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = []
                if self._cloud is not None:
                    tasks.append(group.create_task(self._cloud.run()))
                while not self._over():
                    self._steer()
                    if self._device is not None and self._device_wanted():
                        self._device_started = True
                        tasks.append(group.create_task(self._device.run()))
                    await self._changed.wait(self._look_again_s())
                self._flush()
                if self._cloud is not None:
                    self._cloud.log_closed()
                self._driven = True
                self._changed.notify()
                await self._let_cloud_finish()
                for task in tasks:
                    task.cancel()
        finally:
            self._driven = True
            self._changed.notify()

    def _look_again_s(self) -> float | None:
        """A silent side tells nobody: look at it when it might be time to turn to the other."""
        if not self._cloud_usable or not self._device_usable:
            return None
        if not self._device_started:
            return max(self._cloud_late_in_s(), _LEAST_LOOK_S)
        assert self._device is not None, "a usable device is there"
        return self.plan.pace_s if self._device.running else None

    def _over(self) -> bool:
        return bool(self._log.closed) or (not self._cloud_usable and not self._device_usable)

    @property
    def _cloud_usable(self) -> bool:
        return self._cloud is not None and self._cloud.state is not LegState.FAILED

    @property
    def _device_usable(self) -> bool:
        return self._device is not None and self._device.error is None

    def _device_wanted(self) -> bool:
        """In cloud-only the device begins when the cloud fails, beside its retries, or is late."""
        if self._device_started:
            return False
        failed = self._cloud is None or self._cloud.error is not None
        return failed or self.plan.mode is not Mode.CLOUD_ONLY or self._cloud_late_in_s() <= 0

    def _cloud_late_in_s(self) -> float:
        assert self._cloud is not None, "asked where there is a cloud"
        return self._cloud.late_at_s() - self._time()

    def _steer(self) -> None:
        """Say what is wanted of the cloud now."""
        if self._cloud is None:
            return
        if self._claims_given_back < _CLAIMS and self._handoff.promise_is_lost():
            self._claims_given_back += 1
            self._log.release_claim()
        if self._log.claimed_at is not None:
            self._cloud.stop()
        elif not self._device_usable or self.plan.mode is Mode.CLOUD_ONLY:
            self._cloud.carry_to(self._request.max_tokens)
        else:
            self._cloud.carry_to(
                max(self.outcome.planned_tokens, self._handoff.tokens_for_no_seam())
            )

    async def _let_cloud_finish(self) -> None:
        """Wait a moment for Finished: it says what the cloud really did."""
        busy = (LegState.OPENING, LegState.STREAMING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._sides.timeouts.finish_s):
                while self._cloud is not None and self._cloud.state in busy:
                    await self._changed.wait()

    # The outcome

    def _failure(self) -> PdError | None:
        if self._log.closed:
            return None
        cloud = self._cloud.error if self._cloud is not None else None
        device = self._device.error if self._device is not None else None
        if cloud is not None and device is not None:
            both = BothEnginesFailed(f"neither side can go on. Cloud: {cloud}. Device: {device}")
            both.__cause__ = device
            return both
        return cloud or device

    def _complete(self) -> None:
        log, outcome = self._log, self.outcome
        if outcome.error is not None:
            outcome.finish_reason = "error"
        outcome.finish_reason = outcome.finish_reason or "cancelled"
        outcome.cloud_tokens = log.origins.count(Origin.CLOUD)
        outcome.disagreed = log.disagreed
        outcome.handoff_position = log.handoff_position
        if self._cloud is not None:
            outcome.cloud_tokens_generated = self._cloud.generated
            outcome.cloud_error = self._cloud.error
            if self._cloud.first_token_s is not None:
                outcome.cloud_ttft_s = self._cloud.first_token_s - self._submitted_s
            if self._cloud.error is not None and outcome.error is None:
                outcome.notes.append(f"cloud: {self._cloud.error}")
        if self._device is not None:
            outcome.device_cached_tokens = self._device.num_cached
        if self._device is not None and self._device.error is not None and outcome.error is None:
            outcome.notes.append(f"device: {self._device.error}")
        if self._on_end is not None:
            self._on_end(outcome)
