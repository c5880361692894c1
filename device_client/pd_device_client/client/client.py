"""The device client: both sides, what is known of their speed, and a session per request."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from pd_core.errors import (
    CloudUnavailable,
    EngineError,
    FingerprintMismatch,
    InvalidRequest,
    PdError,
    TokenOutOfVocabulary,
    TransportError,
)
from pd_core.generation import Fingerprints, ServerInfo
from pd_device_client.client.breaker import BreakerState, CircuitBreaker
from pd_device_client.client.handshake import Handshake, shake_hands
from pd_device_client.client.measure import measure_engine
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.contract.text_source import TextSource
from pd_device_client.planning.answer_lengths import AnswerLengths
from pd_device_client.planning.context_room import cloud_problem, context_problem
from pd_device_client.planning.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.plan_notes import plan_notes
from pd_device_client.planning.planner import Plan, fixed_plan, plan_request
from pd_device_client.planning.profiles import SpeedProfile
from pd_device_client.planning.queued_device import QueuedDevice
from pd_device_client.session.engine_turns import EngineTurns
from pd_device_client.session.session import Session
from pd_device_client.session.sides import CloudTimeouts, Sides

__all__ = ["DeviceClient"]

logger = logging.getLogger(__name__)

_CARD_FRESH_S = 5.0
_CARD_WAIT_S = 1.0  # of somebody who asks how the cloud is
_CARD_CALLS = 3  # the smallest answer time of these is the RTT
_PROBE_EVERY_S = 2.0  # of a cloud that is not in use


class DeviceClient:
    """Carries requests with a cloud, a local engine, or both.

    Call `start` once before the first session, and `close` at the end.

    Args:
        cloud: the way to the cloud, or None.
        engine: the local engine, or None.
        pace_s: the gap between shown tokens that is promised to the reader; 0 shows each as soon
            as it is there, for a client of one side alone.
        ttft_s: the first token's latest instant; None means as early as possible.
        device_profile: the device's speeds; measured at start when None.
        timeouts: of the cloud's streams.
        local_seqs: answers that the local engine works on at a time; others wait for their turn.
        breaker: leaves a cloud alone that fails again and again.
        text: makes the detokeniser of an answer with such stop strings; None: no text is made.

    Attributes:
        info: the cloud's card, None before start or when it cannot be reached.
        cloud_error: why the cloud cannot be reached, or None.
        handshake: how this side and the cloud match, as far as is known.
        turns: at the local engine.
        promise: what readers are promised where a request says nothing.
    """

    def __init__(
        self,
        *,
        cloud: CloudLink | None,
        engine: LocalEngine | None,
        pace_s: float,
        ttft_s: float | None = None,
        device_profile: SpeedProfile | None = None,
        timeouts: CloudTimeouts | None = None,
        local_seqs: int = 1,
        breaker: CircuitBreaker | None = None,
        text: Callable[[Sequence[str]], TextSource] | None = None,
    ) -> None:
        self._link = cloud
        self._engine = engine
        self._text = text
        self.promise = Promise(pace_s, ttft_s)
        self._cloud_estimate = CloudEstimate()
        # Without an engine the device's estimate is never asked.
        unused = SpeedProfile("none", "there is no local engine", 0.0, 0.0)
        self._chunk_tokens = engine.card.chunk_tokens if engine is not None else None
        self._device_estimate = DeviceEstimate(device_profile or unused, self._chunk_tokens)
        self._measure = device_profile is None
        self._timeouts = timeouts or CloudTimeouts()
        self._breaker = breaker or CircuitBreaker()
        self._recovery: asyncio.Task[None] | None = None
        self.turns = EngineTurns(local_seqs)
        self._lengths = AnswerLengths()
        self.handshake = Handshake("", "", "identical")
        self._met_s = -math.inf  # when the cloud's card was last asked for
        self._refresh: asyncio.Task[None] | None = None
        self.info: ServerInfo | None = None
        self.cloud_error: PdError | None = None

    @property
    def device_profile(self) -> SpeedProfile:
        """The speeds the device was measured, or given, at start."""
        return self._device_estimate.profile

    @property
    def engine_name(self) -> str | None:
        """The local engine's name, which says so where it is throttled; None without one."""
        return None if self._engine is None else self._engine.card.name

    async def start(self) -> None:
        """Ask for the cloud's card and measure the device.

        An unreachable cloud is no error here: the device goes on alone, and says so.

        Raises:
            EngineError: the local engine failed.
        """
        if self._engine is not None and self._measure:
            profile = await measure_engine(self._engine)
            self._device_estimate = DeviceEstimate(profile, self._chunk_tokens)
        await self.meet_cloud()

    async def meet_cloud(self) -> None:
        """Ask for the cloud's card (again): its load, the RTT, its fingerprints."""
        link = self._link
        if link is None:
            return
        loop = asyncio.get_running_loop()
        self._met_s = loop.time()
        answer_s = []
        try:
            for _ in range(_CARD_CALLS):
                asked_s = loop.time()
                info = await link.info()
                answer_s.append(loop.time() - asked_s)
        except PdError as error:
            if link is not self._link:
                return  # another was chosen meanwhile
            logger.warning("the cloud cannot be used: %s", error)
            self.info, self.cloud_error = None, error
            self._breaker.failed(loop.time())
            self._recover()
            return
        if link is not self._link:
            return
        self._breaker.answered()
        self.info, self.cloud_error = info, None
        self._cloud_estimate.rtt_s = min(answer_s)
        self._cloud_estimate.load = info.load
        if self._engine is not None:
            self.handshake = shake_hands(self._engine.card, info)

    def use_cloud(self, cloud: CloudLink | None) -> None:
        """Take another cloud, or none, for sessions from now on; `meet_cloud` is yet to be called.

        Those that run go on with theirs. Its link is theirs alone then, and closes with the last.
        """
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        self._link = cloud
        self._cloud_estimate, self._breaker = CloudEstimate(), CircuitBreaker()
        self.handshake = Handshake("", "", "identical")
        self.info, self.cloud_error = None, CloudUnavailable("the cloud has not answered yet")

    def session(self, ask: Ask) -> Session:
        """Plan an answer and return its session.

        Beside it this may begin to ask for the cloud's card, where that is old; this answer is
        planned with the one at hand.

        Raises:
            RequestError: no side can take the request; the message says why.
            PdError: the mode needs the cloud, there is no local engine, and it is unreachable.
        """
        if ask.mode is not Mode.DEVICE_ONLY:
            self._refresh_card()
        self._check_tokens(ask)
        link, engine, notes = self._usable(ask)
        expected = self._lengths.expected(ask.max_tokens)
        plan = self._plan(ask, expected, link, engine)
        session = Session(
            ask,
            plan,
            self._sides(link, engine),
            expected_tokens=expected,
            text=None if self._text is None else self._text(ask.stop_strings),
            notes=[*notes, *plan_notes(plan, ask.mode)],
            on_end=self._learn,
        )
        logger.debug("request %s: %s", ask.request_id, plan)
        return session

    def room_tokens(self, num_prompt: int, mode: Mode) -> int:
        """The highest token limit with which every side of the mode takes such a prompt.

        A side that has no room for the prompt itself is left out; 0 or less when all are.
        """
        rooms = []
        if self._engine is not None and mode is not Mode.CLOUD_ONLY:
            rooms.append(self._engine.card.max_context_tokens - num_prompt)
        if self.info is not None and mode is not Mode.DEVICE_ONLY:
            limits = self.info.limits
            rooms.append(min(limits.max_context_tokens - num_prompt, limits.max_output_tokens))
        return min((room for room in rooms if room > 0), default=max(rooms, default=0))

    def _plan(
        self, ask: Ask, expected_tokens: int, link: CloudLink | None, engine: LocalEngine | None
    ) -> Plan:
        num_prompt, promise = len(ask.prompt_token_ids), ask.promise or self.promise
        device = None
        if engine is not None:
            cached = engine.cached_tokens(ask.prompt_token_ids)
            device = QueuedDevice(self._device_estimate, self.turns.forecast_s(), cached)
        cloud = self._cloud_estimate.forecast(num_prompt) if link is not None else None
        wanted = ask.cloud_tokens if ask.mode is Mode.PD_DEVICE else None
        if wanted is not None and device is not None and cloud is not None:
            return fixed_plan(
                wanted, num_prompt, ask.max_tokens, promise, device=device, cloud=cloud
            )
        return plan_request(
            num_prompt,
            expected_tokens,
            ask.max_tokens,
            promise,
            device=device,
            cloud=cloud,
            mode=ask.mode,
        )

    async def close(self) -> None:
        """Close both sides."""
        for task in (self._refresh, self._recovery):
            if task is not None:
                task.cancel()
        if self._link is not None:
            await self._link.close()
        if self._engine is not None:
            await self._engine.close()

    async def renew_card(self) -> None:
        """Ask for the cloud's card again where it is old; wait a moment for the answer."""
        if not self.cloud_left_alone:  # else it is asked now and then anyway
            self._refresh_card()
        if self._refresh is not None:
            await asyncio.wait({self._refresh}, timeout=_CARD_WAIT_S)

    def _refresh_card(self) -> None:
        """Renew an old card beside the session: this one plans with the old, the next with the new.

        Otherwise a cloud that was busy, or down, at start would never be asked again.
        """
        if self._link is None or (self._refresh is not None and not self._refresh.done()):
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._met_s > _CARD_FRESH_S:
            self._refresh = loop.create_task(self.meet_cloud())

    @property
    def cloud_left_alone(self) -> bool:
        """Whether the cloud failed so often that no answer is to wait for it now."""
        now_s = asyncio.get_running_loop().time()
        return self._breaker.state(now_s) is not BreakerState.CLOSED

    def _recover(self) -> None:
        """Ask for the cloud's card now and then until it can be used again."""
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while self.info is None or self.cloud_left_alone:
            await asyncio.sleep(max(self._breaker.probe_in_s(loop.time()), _PROBE_EVERY_S))
            await self.meet_cloud()
        logger.info("the cloud can be used again")

    def _usable(self, ask: Ask) -> tuple[CloudLink | None, LocalEngine | None, list[str]]:
        """Which sides can take the request in this mode, and notes on those that cannot."""
        link, engine, notes = self._link, self._engine, list[str]()
        if ask.mode is Mode.DEVICE_ONLY:
            if engine is None:
                raise InvalidRequest("device-only needs a local engine, and there is none")
            link = None
        if link is not None and self.info is None:
            notes.append(
                f"the device goes on alone: {self.cloud_error or 'start() was not called'}"
            )
            link = None
        elif link is not None and engine is not None and self.cloud_left_alone:
            notes.append("the device goes on alone: the cloud failed several times in a row")
            link = None
        if link is not None and engine is not None and self.handshake.mismatch:
            notes.append(self.handshake.mismatch)
            if ask.mode is not Mode.CLOUD_ONLY:
                link = None
            elif self.handshake.other_text:
                raise FingerprintMismatch(self.handshake.mismatch)
            else:
                engine = None
        problems = list[PdError]()
        limits = self.info.limits if link is not None and self.info is not None else None
        if limits is not None and (problem := cloud_problem(limits, ask)) is not None:
            problems.append(problem)
            link = None
        if engine is not None and (problem := _device_problem(engine, ask)) is not None:
            problems.append(problem)
            engine = None
        if link is None and engine is None:
            if problems:
                raise problems[0]
            if self.cloud_error is not None:
                raise self.cloud_error
        notes += [str(problem) for problem in problems]
        return link, engine, notes

    def _check_tokens(self, ask: Ask) -> None:
        sizes = [self.info.limits.vocab_size] if self.info is not None else []
        if self._engine is not None:
            sizes.append(self._engine.card.vocab_size)
        worst, least = max(ask.prompt_token_ids), min(ask.prompt_token_ids)
        if least < 0 or (sizes and worst >= min(sizes)):
            wrong = least if least < 0 else worst
            raise TokenOutOfVocabulary(
                f"token id {wrong} is not in the vocabulary of {min(sizes, default=0)} ids"
            )

    def _sides(self, link: CloudLink | None, engine: LocalEngine | None) -> Sides:
        if engine is not None:
            card = engine.card
            eos_token_ids, fingerprints = card.eos_token_ids, card.fingerprints
        else:
            assert self.info is not None
            eos_token_ids, fingerprints = self.info.eos_token_ids, Fingerprints()
        if self.info is not None and self.info.sampler != "model":
            # An emulation has no weights of its own to compare.
            fingerprints = replace(fingerprints, weights="")
        return Sides(
            link=link,
            engine=engine,
            cloud_estimate=self._cloud_estimate,
            device_estimate=self._device_estimate,
            fingerprints=fingerprints,
            eos_token_ids=eos_token_ids,
            exactness=self.handshake.exactness,
            timeouts=self._timeouts,
            turns=self.turns,
        )

    def _learn(self, outcome: Outcome) -> None:
        if outcome.finish_reason in {"stop", "length"}:
            self._lengths.add(len(outcome.shown))
        # That it is busy, or that the request is wrong, is no fault of the cloud's.
        if isinstance(outcome.cloud_error, TransportError | EngineError):
            self._breaker.failed(asyncio.get_running_loop().time())
            if self.cloud_left_alone:
                self._recover()
        elif outcome.cloud_error is None and outcome.cloud_tokens_generated:
            self._breaker.carried()


def _device_problem(engine: LocalEngine, ask: Ask) -> PdError | None:
    return context_problem("the local model", engine.card.max_context_tokens, ask)
