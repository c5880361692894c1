"""Computes at once the rest of an answer that only its device can still generate.

After the claim, the only randomness left in a session with an emulated engine is the engine's
spread, and only two parts act: the device decodes, and the reader is shown tokens at the pace. The
event loop would need a dozen calls a token for that. Here the same arithmetic runs in one loop, on
copies. The result is applied only if the session would never use the cloud again, by its own rule:
every commit and every show through the session's own methods, with the clock set to its instant. A
test compares this with a normal run of the session, token by token.
"""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace

from pd_bench.emulation.device_engine import EmulatedDeviceEngine, EmulatedSequence
from pd_bench.emulation.virtual_loop import VirtualLoop
from pd_bench.replay.dispatch import DispatchedSession
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.outlook import device_outlook
from pd_device_client.session.cloud_leg import CloudLeg, LegState
from pd_device_client.session.handoff import LOST_TOLERANCE, expected_last
from pd_device_client.session.outlook import decoded
from pd_device_client.session.session import Session

__all__ = ["ForesightEngine"]


class ForesightEngine(EmulatedDeviceEngine):
    """An emulated engine that computes the rest of its answers ahead of time.

    For one request per device, because its estimates afterwards differ from those of a real run.

    Attributes:
        session: the present request's session; None: nothing is foreseen.
        ends_by_s: an answer that would go on beyond this instant is not foreseen.
        num_foreseen: number of answers foreseen.
    """

    session: Session | None = None
    ends_by_s = float("inf")
    num_foreseen = 0

    def watch(self, session: DispatchedSession, ends_by_s: float) -> None:
        """See where the session of the present request stands."""
        if isinstance(session, Session):  # not a race, whose reader must see its first token arrive
            assert not session.reader.makes_text, "text may end an answer at any token"
            self.session = session
            self.ends_by_s = ends_by_s

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> EmulatedSequence:
        """Open an empty sequence."""
        return _ForesightSequence(self, sampling, prompt_token_ids)


class _ForesightSequence(EmulatedSequence):
    def __init__(
        self,
        engine: ForesightEngine,
        sampling: SamplingParams,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        super().__init__(engine, sampling, prompt_token_ids)
        self._foresight = engine
        self._tried = False

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        engine = self._foresight
        decodes = len(token_ids) == 1 and sample_position is not None
        if decodes and not self._tried and engine.session is not None:
            session = engine.session
            if _undisturbed(session):
                self._tried = True
                course = _Course(session, engine, self, token_ids[0])
                if course.foreseen(engine.ends_by_s):
                    course.carry_out()
                    engine.num_foreseen += 1
                    return None
        return await super().feed(token_ids, sample_position, positions)


def _undisturbed(session: Session) -> bool:
    """Whether only the device can generate tokens now, unless it must give the claim back."""
    log, cloud = session.log, session.cloud
    if log.claimed_at is None or session.device is None or not log.length:
        return False
    if session.plan.takes_turns:
        return False  # the cloud comes back
    quiet = cloud is None or cloud.state is LegState.FAILED
    return (quiet or _is_done(cloud)) and not log.holds_aside


def _is_done(cloud: CloudLeg | None) -> bool:
    return cloud is not None and cloud.state is LegState.IDLE and not cloud.wanted


class _Course:
    """The course of events, as far as it is computed.

    Args:
        session: the request's session, at the beginning of a decode step.
        engine: draws the steps' seconds.
        sequence: the device's sequence, with all tokens except the one being fed.
        token_id: the token being fed.
    """

    def __init__(
        self,
        session: Session,
        engine: ForesightEngine,
        sequence: EmulatedSequence,
        token_id: int,
    ) -> None:
        device = session.device
        assert device is not None, "only a device's course is foreseen"
        self._session = session
        self._engine = engine
        self._sequence = sequence
        self._fed = token_id
        self._loop = _virtual_loop()
        self._state = copy.copy(sequence.state)
        estimate = session.sides.device_estimate
        decode, errors = estimate.decode.copy(), estimate.errors.copy()
        self._estimate = replace(estimate, decode=decode, errors=errors)
        self._helped = session.handoff.helped
        self._controller = copy.copy(session.reader.controller)
        self._prompt_tokens = device.prompt.num_tokens
        self._num_fed = device.num_fed
        self._length = session.log.length
        self._last_shown = len(session.seen.shown) - 1
        self._shown_s = session.seen.last_s
        self._next_show_s = session.reader.next_show_s
        self._looked_s = self._loop.time()  # when reader and session last judged the state
        self._pass_ends_s = self._probably_ends_s = 0.0
        self._fed_s = 0.0  # when all that is committed is expected to be fed, and one more made
        # The profile's seconds to feed what is fed, in one go.
        self._alone_s = self._profile_s(self._length - 1)
        self._last = 0  # the answer's last position, as expected
        self._closed = False
        self._lost = False
        self._events: list[tuple[float, int | None]] = []  # a commit has its token
        self._watched = _may_return(session.cloud, session.plan.mode, session.plan.adapts)

    def foreseen(self, ends_by_s: float) -> bool:
        """Compute the rest; return False, with no effect, if it cannot be foreseen."""
        before = self._engine.random_state
        now_s = self._loop.time()
        token_id = self._fed
        self._begin_pass(now_s)
        self._look(now_s)
        while not self._closed and not self._lost and now_s <= ends_by_s:
            began_s, now_s = now_s, now_s + self._engine.draw_s(self._num_fed, 1)
            self._show_until(now_s)
            if self._watched:
                self._look_until(now_s)
            token_id = self._end_pass(began_s, now_s, token_id)
        self._show_rest()
        if self._lost or not self._closed or self._events[-1][0] > ends_by_s:
            self._engine.random_state = before
            return False
        return True

    def carry_out(self) -> None:
        """Apply the commits and shows, each at its instant."""
        log, show, visit = self._session.log, self._session.reader.show, self._loop.visit
        now_s, position = self._loop.time(), log.length
        try:
            for at_s, token_id in self._events:
                visit(at_s)
                if token_id is None:
                    show()
                else:
                    log.commit_device(position, token_id)
                    position += 1
        finally:
            self._loop.visit(now_s)

    # The device

    def _profile_s(self, length: int) -> float:
        return self._estimate.profile.prefill_s(self._prompt_tokens + length)

    def _begin_pass(self, now_s: float) -> None:
        """Begin the pass of the last committed token, with its forecasts.

        The same as `forecast_ready_s` with one token and one pass to go.
        """
        estimate, length = self._estimate, self._length
        self._decode_s = decode_s = estimate.decode_s
        self._pass_ends_s = now_s + decode_s
        before_s, self._alone_s = self._alone_s, self._profile_s(length)
        profile_s = self._alone_s - before_s
        work_s = profile_s * estimate.factor(self._prompt_tokens + length - 1, 1)
        self._fed_s = now_s + max(work_s, decode_s)  # as `DeviceEstimate.work_s`
        self._speeds = speeds = device_outlook(estimate)
        self._probably_ends_s = now_s + speeds.decode_s
        probable_s = max(profile_s * speeds.prefill_factor, speeds.decode_s)
        self._probably_fed_s = now_s + probable_s
        session = self._session
        last = expected_last(length, session.handoff.expected_tokens, session.ask.max_tokens)
        self._last = max(last, length)

    def _end_pass(self, began_s: float, now_s: float, token_id: int) -> int:
        """Commit the pass's token, begin the next pass, and return the token."""
        ask = self._session.ask
        self._estimate.observe_pass(self._num_fed, 1, now_s - began_s)
        self._num_fed += 1
        self._state.extend((token_id,))
        made = self._state.next_token(self._length, ask.sampling)
        self._events.append((now_s, made))
        self._length += 1
        ends = made in self._engine.card.eos_token_ids
        self._closed = ends or self._length >= ask.max_tokens
        if not self._closed:
            self._begin_pass(now_s)
        # The reader and the session's judgement come after all this, in the same instant.
        self._look(now_s)
        return made

    def _slope_s(self, now_s: float) -> float:
        """The same as the session's: the steepest line to any expected arrival."""
        if self._closed:
            return 0.0
        length, last, shown = self._length, self._last, self._last_shown
        ready_s = self._fed_s if self._fed_s > now_s else now_s
        if now_s > self._pass_ends_s:  # a late pass is expected to be as late again
            ready_s += now_s - self._pass_ends_s
        first_s = (ready_s - self._shown_s) / (length - shown)
        end_s = ready_s + (last - length) * self._decode_s
        last_s = (end_s - self._shown_s) / (last - shown)
        steepest_s = last_s if last_s > first_s else first_s
        return steepest_s if steepest_s > 0.0 else 0.0

    def _gap_s(self, now_s: float) -> float:
        """The reader's gap: as `ReaderOutlook.arrivals`, with only the device's line."""
        shown, shown_s = self._last_shown, self._shown_s
        if self._closed:
            return self._controller.next_gap_s(shown, shown_s, ())
        ready_s = max(self._probably_fed_s, now_s)
        if now_s > self._probably_ends_s:
            ready_s += now_s - self._probably_ends_s
        speeds = self._speeds
        spread_s = speeds.spread_s(max(ready_s - now_s, 0.0), 1, decodes=True)
        line = decoded(self._length, self._last, ready_s, spread_s, speeds)
        return self._controller.next_gap_s(shown, shown_s, (line,), helped=self._helped)

    def _look(self, now_s: float) -> None:
        """Do what reader and session do after any event.

        The reader decides when to show the next token. The session decides whether it wants the
        cloud again; if that is in doubt, nothing is foreseen and the session runs normally.
        """
        self._looked_s = now_s
        waits = self._next_show_s is None and self._last_shown + 1 < self._length
        if self._last_shown < 0:
            self._next_show_s = now_s if waits else self._next_show_s
            return
        judges = self._watched and not self._closed
        if not waits and not judges:
            return
        if waits:
            wait_s = self._shown_s + self._gap_s(now_s) - now_s
            self._next_show_s = now_s + wait_s if wait_s > 0.0 else now_s
        if judges and self._slope_s(now_s) > self._session.plan.pace_s * LOST_TOLERANCE:
            self._lost = True

    def _look_until(self, end_s: float) -> None:
        """Do what a session does once a pace while nothing happens."""
        while self._watched and not self._lost:
            next_s = self._looked_s + self._session.plan.pace_s
            if next_s >= end_s:
                return
            self._look(next_s)

    # The reader

    def _show_until(self, end_s: float) -> None:
        while self._next_show_s is not None and self._next_show_s < end_s and not self._lost:
            self._look_until(self._next_show_s)
            self._show(self._next_show_s)

    def _show(self, now_s: float) -> None:
        self._events.append((now_s, None))
        self._last_shown += 1
        self._shown_s = now_s
        self._next_show_s = None
        self._look(now_s)

    def _show_rest(self) -> None:
        while self._closed and self._next_show_s is not None:
            self._show(self._next_show_s)


def _may_return(cloud: CloudLeg | None, mode: Mode, adapts: bool) -> bool:
    """Whether the session could use this cloud again."""
    usable = cloud is not None and cloud.state is not LegState.FAILED
    return usable and adapts and mode is not Mode.DEVICE_ONLY


def _virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "foresight needs a virtual clock"
    return loop
