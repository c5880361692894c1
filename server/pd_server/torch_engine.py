"""The embedded engine: continuous batching and chunked prefill over a torch model.

One step is schedule, run, postprocess. New requests join while others decode; a request's KV cache
is allocated when it gets its slot, grows in blocks, and is freed when it ends.
"""

import logging
import time
from dataclasses import dataclass, field, replace

from pd_core.errors import ConfigError, EngineError, PdError, RequestExpired
from pd_core.generation import Finished, FinishReason, Load
from pd_core.models import KVCache, LoadedModel
from pd_core.rolling_hash import RollingHash
from pd_server.engine import (
    EngineEvent,
    EngineRequest,
    ModelCard,
    RequestFailed,
    RequestFinished,
    TokensMade,
)
from pd_server.model_runner import ModelRunner, Work, WorkResult
from pd_server.scheduler import Chunk, Scheduler, Sequence
from pd_server.speed_meter import SpeedMeter

__all__ = ["SAMPLERS", "TorchEngine"]

SAMPLERS = ("model", "rolling-hash")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    """What the engine holds for a live request; `cache` is None until it gets a slot."""

    request: EngineRequest
    token_ids: list[int]
    rolling_hash: RollingHash | None
    cache: KVCache | None = None
    began_at_s: float | None = None
    first_token_at_s: float | None = None
    num_generated: int = 0
    busy_s: float = 0.0
    kv_bytes: int = 0  # allocated by `cache`
    kv_byte_s: float = 0.0
    kv_counted_to_s: float = 0.0


@dataclass(slots=True)
class _Totals:
    """Counters since the start."""

    busy_s: float = 0.0
    kv_byte_s: float = 0.0
    kv_bytes_peak: int = 0
    tokens_generated: int = 0
    events: list[EngineEvent] = field(default_factory=list)


class TorchEngine:
    """See `Engine` for the contract.

    Args:
        lm: the model.
        max_num_seqs: slots.
        max_num_batched_tokens: tokens computed in one step.
        sampler: "model"; or "rolling-hash", which still makes every forward pass but takes tokens
            from a hash of prompt and response (fleet measurements).

    Raises:
        ConfigError: unknown sampler, or too small a token budget.
    """

    def __init__(
        self,
        lm: LoadedModel,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        sampler: str = "model",
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
        fingerprints = lm.fingerprints
        if sampler != "model":
            # Tokens no longer come from the numerics, so nobody may count on theirs.
            fingerprints = replace(fingerprints, numerics_id=sampler)
        self._card = ModelCard(
            model_name=lm.name,
            engine="torch",
            fingerprints=fingerprints,
            eos_token_ids=tuple(lm.eos_token_ids),
            vocab_size=lm.model.num_token_ids,
            max_context_tokens=lm.model.config.max_context_tokens,
            sampler=sampler,
        )
        self._eos_token_ids = frozenset(lm.eos_token_ids)
        self._runner = ModelRunner(lm)
        self._scheduler = Scheduler(max_num_seqs, max_num_batched_tokens)
        self._speeds = SpeedMeter()
        self._requests: dict[int, _Request] = {}
        self._totals = _Totals()
        self._warm_up()

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request; one with nothing left to make ends in the next step."""
        live = _Request(request, list(request.token_ids), self._hash_of(request))
        committed_eos = request.num_committed_tokens and self._is_eos(request.token_ids[-1])
        if committed_eos or request.first_position >= request.token_limit:
            reason = FinishReason.EOS if committed_eos else FinishReason.LIMIT
            self._emit(RequestFinished(request.request_id, Finished(reason, 0)))
            return
        self._requests[request.request_id] = live
        self._scheduler.add(
            Sequence(
                request.request_id,
                num_prefix_tokens=len(request.token_ids),
                first_position=request.first_position,
                token_limit=request.token_limit,
                arrived_at_s=request.arrived_at_s,
                useful_for_s=request.useful_for_s,
            )
        )

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit."""
        self._scheduler.extend(request_id, token_limit)

    def stop(self, request_id: int) -> None:
        """End a request in order; the tokens made since the client's Stop are counted."""
        if request_id in self._requests:
            self._finish(request_id, FinishReason.STOPPED)

    def abort(self, request_id: int) -> None:
        """Forget a request and free its KV cache at once."""
        self._release(request_id)

    def has_unfinished(self) -> bool:
        """Whether there are live requests or events to report."""
        return bool(self._requests or self._totals.events)

    def step(self) -> list[EngineEvent]:
        """Schedule, run, postprocess."""
        began_at_s = time.perf_counter()
        schedule = self._scheduler.schedule(began_at_s)
        for sequence in schedule.expired:
            self._fail(sequence.request_id, _expired(sequence))
        chunks = [chunk for chunk in schedule.chunks if self._make_room(chunk, began_at_s)]
        if chunks:
            results = self._runner.run([self._work(chunk) for chunk in chunks])
            self._postprocess(chunks, results, time.perf_counter() - began_at_s)
        if not self._requests:
            self._scheduler.check_integrity()
            assert not self._scheduler.num_running, "a slot is held by no request"
        events, self._totals.events = self._totals.events, []
        return events

    def load(self) -> Load:
        """How busy it is, as of the last step."""
        return Load(
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            max_num_seqs=self._scheduler.max_num_seqs,
            queued_prefill_tokens=self._scheduler.num_queued_prefill_tokens,
            prefill_tokens_per_s=self._speeds.prefill_tokens_per_s,
            decode_step_s=self._speeds.decode_step_s,
            engine_busy_s=self._totals.busy_s,
            kv_byte_s=self._totals.kv_byte_s,
            kv_bytes_peak=self._totals.kv_bytes_peak,
            tokens_generated=self._totals.tokens_generated,
        )

    def close(self) -> None:
        """Do nothing: all it has is in this process."""

    def _make_room(self, chunk: Chunk, now_s: float) -> bool:
        """Let the request's KV cache hold what the chunk will add; False when that fails.

        Room for the whole prefix comes with the slot, room for the answer block by block: a high
        token limit alone holds no memory.
        """
        sequence = chunk.sequence
        live = self._requests[sequence.request_id]
        num_needed = chunk.first + chunk.num_tokens
        if live.cache is not None and num_needed <= live.cache.capacity_tokens:
            return True
        self._count_kv(live, now_s)
        try:
            if live.cache is None:
                live.cache = self._runner.make_cache(sequence.num_prefix_tokens)
                live.began_at_s = now_s
            live.cache.reserve(num_needed)
        except (MemoryError, RuntimeError) as error:
            failure = _model_failed("could not allocate its KV cache", error)
            self._fail(sequence.request_id, failure)
            return False
        live.kv_bytes = live.cache.allocated_bytes
        return True

    def _work(self, chunk: Chunk) -> Work:
        sequence = chunk.sequence
        live = self._requests[sequence.request_id]
        assert live.cache is not None, "a scheduled request has no KV cache"
        return Work(
            sequence.request_id,
            live.token_ids[chunk.first : chunk.first + chunk.num_tokens],
            chunk.first,
            live.cache,
            live.request.sampling if chunk.samples else None,
            sequence.next_position,
            live.rolling_hash,
        )

    def _postprocess(self, chunks: list[Chunk], results: list[WorkResult], step_s: float) -> None:
        """Share the step's seconds, record its tokens, and end what has ended."""
        now_s = time.perf_counter()
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        num_decodes = sum(chunk.decodes for chunk in chunks)
        self._speeds.record(step_s, num_tokens - num_decodes, num_decodes)
        self._totals.busy_s += step_s
        kv_bytes = sum(live.kv_bytes for live in self._requests.values())
        self._totals.kv_bytes_peak = max(self._totals.kv_bytes_peak, kv_bytes)
        for chunk, result in zip(chunks, results, strict=True):
            request_id = chunk.sequence.request_id
            live = self._requests[request_id]
            live.busy_s += step_s * chunk.num_tokens / num_tokens
            self._count_kv(live, now_s)
            if result.failure is not None:
                self._fail(request_id, _model_failed("failed on this request", result.failure))
                continue
            position = chunk.sequence.next_position
            self._scheduler.advance(chunk)
            if result.token_id is not None:
                self._append(live, chunk.sequence, position, result.token_id, now_s)

    def _append(
        self, live: _Request, sequence: Sequence, position: int, token_id: int, now_s: float
    ) -> None:
        """Record one new token and end the request where that ends it."""
        live.token_ids.append(token_id)
        live.num_generated += 1
        self._totals.tokens_generated += 1
        if live.first_token_at_s is None:
            live.first_token_at_s = now_s
        if live.rolling_hash is not None:
            live.rolling_hash.extend((token_id,))
        self._emit(TokensMade(sequence.request_id, position, (token_id,)))
        if self._is_eos(token_id):
            self._finish(sequence.request_id, FinishReason.EOS)
        elif sequence.at_limit:
            self._finish(sequence.request_id, FinishReason.LIMIT)

    def _finish(self, request_id: int, reason: FinishReason) -> None:
        live = self._release(request_id)
        assert live is not None, "a request ended twice"
        now_s = time.perf_counter()
        arrived_at_s = live.request.arrived_at_s
        began_at_s = now_s if live.began_at_s is None else live.began_at_s
        first_token_at_s = now_s if live.first_token_at_s is None else live.first_token_at_s
        finished = Finished(
            reason,
            live.num_generated,
            queue_s=max(0.0, began_at_s - arrived_at_s),
            prefill_s=first_token_at_s - began_at_s,
            engine_busy_s=live.busy_s,
            kv_byte_s=live.kv_byte_s,
        )
        self._emit(RequestFinished(request_id, finished))

    def _fail(self, request_id: int, error: PdError) -> None:
        if self._release(request_id) is not None:
            self._emit(RequestFailed(request_id, error))

    def _release(self, request_id: int) -> _Request | None:
        """Take a request out and let go of its KV cache."""
        self._scheduler.remove(request_id)
        live = self._requests.pop(request_id, None)
        if live is not None:
            self._count_kv(live, time.perf_counter())
            live.cache = None
            live.kv_bytes = 0
        return live

    def _count_kv(self, live: _Request, now_s: float) -> None:
        """Bring the integral of held KV bytes up to now."""
        byte_s = live.kv_bytes * (now_s - live.kv_counted_to_s)
        live.kv_byte_s += byte_s
        self._totals.kv_byte_s += byte_s
        live.kv_counted_to_s = now_s

    def _emit(self, event: EngineEvent) -> None:
        self._totals.events.append(event)

    def _is_eos(self, token_id: int) -> bool:
        return token_id in self._eos_token_ids

    def _hash_of(self, request: EngineRequest) -> RollingHash | None:
        if self._card.sampler == "model":
            return None
        return RollingHash(self._card.vocab_size, self._card.eos_token_ids, request.token_ids)

    def _warm_up(self) -> None:
        """Run a few passes for nobody, so that the first request pays no start-up cost.

        They also give the speeds that the first devices plan with; no other counter sees them.
        """
        num_tokens = min(
            64, self._card.max_context_tokens // 2, self._scheduler.max_num_batched_tokens
        )
        cache = self._runner.make_cache(num_tokens + 4)
        ids = [0] * num_tokens
        for first, token_ids in [(0, ids), (0, ids), *((num_tokens + i, [0]) for i in range(4))]:
            began_at_s = time.perf_counter()
            result = self._runner.run([Work(-1, token_ids, first, cache, None, 0)])[0]
            if result.failure is not None:
                raise _model_failed("failed in its warm-up", result.failure)
            prefilled = len(token_ids) if first == 0 else 0
            self._speeds.record(time.perf_counter() - began_at_s, prefilled, first > 0)


def _expired(sequence: Sequence) -> RequestExpired:
    return RequestExpired(
        f"the request was still queued after the {sequence.useful_for_s:.3f} s it was useful for; "
        "its prefill was never begun"
    )


def _model_failed(what: str, error: Exception) -> PdError:
    if isinstance(error, PdError):  # it says more than we could
        return error
    logger.error("the model %s", what, exc_info=error)
    return EngineError(f"the model {what} ({type(error).__name__}); the server's log has the cause")
