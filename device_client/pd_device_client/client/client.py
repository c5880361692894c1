"""The device client: both sides, their speed estimates, and a session for each answer."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pd_core.errors import CloudUnavailable, InvalidRequest
from pd_core.generation import Fingerprints, FinishReason, TokenLogprobs
from pd_core.grammar.grammars import Grammars
from pd_core.process.tracing import Tracing
from pd_core.refinement import MOST_PROTECTED, Ranges
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.client.answer_trace import AnswerTrace
from pd_device_client.client.breaker import CircuitBreaker
from pd_device_client.client.cloud_watch import CloudWatch
from pd_device_client.client.form_check import FormCheckedLink
from pd_device_client.client.measure import measure_engine
from pd_device_client.client.reasons import privacy_notes, privacy_of, reason_at_start
from pd_device_client.client.request_plan import plan_for
from pd_device_client.client.side_choice import (
    SideChoice,
    check_tokens,
    choose_sides,
    longest_context_tokens,
    room_tokens,
)
from pd_device_client.client.spending import SPENT_NOTE, Spending, capped
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudLink, LocalEngine, NeedsModel, PromptReader
from pd_device_client.contract.text_source import TextMaker, TextSource
from pd_device_client.planning.answer_lengths import AnswerLengths
from pd_device_client.planning.cloud_allowance import CloudCaps, DayAccount
from pd_device_client.planning.plan import Plan
from pd_device_client.planning.plan_notes import plan_notes
from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.engine_turns import EngineTurns
from pd_device_client.session.reading_pace import ReadingPace
from pd_device_client.session.session import Session
from pd_device_client.session.sides import CloudTimeouts, Sides

__all__ = ["DeviceClient"]

logger = logging.getLogger(__name__)


class DeviceClient:
    """Answers requests with a cloud, a local engine, or both.

    Call `start` once before the first session, and `close` at the end.

    Args:
        cloud: the cloud link, or None.
        engine: the local engine, or None.
        pace_s: the promised gap between shown tokens; 0 shows each as soon as it exists, for a
            client with one side only.
        ttft_s: the latest time for the first token; None means as early as possible.
        device_profile: the device's speeds; measured at start when None.
        timeouts: for the cloud's streams.
        local_seqs: answers that the local engine works on at the same time; others wait.
        breaker: makes what stops using a cloud that fails repeatedly.
        text: makes the detokeniser of an answer; None: no text.
        lengths: of past answers; None: there are none yet.
        promise: all that is promised by default; None: only pace_s and ttft_s.
        caps: on the cloud's tokens and cost; None: there are none.
        account: what was spent today; None without a cap of a day.
        tracing: makes spans of answers; None: none are made.
        protect: finds the positions of a prompt that are read in any case; None: there are none.
        grammars: compiles the forms of answers, so that a cloud's tokens are checked; None: they
            are not.
        tokenizer: of the local engine's model, for links that need it; None: they do without.
        judged_only: keep a request on this device whose words nobody has judged.

    Attributes:
        cloud: the watched cloud; its card is fetched at start and renewed when old.
        device_estimate: the device's speeds, corrected by observed passes.
        lengths: of past answers, by the length of their prompts.
        turns: the queue for the local engine.
        before_plan: called before each plan, so that what it changes in `device_estimate` counts.
        promise: the default for requests without one.
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
        breaker: Callable[[], CircuitBreaker] = CircuitBreaker,
        text: TextMaker | None = None,
        lengths: AnswerLengths | None = None,
        promise: Promise | None = None,
        caps: CloudCaps | None = None,
        account: DayAccount | None = None,
        tracing: Tracing | None = None,
        protect: Callable[[Sequence[int]], Ranges] | None = None,
        grammars: Grammars | None = None,
        tokenizer: Tokenizer | None = None,
        judged_only: bool = False,
    ) -> None:
        self._judged_only = judged_only
        self._spending = Spending(caps or CloudCaps(), account)
        self._tracing = tracing
        self._engine = engine
        self._card = None if engine is None else engine.card
        self._text = text
        self._protect = protect
        self._grammars = grammars
        self.promise = promise or Promise(pace_s, ttft_s)
        # Without an engine the device's estimate is never used.
        unused = SpeedProfile("none", "there is no local engine", 0.0, 0.0)
        chunk_tokens = None if engine is None else engine.chunk_tokens
        self.device_estimate = DeviceEstimate(device_profile or unused, chunk_tokens)
        self._measure = device_profile is None
        self._timeouts = timeouts or CloudTimeouts()
        self.lengths = lengths or AnswerLengths()
        self.turns = EngineTurns(local_seqs)
        self.before_plan: Callable[[], object] = _nothing
        self._tokenizer = tokenizer
        self._breaker = breaker
        self.cloud = CloudWatch(self._told(cloud), self._card, breaker())

    @property
    def device_profile(self) -> SpeedProfile:
        """The device's speeds, measured or given at start."""
        return self.device_estimate.profile

    @property
    def engine_name(self) -> str | None:
        """The local engine's name, including any throttling; None without one."""
        return None if self._engine is None else self._engine.card.name

    async def start(self) -> None:
        """Ask for the cloud's card and measure the device.

        An unreachable cloud is no error: the device continues alone and reports it.

        Raises:
            EngineError: the local engine failed.
        """
        if self._engine is not None and self._measure:
            self.device_estimate.profile = await measure_engine(self._engine)
        await self.cloud.meet()

    def use_cloud(self, link: CloudLink | None) -> None:
        """Use another cloud, or none, for new answers; call `cloud.meet` afterwards.

        Running answers keep the old link, which closes with the last of them.
        """
        self.cloud.stop()
        unmet = CloudUnavailable("the cloud has not answered yet")
        self.cloud = CloudWatch(self._told(link), self._card, self._breaker(), error=unmet)

    def _told(self, link: CloudLink | None) -> CloudLink | None:
        """Tell a link that needs it what runs here; return the link."""
        if self._card is not None and self._tokenizer is not None and isinstance(link, NeedsModel):
            link.use_model(self._card, self._tokenizer)
        return link

    def session(self, ask: Ask) -> Session:
        """Plan an answer and return its session.

        If the cloud's card is old, this starts to renew it in the background; the plan uses the
        present card.

        Raises:
            RequestError: no side can take the request; the message says why.
            ContradictoryPromises: the mode cannot keep the promise.
            PdError: the cloud is unreachable and there is no local engine.
        """
        self.before_plan()
        trace = None if self._tracing is None else AnswerTrace(self._tracing, ask)
        promise = ask.promise or self.promise
        promise.check_mode(ask.mode)
        privacy = privacy_of(ask, promise, self.promise, judged_only=self._judged_only)
        if privacy.local_only:
            if self._engine is None:
                raise InvalidRequest(f"{privacy.words}, and there is no local engine to answer it")
            promise = replace(promise, local_only=True)
            ask = replace(ask, mode=Mode.DEVICE_ONLY)
        cloud = self.cloud
        if ask.mode is not Mode.DEVICE_ONLY:
            cloud.refresh()
        check_tokens(ask, cloud, self._card)
        choice = choose_sides(ask, cloud, self._card)
        sides = self._sides(choice, promise, ask)
        num_prompt = len(ask.prompt_token_ids)
        expected = self.lengths.expected(num_prompt, ask.max_tokens)
        promise = capped(promise, ask, sides)
        if promise.max_cloud_tokens == 0 and ask.mode is Mode.CLOUD_ONLY:
            ask = replace(ask, mode=Mode.DEVICE_ONLY)
            choice = replace(choice, notes=(*choice.notes, SPENT_NOTE))
        plan = plan_for(ask, promise, expected, sides)
        both = sides.engine is not None and ask.mode is Mode.PD_DEVICE
        if both and plan.mode is Mode.CLOUD_ONLY:
            self.device_estimate.not_used()
        if trace is not None:
            trace.planned(plan)
        session = Session(
            ask,
            plan,
            sides,
            expected_tokens=expected,
            text=self._text_source(ask),
            protected=self._protected(ask, plan),
            notes=[
                *privacy_notes(privacy),
                *choice.notes,
                *plan_notes(plan, ask.mode, num_prompt),
                *_text_notes(sides, plan),
            ],
            reading=_reading(promise, plan),
            on_end=partial(self._learn, cloud, num_prompt, trace),
            trace=trace,
        )
        session.outcome.privacy = privacy
        session.outcome.cloud_reason = reason_at_start(choice, privacy, promise, plan)
        logger.debug("request %s: %s", ask.request_id, plan)
        return session

    async def prompt_logprobs(self, token_ids: Sequence[int], count: int) -> list[TokenLogprobs]:
        """Return how likely a prompt's tokens were, all but the first, by the local model.

        It is a pass of its own, which waits for its turn at the engine and is not kept.

        Raises:
            InvalidRequest: there is no local engine that can say it.
            EngineError: it failed.
        """
        engine = self._engine
        if not isinstance(engine, PromptReader):
            here = "no engine" if engine is None else engine.card.name
            raise InvalidRequest(
                "what was likely in a prompt is told only by a local torch engine at its own "
                f"speed, and here is {here}; leave out prompt_logprobs, and echo with logprobs"
            )
        turn = self.turns.join()
        try:
            await turn.begin()
            return await engine.prompt_logprobs(token_ids, count)
        finally:
            turn.end()

    def _text_source(self, ask: Ask) -> TextSource | None:
        if self._text is None:
            return None
        return self._text(
            ask.stop_strings,
            behind=ask.prompt_token_ids if ask.continues_prompt else (),
            skip_special_tokens=ask.skip_special_tokens,
        )

    def room_tokens(self, num_prompt: int, mode: Mode) -> int:
        """The highest token limit that every side of the mode accepts for such a prompt."""
        return room_tokens(num_prompt, mode, self.cloud, self._card)

    @property
    def max_context_tokens(self) -> int | None:
        """The longest context of any side, for prompt and answer together; None: unknown."""
        return longest_context_tokens(self.cloud, self._card)

    def _sides(self, choice: SideChoice, promise: Promise, ask: Ask) -> Sides:
        """Return what a session with these sides works with; without any, planning fails."""
        info, card = self.cloud.info, self._card
        if choice.device and card is not None:
            eos_token_ids, fingerprints = card.eos_token_ids, card.fingerprints
        else:
            eos_token_ids = () if info is None else info.model.eos_token_ids
            fingerprints = Fingerprints()
        if info is not None and info.model.sampler != "model":
            # An emulation has no weights to compare.
            fingerprints = replace(fingerprints, weights="")
        link, constraint = self.cloud.link, ask.sampling.constraint
        if link is not None and constraint is not None and self._grammars is not None:
            link = FormCheckedLink(link, self._grammars, constraint)
        return Sides(
            link=link if choice.cloud else None,
            engine=self._engine if choice.device else None,
            cloud_estimate=self.cloud.estimate,
            device_estimate=self.device_estimate,
            fingerprints=fingerprints,
            eos_token_ids=eos_token_ids,
            exactness=self.cloud.handshake.exactness,
            timeouts=self._timeouts,
            turns=self.turns,
            allowance=self._spending.allowance(promise, ask.group),
        )

    def _protected(self, ask: Ask, plan: Plan) -> Ranges:
        """Return the positions that a refined prompt keeps in any case."""
        if plan.keep_ratio >= 1.0 or self._protect is None:
            return ()
        found = self._protect(ask.prompt_token_ids)
        # A chat of so many turns has few words in each: all of it is kept.
        whole = ((0, len(ask.prompt_token_ids)),)
        return found if len(found) <= MOST_PROTECTED else whole

    async def close(self) -> None:
        """Close both sides."""
        self.cloud.stop()
        if self.cloud.link is not None:
            await self.cloud.link.close()
        if self._engine is not None:
            await self._engine.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    def _learn(
        self, cloud: CloudWatch, num_prompt: int, trace: AnswerTrace | None, outcome: Outcome
    ) -> None:
        if trace is not None:
            trace.ended(outcome)
        if outcome.finish_reason in {FinishReason.STOP, FinishReason.LENGTH}:
            self.lengths.add(num_prompt, len(outcome.shown))
        cloud.judge(outcome)


def _reading(promise: Promise, plan: Plan) -> ReadingPace | None:
    """Return the reader's own speed, within what is planned and promised."""
    if promise.reading_wpm is None:
        return None
    stretched_s = plan.pace_s if plan.pace_s > promise.pace_s else 0.0
    longest_s = math.inf if promise.largest_gap_s is None else promise.largest_gap_s
    return ReadingPace(promise.reading_wpm, stretched_s, longest_s)


def _text_notes(sides: Sides, plan: Plan) -> list[str]:
    """Return a note where an answer may be handed over as text."""
    both = sides.link is not None and sides.engine is not None
    if not both or sides.exactness != "text" or plan.mode is not Mode.PD_DEVICE:
        return []
    return ["the cloud gives text and no token ids, so this device continues its text"]


def _nothing() -> None:
    """Do nothing before a plan."""
