"""The cloud's part of one request: at most one stream at a time, reopened as often as needed.

The session asks for tokens up to a limit (`carry_to`) or for none (`stop`); the leg opens, extends,
stops and reopens streams accordingly. Each new Start carries the committed prefix, so a stream
needs no other state.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from enum import Enum, auto

from pd_core.errors import (
    CloudBudgetSpent,
    CloudTimeout,
    CloudUnavailable,
    PdError,
    ProtocolError,
    TransportError,
)
from pd_core.generation import Admitted, Extend, Finished, RefinedPrompt, Start, Stop, Tokens
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import CloudArrived, CloudAsked, CloudFailed, Tell, silent
from pd_device_client.contract.ports import CloudStream
from pd_device_client.session.clock import loop_time
from pd_device_client.session.refinement import Refinement
from pd_device_client.session.retries import retry_in_s
from pd_device_client.session.sides import Sides
from pd_device_client.session.silence import Silence
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal

__all__ = ["CloudLeg", "LegState"]

logger = logging.getLogger(__name__)


class LegState(Enum):
    """The state of a leg."""

    IDLE = auto()  # no stream; a new one may be opened
    OPENING = auto()  # Start was sent, no token has arrived
    STREAMING = auto()  # tokens arrive
    FAILED = auto()  # a retry would not help


# A token is late when it takes this many times its forecast, and at least this long: less may be a
# network hiccup or a busy machine.
_LATE_FACTOR = 3.0
_LATE_LEAST_S = 0.5


class CloudLeg:
    """Streams of one request.

    Args:
        ask: what to answer.
        sides: has the link (never None here) and the estimate of the cloud's speed.
        log: receives the tokens.
        changed: notified on every change.
        useful_for_s: sent with the first Start.
        refinement: asks for a refined prompt and takes it; None: none is wanted.
        tell: receives events.

    Attributes:
        state: see LegState.
        limit: the cloud is to make the positions below this one.
        streams: opened so far, each with the whole prompt.
        error: the last error; kept for the outcome.
        generated: tokens the cloud is known to have made for this request.
        first_token_s: instant of the first token's arrival; None before it.
        cached_tokens: the most tokens of a stream's prefix that the cloud had in its cache.
    """

    def __init__(
        self,
        ask: Ask,
        sides: Sides,
        log: TokenLog,
        changed: Signal,
        *,
        useful_for_s: float | None = None,
        refinement: Refinement | None = None,
        tell: Tell = silent,
    ) -> None:
        assert sides.link is not None, "a cloud leg needs a link"
        self._ask = ask
        self._link = sides.link
        self._fingerprints = sides.fingerprints
        self._estimate = sides.cloud_estimate
        self._timeouts = sides.timeouts
        self._log = log
        self._changed = changed
        self._useful_for_s = useful_for_s
        self._allowance = sides.allowance
        self._most: int | None = None  # the caps allow no position from this one on
        self._refinement = refinement
        self._tell = tell
        self._time: Callable[[], float] = loop_time
        self._stopping = False
        self._wishes = Signal()  # what the cloud should do may have changed
        self.streams = 0
        self._sent_tokens = 0  # with the present stream's Start
        self._paid = 0  # tokens of the present stream, by the caps
        self._failures = 0
        self._retry_at_s = 0.0
        self._opened_s = 0.0
        self._last_arrival_s = 0.0
        self.state = LegState.IDLE
        self.limit = 0
        self.error: PdError | None = None
        self.generated = 0
        self.first_token_s: float | None = None
        self.cached_tokens = 0

    # What the session asks

    def carry_to(self, limit: int) -> None:
        """Ask the cloud for all positions below `limit`; a limit is never lowered."""
        self._stopping = False
        if self._most is not None and limit > self._most:
            limit = self._most
            if not self.wanted and self.state is LegState.IDLE:
                self._spent()
        if limit > self.limit:
            self.limit = limit
            self._tell(CloudAsked(limit))
            self._changed.notify()
            self._wishes.notify()

    def stop(self) -> None:
        """Ask the cloud for nothing more."""
        if not self._stopping:
            self._stopping = True
            self.limit = min(self.limit, self._log.length)
            self._changed.notify()
            self._wishes.notify()

    def log_closed(self) -> None:
        """The answer is complete: stop a stream that still runs."""
        self._wishes.notify()

    @property
    def coming(self) -> bool:
        """Whether tokens that would be committed are on their way."""
        return (
            self.state in (LegState.OPENING, LegState.STREAMING)
            and not self._stopping
            and not self._log.diverged
            and self.limit > self._log.length
        )

    @property
    def ready(self) -> bool:
        """Whether a new stream could be opened now."""
        waiting = self._time() < self._retry_at_s
        return self.state is LegState.IDLE and not waiting

    @property
    def broken(self) -> bool:
        """Whether it failed, and no token has come since."""
        return self.state is LegState.FAILED or self._failures > 0

    @property
    def late(self) -> bool:
        """Whether the next token counts as late."""
        return self._time() >= self.late_at_s()

    def next_arrival_s(self) -> float:
        """Forecast the instant of the next token that can be committed."""
        since_s, wait_s = self._awaited()
        return max(self._time(), since_s + wait_s)

    @property
    def silent(self) -> bool:
        """Whether a stream has been silent for longer than lately between any two tokens."""
        longest_s = max(self._estimate.steps.largest, self._estimate.step_s)
        return self.state is LegState.STREAMING and self._time() > self._last_arrival_s + longest_s

    def probable_arrival_s(self, step_s: float) -> tuple[float, float]:
        """When the next token that can be committed comes if steps take `step_s`, and the spread.

        A silence that is longer than usual may last as long again. It makes the arrival less sure
        instead of later: most silences are a burst's, and over at any moment.
        """
        if self.state is not LegState.STREAMING:
            return self.next_arrival_s(), 0.0
        now_s = self._time()
        due_s = self._last_arrival_s + (1 + self._log.stream_behind) * step_s
        return max(now_s, due_s), max(now_s - due_s, 0.0) if self.silent else 0.0

    def late_at_s(self) -> float:
        """The instant from which the next token counts as late."""
        since_s, wait_s = self._awaited()
        return since_s + max(_LATE_FACTOR * wait_s, _LATE_LEAST_S)

    def _awaited(self) -> tuple[float, float]:
        """Since when the next token is awaited, and its expected duration."""
        if self.state is LegState.STREAMING:
            behind = self._log.stream_behind
            return self._last_arrival_s, (1 + behind) * self._estimate.step_s
        forecast = self._estimate.forecast(len(self._ask.prompt_token_ids))
        start_s = self._opened_s if self.state is LegState.OPENING else self._time()
        return start_s, forecast.first_token_s

    # The leg's own task

    async def run(self) -> None:
        """Open streams as long as they are wanted; return once the leg has failed."""
        self._time = asyncio.get_running_loop().time
        while self.state is not LegState.FAILED:
            wait_s = max(self._retry_at_s - self._time(), 0.0)
            if not self.wanted:
                await self._changed.wait()
            elif wait_s > 0:
                await self._changed.wait(wait_s)
            else:
                await self._stream()
                self._changed.notify()

    @property
    def wanted(self) -> bool:
        """Whether more tokens of the cloud are wanted."""
        log = self._log
        return not self._stopping and not log.closed and self.limit > log.length

    async def _stream(self) -> None:
        """Run one stream from Start to its end; errors become the leg's state."""
        self.state, self._opened_s = LegState.OPENING, self._time()
        stream = None
        writer = None
        try:
            # No await between these two: the log must not grow past the prefix in Start.
            start = self._start()
            if start is None:
                self._spent()
                return
            self._log.new_stream()
            async with asyncio.timeout(self._timeouts.admitted_s):
                stream = await self._link.open(start)
            writer = asyncio.ensure_future(self._write(stream, start.token_limit))
            await self._read(stream)
            self.state = LegState.IDLE
            if self.wanted and not self._log.stream_began:
                # An immediate retry would end the same way.
                self._fail(CloudUnavailable("the cloud finished without making a token"))
        except TimeoutError:
            self._fail(CloudTimeout("the cloud did not take the request in time"))
        except PdError as error:
            self._fail(error)
        except Exception as error:  # no fault of cloud or link may end the session
            logger.exception("request %s: the cloud's leg failed", self._ask.request_id)
            self._fail(TransportError(f"the cloud's stream failed: {type(error).__name__}"))
        finally:
            if writer is not None:
                writer.cancel()
            if stream is not None:
                stream.cancel()

    def _start(self) -> Start | None:
        """Return the next stream's first message; None if the caps allow no token."""
        ask, length = self._ask, self._log.length
        self._most = None
        granted = self._granted(self.limit - length, len(ask.prompt_token_ids) + length)
        if not granted:
            return None
        self._paid, self.limit = granted, length + granted
        self.streams += 1
        self._sent_tokens = len(ask.prompt_token_ids) + length
        first, refinement = self.streams == 1, self._refinement
        return Start(
            request_id=f"{ask.request_id}/{self.streams}",
            prompt_token_ids=ask.prompt_token_ids,
            committed_token_ids=tuple(self._log.token_ids),
            sampling=ask.sampling,
            token_limit=self.limit,
            fingerprints=self._fingerprints,
            cache_salt=ask.cache_salt,
            useful_for_s=self._useful_for_s if first else None,
            stop_token_ids=ask.stop_token_ids,
            keep_ratio=1.0 if refinement is None else refinement.keep_ratio,
            protected_ranges=() if refinement is None else refinement.protected_ranges,
            messages=ask.messages,
        )

    def _granted(self, tokens: int, prompt_tokens: int = 0) -> int:
        """Return how many of these tokens the caps allow, and remember where they end."""
        if self._allowance is None:
            return tokens
        granted = self._allowance.take(tokens, prompt_tokens)
        if granted < tokens:
            self._most = self.limit - tokens + granted
        return granted

    def _spent(self) -> None:
        """The caps leave the cloud nothing more of this answer."""
        made = f"after {self.generated} tokens " if self.generated else ""
        self.error = CloudBudgetSpent(
            f"{made}the caps on the cloud's tokens and cost allow no more for this answer; raise "
            "them, or ask again tomorrow if the day's are spent"
        )
        self.state = LegState.FAILED
        self._tell(CloudFailed(self.error, final=True))
        self._changed.notify()

    async def _read(self, stream: CloudStream) -> None:
        """Handle a stream's events until Finished."""
        received, timeouts = 0, self._timeouts
        wait_s = timeouts.finish_s if self._stopping else timeouts.admitted_s
        try:
            async with aclosing(stream.events()) as events, Silence(wait_s) as silence:
                async for event in events:
                    match event:
                        case Tokens():
                            first = received == 0
                            received += len(event.token_ids)
                            self.generated += len(event.token_ids)
                            self._take_in(event, first=first)
                            wait_s = timeouts.idle_s
                        case Admitted(load):
                            self._estimate.load = load
                            taken_s = self._time() - self._opened_s
                            self._estimate.observe_upload(self._sent_tokens, taken_s)
                            wait_s = timeouts.first_token_s
                        case Finished():
                            self.generated += max(event.tokens_generated - received, 0)
                            self.cached_tokens = max(self.cached_tokens, event.cached_tokens)
                            self._give_back(self._paid - max(event.tokens_generated, received))
                            return
                        case RefinedPrompt():
                            if self._refinement is not None:
                                self._refinement.take(event)
                    self._changed.notify()
                    wait_s = self._timeouts.finish_s if self._stopping else wait_s
                    silence.heard(self._time(), wait_s)
        except TimeoutError:
            raise CloudTimeout(f"the cloud sent nothing for {wait_s:g} s") from None
        raise CloudUnavailable("the cloud ended the stream without Finished")

    def _take_in(self, tokens: Tokens, *, first: bool) -> None:
        first_position, token_ids, logprobs = tokens
        if self._ask.sampling.logprobs is not None and not logprobs:
            raise ProtocolError("the cloud sent tokens without the logprobs that were asked for")
        now = self._time()
        if first:
            prompt_tokens = len(self._ask.prompt_token_ids)
            self._estimate.observe_first(prompt_tokens, now - self._opened_s)
        else:
            self._estimate.observe_step((now - self._last_arrival_s) / len(token_ids))
        if self.first_token_s is None:
            self.first_token_s = now
        self._last_arrival_s = now
        self._failures = 0
        self.state = LegState.STREAMING
        if self._tell is not silent:
            self._tell(CloudArrived(first_position, len(token_ids)))
        self._log.receive(first_position, token_ids, logprobs)
        if self._log.closed or self._log.diverged:
            self._wishes.notify()

    async def _write(self, stream: CloudStream, sent_limit: int) -> None:
        """Send Extend and Stop as the session's wishes change."""
        while True:
            if self._stopping or self._log.closed or self._log.diverged:
                # This stream is no longer needed; `carry_to` later opens a new one.
                await stream.send(Stop())
                await asyncio.sleep(self._timeouts.finish_s)
                stream.cancel()  # Finished did not come
                return
            if self.limit > sent_limit:
                granted = self._granted(self.limit - sent_limit)
                self._paid += granted
                self.limit = sent_limit = sent_limit + granted
                if granted:
                    await stream.send(Extend(sent_limit))
            await self._wishes.wait()

    def _give_back(self, tokens: int) -> None:
        if self._allowance is not None and tokens > 0:
            self._allowance.give_back(tokens)

    def _fail(self, error: PdError) -> None:
        if self._stopping or self._log.closed:  # the stream was no longer needed
            self.state = LegState.IDLE
            return
        logger.info("request %s: the cloud's stream ended: %s", self._ask.request_id, error)
        self.error = error
        self.state = LegState.IDLE
        now = self._time()
        wait_s = retry_in_s(error, self._failures, self._ask.request_id)
        if wait_s is None:
            self.state = LegState.FAILED
            self._tell(CloudFailed(error, final=True))
            return
        self._retry_at_s = now + wait_s
        self._failures += 1
        self._tell(CloudFailed(error, final=False))
