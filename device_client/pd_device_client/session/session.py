"""A session answers one request: race, catch-up, handoff, fallback both ways, even pace.

Three parts run side by side on one event loop and meet in the token log: the cloud's leg, the
device's leg, and the reader, which shows committed tokens through the speed controller. After every
change `_steer` tells the cloud's leg what to ask for. Time comes from the running loop only, so the
same code runs on a virtual clock.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from pd_core.errors import BothEnginesFailed, InvalidConstraint, PdError
from pd_core.generation import FinishReason
from pd_core.refinement import Ranges
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.happenings import Happened, Happening, Tell, Trace, silent
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.contract.text_source import TextSource
from pd_device_client.planning.planner import Plan, below_pace
from pd_device_client.session.cloud_leg import CloudLeg, LegState
from pd_device_client.session.course import Course
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.handoff import Handoff
from pd_device_client.session.outlook import ReaderOutlook
from pd_device_client.session.reader import Reader
from pd_device_client.session.reading_pace import ReadingPace
from pd_device_client.session.refinement import Refinement
from pd_device_client.session.seen import Seen
from pd_device_client.session.sides import Sides
from pd_device_client.session.stand_in import StandIn
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal
from pd_device_client.session.why_cloud import reason_at_end

__all__ = ["Session"]


# The shortest time after which the cloud may drop a queued request; estimates err.
_LEAST_USEFUL_S = 0.5
# A device that misses the pace gives its claim back at most this often, then keeps the answer.
_CLAIMS = 3
# The shortest wait before looking again, so that rounding cannot make it zero.
_LEAST_LOOK_S = 0.001


class Session:
    """One answer; iterate `run` once, then read `outcome`.

    Args:
        ask: what to answer.
        plan: how to split the answer.
        sides: the cloud link, the local engine and their estimates.
        expected_tokens: N of the forecasts, a quantile of past answer lengths.
        text: detokeniser with stop strings; without one no text is made.
        protected: positions of the prompt that a refined prompt keeps in any case.
        notes: first notes of the outcome, in words for the user.
        reading: the reader's own speed, for an answer with text; None: the plan's pace.
        on_end: called with the outcome when it is complete.
        trace: follows it; None: nothing does.

    Attributes:
        ask, plan, sides: as given.
        outcome: the result.
        log, seen, cloud, device, handoff, reader: the session's parts; a simulation reads them and
            may show tokens itself.
    """

    def __init__(
        self,
        ask: Ask,
        plan: Plan,
        sides: Sides,
        *,
        expected_tokens: int,
        text: TextSource | None = None,
        protected: Ranges = (),
        notes: Sequence[str] = (),
        reading: ReadingPace | None = None,
        on_end: Callable[[Outcome], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.ask = ask
        self.plan = plan
        self.sides = sides
        self._on_end = on_end
        self._trace = trace
        self._changed = Signal()
        self._told = asyncio.Queue[Shown | Happened | None]()  # used only when watched
        self._device_task: asyncio.Task[None] | None = None  # the latest: a stand-in comes and goes
        self._claims_given_back = 0
        self._cancelled = False
        tell: Tell = self._tell if ask.watched or trace is not None else silent
        changed, self.seen = self._changed, Seen()
        ends = (*sides.eos_token_ids, *ask.stop_token_ids)
        self.log = log = TokenLog(ask.max_tokens, ends, self._committed, tell)
        self.cloud = self.device = self._refinement = None
        if sides.engine is not None:
            self.device = DeviceLeg(ask, sides, log, changed, tell)
            self._refinement = Refinement(
                plan.keep_ratio, protected, len(ask.prompt_token_ids), self.device.refine
            )
        if sides.link is not None:
            self.cloud = CloudLeg(
                *(ask, sides, log, changed),
                useful_for_s=self._useful_for_s(),
                refinement=self._refinement,
                tell=tell,
            )
        self.handoff = Handoff(
            plan,
            sides,
            log,
            self.seen,
            self.cloud,
            self.device,
            expected_tokens=expected_tokens,
            max_tokens=ask.max_tokens,
        )
        self._stand_in = None
        if self.cloud is not None and self.device is not None:
            self._stand_in = StandIn(
                plan, sides, log, self.seen, self.cloud, self.device, self.handoff
            )
        planned_tokens = min(plan.cloud_tokens, ask.max_tokens)
        self._course = Course(
            plan.mode, planned_tokens, self.cloud, tell, takes_turns=plan.takes_turns
        )
        outlook = ReaderOutlook(sides, log, self.cloud, self.device, self.handoff)
        self.seen.pace_s = plan.pace_s
        self.reader = Reader(ask, log, self.seen, outlook, changed, text, reading)
        self.outcome = Outcome(
            request_id=ask.request_id,
            mode=plan.mode.value,
            planned_tokens=planned_tokens,
            pace_s=plan.pace_s,
            shown=self.seen.shown,
            arrived_at_s=self.seen.arrived_at_s,
            exactness=sides.exactness,
            notes=list(notes),
        )

    def _tell(self, happening: Happening) -> None:
        if self.ask.watched:
            self._told.put_nowait(Happened(self.reader.since_submit_s(), happening))
        if self._trace is not None:
            self._trace.happened(happening)

    def _committed(self, position: int, token_id: int) -> None:
        shared = self.handoff.mode is Mode.PD_DEVICE
        self._course.committed(position, self.log.origins[position], shared=shared)
        self.reader.release(token_id)

    def _useful_for_s(self) -> float | None:
        """How long the request may queue: until the device shows the first token itself."""
        if self.sides.engine is None or self.plan.mode is not Mode.PD_DEVICE:
            return None
        device = self.sides.device_estimate
        prompt = self.ask.prompt_token_ids
        cached = self.sides.engine.cached_tokens(prompt)
        alone_s = device.prefill_s(len(prompt)) - device.prefill_s(cached) + device.decode_s
        alone_s += self.sides.turns.forecast_s()
        return max(alone_s, _LEAST_USEFUL_S)

    # From submit to the end

    async def run(self) -> AsyncGenerator[Shown | Happened, None]:
        """Yield each token at its time and, if the ask is watched, each event.

        An unwatched session waits for a slow reader. A watched one does not: it queues what the
        reader has not taken, which is bounded by the tokens of prompt and answer.

        Closing the generator cancels both sides within one step.

        Raises:
            PdError: no side can continue; everything committed was shown before.
        """
        self.reader.begin(self.ask.asked_s)
        context = None if self._trace is None else self._trace.context
        loop = asyncio.get_running_loop()
        outcome, tasks = self.outcome, [loop.create_task(self._drive(), context=context)]
        try:
            if self.ask.watched:
                tasks.append(asyncio.ensure_future(self._show_beside(*tasks)))
                while (told := await self._told.get()) is not None:
                    yield told
            else:
                while await self.reader.next_is_due():
                    yield self.reader.show()
            for task in tasks:
                await task
            outcome.finish_reason = FinishReason.CANCELLED if self._cancelled else self.log.closed
            outcome.error = self._failure()
        finally:
            try:
                await _cancel(tasks)
            finally:
                self._complete()
        if outcome.error is not None:
            raise outcome.error

    def cancel(self) -> None:
        """End the answer here: both sides stop, and no token is shown any more.

        `run` then ends as at an answer's usual end, within the gap between two tokens.
        """
        self._cancelled = True
        self.log.close(FinishReason.CANCELLED)
        self.reader.stop()

    async def _show_beside(self, driver: "asyncio.Task[None]") -> None:
        """Queue tokens at their time, then None for the end."""
        try:
            while await self.reader.next_is_due():
                self._told.put_nowait(self.reader.show())
            await asyncio.wait({driver})
        finally:
            self._told.put_nowait(None)

    async def _drive(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                cloud_task = None
                if self.cloud is not None:
                    cloud_task = group.create_task(self.cloud.run())
                while not self._over():
                    self._steer()
                    if self.device is not None and self._device_wanted():
                        self._device_task = group.create_task(self.device.run(self.handoff))
                        if self._stand_in is not None and self.handoff.mode is Mode.CLOUD_ONLY:
                            self._stand_in.came()
                    await self._changed.wait(self._look_again_s())
                self.reader.release_rest()
                if self.cloud is not None:
                    self.cloud.log_closed()
                self.reader.over = True
                self._changed.notify()
                await self._let_cloud_finish()
                for task in (cloud_task, self._device_task):
                    if task is not None:
                        task.cancel()
        finally:
            self.reader.over = True
            self._changed.notify()

    def _look_again_s(self) -> float | None:
        """Seconds until a silent side should be checked; None while there is no alternative."""
        if self._stand_in is None or not self._cloud_usable or not self._device_usable:
            return None
        if self._device_works:
            return self.plan.pace_s
        return max(self._stand_in.wanted_in_s(), _LEAST_LOOK_S)

    def _over(self) -> bool:
        return bool(self.log.closed) or (not self._cloud_usable and not self._device_usable)

    @property
    def _cloud_usable(self) -> bool:
        return self.cloud is not None and self.cloud.state is not LegState.FAILED

    @property
    def _device_usable(self) -> bool:
        return self.device is not None and self.device.error is None

    @property
    def _device_works(self) -> bool:
        """Whether the device's leg runs, or is about to begin or to end."""
        return self._device_task is not None and not self._device_task.done()

    def _device_wanted(self) -> bool:
        """Whether to start the device; in cloud-only, once the cloud cannot go on without it."""
        if self._device_works or not self._device_usable:
            return False
        if self._stand_in is None or self.handoff.mode is not Mode.CLOUD_ONLY:
            return True
        return self._stand_in.wanted_in_s() <= 0

    def _steer(self) -> None:
        """Tell both sides what to do now."""
        if self.cloud is None:
            return
        self._leave_to_cloud_if_better()
        if self._claims_given_back < _CLAIMS and self.handoff.promise_is_lost():
            if self.handoff.takes_turns:
                self.handoff.end_turn()
            else:
                self._claims_given_back += 1
            self.log.release_claim()
        if self.log.claimed_at is not None:
            self.cloud.stop()
        elif not self._device_usable or self.handoff.mode is Mode.CLOUD_ONLY:
            self.cloud.carry_to(self.ask.max_tokens)
        else:
            self.cloud.carry_to(max(self.outcome.planned_tokens, self.handoff.tokens_for_no_seam()))
        self._dismiss_stand_in()

    def _leave_to_cloud_if_better(self) -> None:
        """Let the cloud make the rest where the device cannot hold the pace.

        The device stays until the cloud's tokens have reached the end of the log.
        """
        if self.handoff.mode is not Mode.PD_DEVICE or not self._device_works:
            return
        if not self._device_usable or not self.handoff.cloud_should_finish():
            return
        self.handoff.mode = Mode.CLOUD_ONLY
        decode_s = self.sides.device_estimate.usual_decode_s
        self._course.leaves_to_cloud(below_pace("this device", decode_s, self.plan.pace_s))
        self.log.release_claim()

    def _dismiss_stand_in(self) -> None:
        """End the device's leg where the cloud makes the rest without it."""
        if self._stand_in is None or self.handoff.mode is not Mode.CLOUD_ONLY:
            return
        task = self._device_task
        if task is None or task.done() or task.cancelling() or not self._stand_in.is_over():
            return
        task.cancel()
        self._course.cloud_alone(self.log.length)

    async def _let_cloud_finish(self) -> None:
        """Wait briefly for Finished, which says how many tokens the cloud made."""
        busy = (LegState.OPENING, LegState.STREAMING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.sides.timeouts.finish_s):
                while self.cloud is not None and self.cloud.state in busy:
                    await self._changed.wait()

    # The outcome

    def _failure(self) -> PdError | None:
        if self.log.closed:
            return None
        cloud = self.cloud.error if self.cloud is not None else None
        device = self.device.error if self.device is not None else None
        if isinstance(device, InvalidConstraint):  # nothing is wrong with either side
            return device
        if cloud is not None and device is not None:
            both = BothEnginesFailed(f"neither side can go on. Cloud: {cloud}. Device: {device}")
            both.__cause__ = device
            return both
        return cloud or device

    def _complete(self) -> None:
        log, outcome = self.log, self.outcome
        if outcome.error is not None:
            outcome.finish_reason = FinishReason.ERROR
        outcome.finish_reason = outcome.finish_reason or FinishReason.CANCELLED
        outcome.cloud_tokens = log.origins.count(Origin.CLOUD)
        outcome.disagreed = log.disagreed
        outcome.handoff_position = log.handoff_position
        outcome.stop_string = self.reader.stop_string
        if self.cloud is not None:
            outcome.cloud_tokens_generated = self.cloud.generated
            outcome.cloud_error = self.cloud.error
            # A stream that continues an answer may find its own tokens cached.
            num_prompt = len(self.ask.prompt_token_ids)
            outcome.cloud_cached_tokens = min(self.cloud.cached_tokens, num_prompt)
            outcome.sent_to_cloud = self.cloud.streams > 0
            outcome.cloud_reason = reason_at_end(self.cloud, outcome.cloud_reason)
            if self.cloud.first_token_s is not None:
                outcome.cloud_ttft_s = self.cloud.first_token_s - self.seen.submitted_s
            if self.cloud.error is not None and outcome.error is None:
                outcome.notes.append(f"cloud: {self.cloud.error}")
        allowance = self.sides.allowance
        if allowance is not None and allowance.priced:
            outcome.cloud_cost = allowance.cost
        if self.device is not None:
            outcome.device_cached_tokens = self.device.num_cached
            outcome.device_tokens_generated = self.device.generated
            outcome.left_out_tokens = self.device.prompt.num_left_out
            if outcome.left_out_tokens and Origin.DEVICE in log.origins:
                outcome.exactness = "refined"
        if self._refinement is not None and self._refinement.problem is not None:
            outcome.notes.append(f"cloud: {self._refinement.problem}")
        if self.device is not None and self.device.error is not None and outcome.error is None:
            outcome.notes.append(f"device: {self.device.error}")
        if self.handoff.mode is Mode.CLOUD_ONLY and self._course.words:
            outcome.notes.append(self._course.words)
        if self._on_end is not None:
            self._on_end(outcome)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel the tasks; raise the error of one that failed."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
