"""A simulated cloud and the links to it: the server's admission and validation, but no sockets.

A link does the same as `ShapedCloudLink` around a real link, with one timer a message instead of a
task: the same delays from the same random numbers (a test compares the two).
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Protocol

from pd_bench.emulation.shaped_link import Lane, tokens_in
from pd_bench.emulation.virtual_loop import VirtualLoop
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.cloud.engine import SimulatedEngine
from pd_core.errors import PdError
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Finished,
    Load,
    RefinedPrompt,
    ServerInfo,
    Start,
    Stop,
    TokenLogprobs,
    Tokens,
)
from pd_device_client.planning.speeds.profiles import LinkProfile
from pd_server.gate.admission import Admission, Ticket
from pd_server.gate.validation import RequestValidator

__all__ = ["EOS_TOKEN_ID", "VOCAB_SIZE", "Reader", "SimulatedCloud", "SimulatedLink"]

VOCAB_SIZE = 32_000
EOS_TOKEN_ID = 2

_BATCH_S = 2.0  # below all timeouts of a leg for silence, except the one after Stop


class SimulatedCloud:
    """One server: its engine, its bounds, its card.

    Args:
        profile: its speeds and bounds.
        seed: seed of its spread.
    """

    def __init__(self, profile: CloudProfile, seed: int = 0) -> None:
        self.profile = profile
        self._card = profile.info(VOCAB_SIZE, (EOS_TOKEN_ID,))
        self.engine = SimulatedEngine(profile, VOCAB_SIZE, EOS_TOKEN_ID, seed)
        limits, loop = self._card.limits, asyncio.get_running_loop()
        self.validator = RequestValidator(self._card)
        # The server's own default: as many tokens as slots and queue could hold.
        max_requests = limits.max_num_seqs + limits.max_num_waiting
        most_tokens = max_requests * self._card.model.max_context_tokens
        self.admission = Admission(
            limits.max_num_seqs, limits.max_num_waiting, most_tokens, clock=loop.time
        )
        self._request_ids = itertools.count()

    def info(self) -> ServerInfo:
        """Return the card with the present load."""
        return replace(self._card, load=self.load())

    def load(self) -> Load:
        """Return its present load and its totals."""
        return self.engine.load()

    def next_request_id(self) -> int:
        """Return a new id for the engine."""
        return next(self._request_ids)


class Reader(Protocol):
    """Shows the tokens of answers that arrive in batches."""

    def show_until(self, at_s: float) -> None:
        """Show all tokens due before `at_s`; the clock's time afterwards is undefined."""
        ...

    def look(self, at_s: float) -> None:
        """React to input at `at_s`, to which the clock is set."""
        ...


class SimulatedLink:
    """A device's link to the cloud.

    Args:
        cloud: the cloud.
        profile: RTT, jitter, bandwidth, loss.
        seed: seed of jitter and loss.

    Attributes:
        reader: gets the answers of streams opened from now on in batches; None: as they arrive.
    """

    def __init__(self, cloud: SimulatedCloud, profile: LinkProfile, seed: int = 0) -> None:
        self._cloud = cloud
        self._profile = profile
        self._random = random.Random(seed)
        self.reader: Reader | None = None

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card; it takes a round trip."""
        await asyncio.sleep(self._profile.rtt_s)
        return self._cloud.info()

    async def open(self, start: Start) -> "_SimulatedStream":
        """Open a stream; `start` travels before the cloud sees it."""
        up, down = Lane(self._profile, self._random), Lane(self._profile, self._random)
        loop = asyncio.get_running_loop()
        at_s = up.arrival_s(loop.time(), tokens_in(start))
        await asyncio.sleep(max(at_s - loop.time(), 0.0))
        if self.reader is not None:
            return _BatchedStream(self._cloud, start, up, down, self.reader)
        return _SimulatedStream(self._cloud, start, up, down)

    async def close(self) -> None:
        """Do nothing: it holds nothing."""


class _SimulatedStream:
    """Both ends of one stream; see `Receiver` and `CloudStream`."""

    def __init__(self, cloud: SimulatedCloud, start: Start, up: Lane, down: Lane) -> None:
        self._loop = asyncio.get_running_loop()
        self._cloud = cloud
        self._start = start
        self._up = up
        self._down = down
        self._request_id = cloud.next_request_id()
        self._ticket: Ticket | None = None
        self._token_limit = start.token_limit
        self._ended = False  # the cloud has sent its last message
        self._inbox: deque[CloudEvent | PdError] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._accept()

    # The cloud's end

    def _accept(self) -> None:
        cloud, start = self._cloud, self._start
        try:
            cloud.validator.check_start(start)
            load = cloud.load()
            prefix = len(start.prompt_token_ids) + len(start.committed_token_ids)
            room = max(0, start.token_limit - start.first_position)
            self._ticket = cloud.admission.admit(prefix + room)
        except PdError as error:
            self._ended = True
            self._send_down(error, 0)
            return
        self._send_down(Admitted(load), 0)
        cloud.engine.submit(self._request_id, start, self)

    def refined(self, refined: RefinedPrompt) -> None:
        if not self._ended:
            self._send_down(refined, 0)

    def tokens(
        self,
        first_position: int,
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprobs, ...],
    ) -> None:
        if not self._ended:
            self._send_down(Tokens(first_position, token_ids, logprobs), len(token_ids))

    def end(self, end: Finished | PdError) -> None:
        assert self._ticket is not None, "a request that was refused has ended"
        self._cloud.admission.release(self._ticket)
        if not self._ended:
            self._ended = True
            self._send_down(end, 0)

    def _receive(self, message: Extend | Stop) -> None:
        """Apply a message from the client."""
        if self._ended:
            return
        if isinstance(message, Stop):
            self._cloud.engine.stop(self._request_id)
            return
        try:
            self._cloud.validator.check_extend(self._start, message)
        except PdError as error:
            self._break_off()
            self._send_down(error, 0)
            return
        assert self._ticket is not None, "a running request holds a ticket"
        more = message.token_limit - self._token_limit
        if granted := self._cloud.admission.extend(self._ticket, more):
            self._token_limit += granted
            self._cloud.engine.extend(self._request_id, self._token_limit)

    def _break_off(self) -> None:
        self._ended = True
        assert self._ticket is not None, "a running request holds a ticket"
        self._cloud.admission.release(self._ticket)
        self._cloud.engine.abort(self._request_id)

    def _send_down(self, event: CloudEvent | PdError, num_tokens: int) -> None:
        leaves_s = self._loop.time() + self._cloud.profile.message_s
        self._loop.call_at(self._down.arrival_s(leaves_s, num_tokens), self._arrive, event)

    # The device's end

    def _arrive(self, event: CloudEvent | PdError) -> None:
        self._inbox.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        while True:
            while not self._inbox:
                self._reader = self._loop.create_future()
                await self._reader
            event = self._inbox.popleft()
            if isinstance(event, PdError):
                raise event
            yield event
            if isinstance(event, Finished):
                return

    async def send(self, message: Extend | Stop) -> None:
        at_s = self._up.arrival_s(self._loop.time(), 0)
        await asyncio.sleep(max(at_s - self._loop.time(), 0.0))
        self._receive(message)

    def cancel(self) -> None:
        if not self._ended:
            self._break_off()


class _BatchedStream(_SimulatedStream):
    """Collects tokens for a while and hands them over together, each at its own instant."""

    def __init__(
        self, cloud: SimulatedCloud, start: Start, up: Lane, down: Lane, reader: Reader
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "batches need a virtual clock"
        self._visit = loop.visit
        self._shown_by = reader
        self._kept: deque[tuple[float, CloudEvent | PdError]] = deque()
        self._hands_over = False  # a batch is on its way
        self._begun = False
        super().__init__(cloud, start, up, down)

    def _send_down(self, event: CloudEvent | PdError, num_tokens: int) -> None:
        leaves_s = self._loop.time() + self._cloud.profile.message_s
        at_s = self._down.arrival_s(leaves_s, num_tokens)
        self._kept.append((at_s, event))
        # The leg detects silence by the messages it gets, so none may be held back for long.
        waits = self._begun and isinstance(event, Tokens)
        self._begun = self._begun or isinstance(event, Tokens)
        if not waits:
            self._loop.call_at(at_s, self._hand_over)
        elif not self._hands_over:
            self._hands_over = True
            self._loop.call_at(at_s + _BATCH_S, self._hand_over)

    def _hand_over(self) -> None:
        self._hands_over = False
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        while True:
            now_s, seen_s = self._loop.time(), None
            try:
                while self._kept and self._kept[0][0] <= now_s:
                    at_s, event = self._kept.popleft()
                    if seen_s is not None and at_s > seen_s:
                        self._shown_by.look(seen_s)  # after all of an instant, as a reader does
                    self._shown_by.show_until(at_s)
                    self._visit(at_s)
                    seen_s = at_s
                    if isinstance(event, PdError):
                        raise event
                    yield event
            finally:
                if seen_s is not None:
                    self._shown_by.look(seen_s)
                self._visit(now_s)
            self._reader = self._loop.create_future()
            await self._reader
