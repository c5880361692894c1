"""An emulated cloud engine: the real scheduling policy, with steps that only wait.

Slots, queue, KV blocks, prefix cache and step budget are the server's own code; only the forward
pass is replaced, by the duration in the profile, and the sampler by the rolling hash. Commands
that arrive during a step take effect after it, as on a real engine's thread.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_core.errors import PdError
from pd_core.generation import Finished, Load, RefinedPrompt, Start, TokenLogprobs
from pd_core.refinement import chosen_ranges
from pd_server.engine.contract import EngineEvent, RequestFailed, RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.hashed_tokens import HashedTokens
from pd_server.scheduling.prefix_cache import PrefixCache
from pd_server.scheduling.request_book import RequestBook
from pd_server.scheduling.schedule import Chunk, Placement
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter

__all__ = ["Receiver", "SimulatedEngine"]


class Receiver(Protocol):
    """Receives a request's progress."""

    def refined(self, refined: RefinedPrompt) -> None:
        """The refined prompt, if one was asked for."""
        ...

    def tokens(
        self,
        first_position: int,
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprobs, ...],
    ) -> None:
        """New tokens, in order of position; with one logprobs each where the request asks."""
        ...

    def end(self, end: Finished | PdError) -> None:
        """The request has ended; nothing more follows."""
        ...


class _CountedKV:
    """KV blocks without content: a simulation only needs to count them.

    See `KVMemory` for the contract.
    """

    def __init__(self, num_blocks: int, block_bytes: int) -> None:
        self.prefixes: PrefixCache[int] = PrefixCache()
        self.budget = BlockBudget(num_blocks, lambda: self.prefixes.evict() is not None)
        self.byte_s = 0.0
        self.bytes_peak = 0
        self._block_bytes = block_bytes

    def begin_step(self) -> None:
        """Count the bytes held at the beginning of a step."""
        self.bytes_peak = max(self.bytes_peak, self.budget.num_held * self._block_bytes)

    def end_step(self, step_s: float) -> None:
        """Count the bytes held during a step."""
        self.byte_s += self.budget.num_held * self._block_bytes * step_s

    def hold(self, placement: Placement[int], now_s: float) -> None:
        """Do nothing: the budget already counts the blocks."""

    def block(self, request: LiveRequest, index: int) -> int:
        """Return a stand-in for a block."""
        return index

    def drop(self, request: LiveRequest, now_s: float) -> None:
        """Do nothing."""


class SimulatedEngine:
    """Steps on the running loop's clock as long as there is work.

    Args:
        profile: the cloud.
        vocab_size: token ids are below this.
        eos_token_id: ends an answer.
        seed: seed of the steps' spread.
    """

    def __init__(
        self, profile: CloudProfile, vocab_size: int, eos_token_id: int, seed: int
    ) -> None:
        self._profile = profile
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(seed)
        self._kv = _CountedKV(
            profile.kv_tokens // BLOCK_TOKENS, BLOCK_TOKENS * profile.kv_bytes_per_token
        )
        speeds = SpeedMeter()
        for first, streams, tokens, seconds in profile.warm_up():  # as a real server at its start
            if streams == 1 and (first == 0 or tokens == 1):
                speeds.record(seconds, tokens if tokens > 1 else 0, int(tokens == 1))
        scheduler = Scheduler(
            profile.max_num_seqs,
            profile.step_tokens(),
            self._kv.budget,
            self._kv.prefixes,
            room_tokens=profile.room_tokens,
            spare_tokens=profile.step_cost().spare_tokens,
        )
        self._book = RequestBook(
            scheduler, self._kv, (eos_token_id,), self._loop.time, self._tell, speeds
        )
        self._hashed = HashedTokens(vocab_size, (eos_token_id,))
        self._commands: list[Callable[[], None]] = []
        self._receivers: dict[int, Receiver] = {}
        self._stepping = False
        self._coming: dict[int, int] = {}  # tokens of requests that the book does not have yet

    # Commands, from the streams

    def submit(self, request_id: int, start: Start, receiver: Receiver) -> None:
        """Take in a request; `request_id` is never used twice."""
        request = LiveRequest.of(request_id, start, self._loop.time())
        self._receivers[request_id] = receiver
        self._coming[request_id] = request.num_prefix_tokens
        self._command(lambda: self._add(request))

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit; ignored when the request is unknown."""
        self._command(lambda: self._book.extend(request_id, token_limit))

    def stop(self, request_id: int) -> None:
        """End a request in order after the present step; ignored when it is unknown."""
        self._command(lambda: self._book.stop(request_id))

    def abort(self, request_id: int) -> None:
        """Forget a request after the present step; ignored when it is unknown."""
        self._command(lambda: self._abort(request_id))

    def load(self) -> Load:
        """Return how busy it is, requests on their way included."""
        load, coming = self._book.load(), self._coming
        return replace(
            load,
            num_waiting=load.num_waiting + len(coming),
            queued_prefill_tokens=load.queued_prefill_tokens + sum(coming.values()),
        )

    def check_integrity(self) -> None:
        """Assert that slots and blocks are where they should be."""
        self._book.check_integrity()
        assert len(self._receivers) == self._book.num_requests + len(self._coming)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)

    def _add(self, request: LiveRequest) -> None:
        del self._coming[request.request_id]
        self._book.add(request)

    def _abort(self, request_id: int) -> None:
        self._book.abort(request_id)
        self._receivers.pop(request_id, None)

    def _tell(self, event: EngineEvent) -> None:
        if isinstance(event, TokensMade):
            _, first_position, token_ids, logprobs = event
            self._receivers[event.request_id].tokens(first_position, token_ids, logprobs)
        elif isinstance(event, RequestFinished):
            self._receivers.pop(event.request_id).end(event.finished)
        elif isinstance(event, RequestFailed):
            self._receivers.pop(event.request_id).end(event.error)

    def _refine(self, request: LiveRequest) -> None:
        """Send a refined prompt of as many tokens as asked for; which ones means nothing here."""
        request.score_prompt = False
        random = np.random.default_rng(request.request_id)
        scores = random.random(request.num_prompt_tokens)
        kept = chosen_ranges(scores, request.keep_ratio, request.protected_ranges)
        self._receivers[request.request_id].refined(RefinedPrompt(kept))

    # Steps

    def _step(self) -> None:
        """Apply the commands and begin a step, or fall idle."""
        commands, self._commands = self._commands, []
        for command in commands:
            command()
        if not self._book.num_requests:
            self._stepping = False
            return
        now_s = self._loop.time()
        chunks = self._book.begin_step(now_s)
        if not chunks:  # all queued requests have expired
            self._loop.call_soon(self._step)
            return
        self._kv.begin_step()
        step_s = self._duration_s(chunks)
        # call_at, as a step's end is never late: only clients' timers (call_later) may be.
        self._loop.call_at(now_s + step_s, self._end_step, chunks, step_s)

    def _duration_s(self, chunks: Sequence[Chunk]) -> float:
        profile = self._profile
        seconds = profile.step_s
        num_decodes = num_keys = 0
        for chunk in chunks:
            if chunk.decodes:
                num_decodes += 1
                num_keys += chunk.first + 1
            else:
                seconds += profile.prefill_s(chunk.first, chunk.num_tokens)
        seconds += profile.decode_s * num_decodes + profile.decode_key_s * num_keys
        return seconds * max(1.0 + profile.spread * self._random.gauss(0, 1), 0.05)

    def _end_step(self, chunks: list[Chunk], step_s: float) -> None:
        """Hand out the step's tokens, and begin the next step."""
        self._kv.end_step(step_s)
        next_token = self._hashed.next_token
        made = [next_token(chunk.request) if chunk.samples else None for chunk in chunks]
        for chunk in chunks:
            if chunk.samples and chunk.request.score_prompt:
                self._refine(chunk.request)
        logprobs = {
            chunk.request.request_id: self._hashed.logprobs(chunk.request)
            for chunk in chunks
            if chunk.samples and chunk.request.sampling.logprobs is not None
        }
        self._book.end_step(chunks, made, step_s, logprobs)
        self._step()
