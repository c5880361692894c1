"""The life of requests around the scheduler: queued, begun, appended to, cached, ended.

An engine asks for a step's chunks, computes them (or, if simulated, only waits as long as that
takes), and reports the results; everything in between is here, for real and simulated engines
alike. No torch, and no clock but the one passed in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Generic, Protocol

from pd_core.errors import PdError
from pd_core.generation import Finished, FinishReason, Load, TokenLogprobs
from pd_server.engine.contract import EngineEvent, RequestFailed, RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import Block, PrefixCache, block_keys, remember
from pd_server.scheduling.schedule import Chunk, Placement
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter

__all__ = ["KVMemory", "RequestBook"]

_NOBODY_ASKS: Mapping[int, Sequence[TokenLogprobs]] = MappingProxyType({})


class KVMemory(Protocol[Block]):
    """The KV blocks of running requests and of cached prefixes.

    Attributes:
        budget: the block budget.
        prefixes: the cached prefixes.
        byte_s: integral over time of the bytes held.
        bytes_peak: most bytes held at once.
    """

    budget: BlockBudget
    prefixes: PrefixCache[Block]

    @property
    def byte_s(self) -> float: ...

    @property
    def bytes_peak(self) -> int: ...

    def hold(self, placement: Placement[Block], now_s: float) -> None:
        """Give a request that got a slot its memory, and copy its cached prefix into it.

        Raises:
            PdError: there is no memory.
        """
        ...

    def block(self, request: LiveRequest, index: int) -> Block:
        """Return one block of what a request has computed, for the cache."""
        ...

    def drop(self, request: LiveRequest, now_s: float) -> None:
        """Free a request's memory, if it has any."""
        ...


class RequestBook(Generic[Block]):
    """The requests of one engine, its counters and its speeds. Owned by the engine's thread.

    Args:
        scheduler: chooses each step's work.
        kv: holds the computed keys and values.
        eos_token_ids: ids that end an answer.
        clock: returns seconds; the same clock as the requests' arrivals.
        emit: called at once with every event.
        speeds: speeds measured so far.
    """

    def __init__(
        self,
        scheduler: Scheduler[Block],
        kv: KVMemory[Block],
        eos_token_ids: Collection[int],
        clock: Callable[[], float],
        emit: Callable[[EngineEvent], None],
        speeds: SpeedMeter,
    ) -> None:
        self._scheduler = scheduler
        self._kv = kv
        self._eos_token_ids = frozenset(eos_token_ids)
        self._clock = clock
        self._emit = emit
        self._speeds = speeds
        self._prefilled: list[LiveRequest] = []  # prompts computed, but not yet cached
        self._busy_s = 0.0
        self._num_generated_tokens = 0
        self._num_hit_tokens = 0

    @property
    def num_requests(self) -> int:
        """Requests that have not ended."""
        return self._scheduler.num_running + self._scheduler.num_waiting

    def add(self, request: LiveRequest) -> None:
        """Queue a request; one with nothing left to generate ends at once."""
        if (reason := request.end(self._eos_token_ids)) is not None:
            self._emit(RequestFinished(request.request_id, Finished(reason, 0)))
            return
        request.block_keys = block_keys(request.token_ids, BLOCK_TOKENS, request.cache_salt)
        self._scheduler.add(request)

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit; a lower one, or an unknown request, is ignored."""
        self._scheduler.extend(request_id, token_limit)

    def stop(self, request_id: int) -> None:
        """End a request in order; the tokens made since the client's Stop are counted."""
        if (request := self._scheduler.get(request_id)) is not None:
            self._finish(request, FinishReason.CANCELLED)

    def abort(self, request_id: int) -> None:
        """Forget a request and free its KV cache; no event follows."""
        if (request := self._scheduler.get(request_id)) is not None:
            self._remember(request)
            self._release(request)

    def fail(self, request: LiveRequest, error: PdError) -> None:
        """End a request with an error."""
        self._release(request)
        self._emit(RequestFailed(request.request_id, error))

    def begin_step(self, now_s: float) -> list[Chunk]:
        """Choose the step's chunks, fail expired requests, and give memory to those that begin."""
        for request in self._prefilled:  # cached only now, so that first tokens did not wait
            if self._scheduler.get(request.request_id) is request:
                self._keep(request, request.block_keys)
        self._prefilled.clear()
        schedule = self._scheduler.schedule(now_s)
        for request in schedule.expired:
            self.fail(request, request.expiry())
        for request in schedule.preempted:
            self._kv.drop(request, now_s)
        chunks = schedule.chunks
        for placement in schedule.placed:
            try:
                self._kv.hold(placement, now_s)
            except PdError as error:
                self.fail(placement.request, error)
                chunks = [chunk for chunk in chunks if chunk.request is not placement.request]
            else:
                num_cached = len(placement.prefix) * BLOCK_TOKENS
                self._num_hit_tokens += num_cached
                if placement.request.num_generated_tokens == 0:  # else it was preempted
                    placement.request.num_cached_tokens = num_cached
        return chunks

    def end_step(
        self,
        chunks: Sequence[Chunk],
        made: Sequence[int | tuple[int, ...] | PdError | None],
        step_s: float,
        logprobs: Mapping[int, Sequence[TokenLogprobs]] = _NOBODY_ASKS,
    ) -> None:
        """Share out the step's seconds, record its tokens, and end the requests that are done.

        Args:
            chunks: the chunks computed.
            made: the result of each: the sampled token, or with guesses that were right the tokens
                in order; None if it samples none; or an error.
            step_s: the step's seconds.
            logprobs: of the requests that ask for them, by request id: one for each token made.
        """
        now_s = self._clock()
        num_tokens = sum([chunk.num_tokens for chunk in chunks])
        num_decodes = sum([chunk.decodes for chunk in chunks])
        self._speeds.record(step_s, num_tokens - num_decodes, num_decodes)
        self._busy_s += step_s
        share_s = step_s / sum([chunk.num_rows for chunk in chunks])
        for chunk, tokens in zip(chunks, made, strict=True):
            request = chunk.request
            request.busy_s += share_s * chunk.num_rows
            if isinstance(tokens, PdError):
                self.fail(request, tokens)
                continue
            self._scheduler.advance(chunk)
            if tokens is not None:
                if not chunk.decodes:
                    self._prefilled.append(request)
                self._append_all(request, tokens, logprobs.get(request.request_id, ()), now_s)

    def load(self) -> Load:
        """How busy the engine is, as of the last step."""
        scheduler, budget = self._scheduler, self._kv.budget
        return Load(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            max_num_seqs=scheduler.max_num_seqs,
            queued_prefill_tokens=scheduler.num_queued_prefill_tokens,
            prefill_tokens_per_s=self._speeds.prefill_tokens_per_s,
            decode_step_s=self._speeds.decode_step_s,
            engine_busy_s=self._busy_s,
            kv_byte_s=self._kv.byte_s,
            kv_bytes_peak=self._kv.bytes_peak,
            tokens_generated=self._num_generated_tokens,
            kv_blocks=budget.num_blocks,
            kv_blocks_held=budget.num_held,
            kv_blocks_cached=budget.num_cached,
            prefix_hit_tokens=self._num_hit_tokens,
            num_preemptions=scheduler.num_preemptions,
        )

    def check_integrity(self) -> None:
        """Assert that slots and blocks are where they should be."""
        self._scheduler.check_integrity()

    def _append_all(
        self,
        request: LiveRequest,
        tokens: int | tuple[int, ...],
        logprobs: Sequence[TokenLogprobs],
        now_s: float,
    ) -> None:
        """Record a step's tokens, as far as the request goes on."""
        first, *more = (tokens,) if isinstance(tokens, int) else tokens
        goes_on = self._append(request, first, tuple(logprobs[:1]), now_s)
        for number, token_id in enumerate(more, 1):
            if not goes_on:
                return
            request.num_computed_tokens += 1  # the token before it was a right guess
            goes_on = self._append(request, token_id, tuple(logprobs[number : number + 1]), now_s)

    def _append(
        self,
        request: LiveRequest,
        token_id: int,
        logprobs: tuple[TokenLogprobs, ...],
        now_s: float,
    ) -> bool:
        """Record one new token, and end the request if it is the last; whether it goes on."""
        position = request.next_position
        request.token_ids.append(token_id)
        self._num_generated_tokens += 1
        if request.first_token_at_s is None:
            request.first_token_at_s = now_s
        self._emit(TokensMade(request.request_id, position, (token_id,), logprobs))
        reason = request.end(self._eos_token_ids)
        if reason is not None:
            self._finish(request, reason)
        return reason is None

    def _finish(self, request: LiveRequest, reason: FinishReason) -> None:
        self._remember(request)
        self._release(request)
        finished = request.finished(reason, self._clock())
        self._emit(RequestFinished(request.request_id, finished))

    def _release(self, request: LiveRequest) -> None:
        self._scheduler.remove(request.request_id)
        self._kv.drop(request, self._clock())

    def _remember(self, request: LiveRequest) -> None:
        """Cache what a request has computed, so that a continuation of its answer begins there."""
        computed = request.token_ids[: request.num_computed_tokens]
        keys = block_keys(computed, BLOCK_TOKENS, request.cache_salt, request.block_keys)
        self._keep(request, keys)

    def _keep(self, request: LiveRequest, keys: Sequence[bytes]) -> None:
        remember(self._kv.prefixes, self._kv.budget, keys, partial(self._kv.block, request))
