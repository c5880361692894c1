"""The embedded engine: continuous batching and chunked prefill over a torch model.

One step is schedule, run, postprocess. New requests join while others decode; a request's KV cache
is allocated when it gets its slot, begins with what is known of its prefix, grows in blocks, and is
freed when it ends or is preempted.
"""

import logging
import time
from dataclasses import replace

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError, PdError, RequestExpired
from pd_core.generation import Finished, FinishReason, Load
from pd_core.models.kv_cache import KEY_BLOCK
from pd_core.sampling.rolling_hash import RollingHash
from pd_server.engine.contract import (
    EngineEvent,
    EngineRequest,
    ModelCard,
    PromptScored,
    RequestFailed,
    RequestFinished,
    TokensMade,
)
from pd_server.scheduling.block_budget import BLOCK_TOKENS
from pd_server.scheduling.prefix_cache import block_keys
from pd_server.scheduling.schedule import Admission, Chunk, Sequence
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter
from pd_server.torch_engine.kv_store import KVStore
from pd_server.torch_engine.live_request import LiveRequest, Totals
from pd_server.torch_engine.model_runner import ModelRunner, Work, WorkResult, model_failed
from pd_server.torch_engine.warm_up import warm_up

__all__ = ["SAMPLERS", "TorchEngine"]

SAMPLERS = ("model", "rolling-hash")

logger = logging.getLogger(__name__)


class TorchEngine:
    """See `Engine` for the contract.

    Args:
        lm: the model.
        max_num_seqs: slots.
        max_num_batched_tokens: tokens computed in one step; None: chosen from the speed measured.
        kv_cache_bytes: memory for the KV of running requests and cached prefixes; None: enough for
            every slot's longest context, but no more than half of what is free.
        sampler: "model"; or "rolling-hash", which still makes every forward pass but takes tokens
            from a hash of prompt and response (fleet measurements).

    Raises:
        ConfigError: unknown sampler, or too small a token budget.
    """

    def __init__(
        self,
        lm: LoadedModel,
        max_num_seqs: int,
        max_num_batched_tokens: int | None,
        sampler: str = "model",
        kv_cache_bytes: int | None = None,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
        fingerprints = lm.fingerprints
        if sampler != "model":
            # Tokens no longer come from the numerics, so nobody may count on theirs.
            fingerprints = replace(fingerprints, numerics_id=sampler)
        self._runner = ModelRunner(lm)
        context = lm.model.config.max_context_tokens
        blocks = self._runner.num_blocks(kv_cache_bytes, max_num_seqs * context)
        held = blocks * BLOCK_TOKENS // KEY_BLOCK * KEY_BLOCK
        if held < context:
            logger.warning(
                "the KV cache holds %d tokens, and %s has a context of %d: longer requests are "
                "refused; --kv-cache-mib gives more",
                held,
                lm.name,
                context,
            )
        self._card = ModelCard(
            model_name=lm.name,
            engine="torch",
            fingerprints=fingerprints,
            eos_token_ids=tuple(lm.eos_token_ids),
            vocab_size=lm.model.num_token_ids,
            max_context_tokens=min(context, held),
            sampler=sampler,
        )
        self._eos_token_ids = frozenset(lm.eos_token_ids)
        self._kv = KVStore(self._runner.make_cache, blocks)
        self._speeds = SpeedMeter()
        cost = warm_up(self._runner, self._speeds, self._card.max_context_tokens)
        self._scheduler = Scheduler(
            max_num_seqs,
            max_num_batched_tokens or cost.step_tokens(max_num_seqs),
            self._kv.budget,
            self._kv.prefixes,
            room_tokens=KEY_BLOCK,
            spare_tokens=cost.spare_tokens,
        )
        logger.info(
            "steps of at most %d tokens; %d KV blocks of %d tokens",
            self._scheduler.max_num_batched_tokens,
            blocks,
            BLOCK_TOKENS,
        )
        self._requests: dict[int, LiveRequest] = {}
        self._totals = Totals()
        self._prefilled: list[int] = []  # requests whose prompt is computed and not yet remembered

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    @property
    def num_prefix_hit_tokens(self) -> int:
        """Prompt tokens that were found cached, since the start."""
        return self._kv.num_hit_tokens

    @property
    def num_preemptions(self) -> int:
        """How often a request had to give its KV cache back, since the start."""
        return self._scheduler.num_preemptions

    def kv_blocks_held_by(self, request_id: int) -> int:
        """KV blocks of one request."""
        return self._kv.budget.held_by(request_id)

    def check_integrity(self) -> None:
        """Assert that slots and KV blocks are where they should be."""
        self._scheduler.check_integrity()
        for request_id, live in self._requests.items():
            room = self._scheduler.room_of(request_id)
            assert live.cache is None or live.cache.capacity_tokens <= room, "unaccounted KV"
            assert (live.cache is None) == (not live.kv_bytes), "KV bytes were miscounted"

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request; one with nothing left to make ends in the next step."""
        live = LiveRequest(request, list(request.token_ids), self._hash_of(request))
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
                block_keys=block_keys(request.token_ids, BLOCK_TOKENS, request.cache_salt),
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
        if request_id in self._requests:
            self._remember(request_id)
            self._release(request_id)

    def has_unfinished(self) -> bool:
        """Whether there are live requests or events to report."""
        return bool(self._requests or self._totals.events)

    def step(self) -> list[EngineEvent]:
        """Schedule, run, postprocess."""
        began_at_s = time.perf_counter()
        self._remember_prompts()
        schedule = self._scheduler.schedule(began_at_s)
        for sequence in schedule.expired:
            self._fail(sequence.request_id, _expired(sequence))
        for sequence in schedule.preempted:
            self._totals.kv_byte_s += self._requests[sequence.request_id].drop_cache(began_at_s)
        for admission in schedule.admitted:
            self._admit(admission, began_at_s)
        chunks = [chunk for chunk in schedule.chunks if self._make_room(chunk, began_at_s)]
        if chunks:
            results = self._runner.run([self._work(chunk) for chunk in chunks])
            self._postprocess(chunks, results, time.perf_counter() - began_at_s)
        if not self._requests:
            self.check_integrity()
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
            kv_blocks=self._kv.budget.num_blocks,
            kv_blocks_held=self._kv.budget.num_held,
            kv_blocks_cached=self._kv.budget.num_cached,
            prefix_hit_tokens=self._kv.num_hit_tokens,
            num_preemptions=self._scheduler.num_preemptions,
        )

    def close(self) -> None:
        """Do nothing: all it has is in this process."""

    def _admit(self, admission: Admission, now_s: float) -> None:
        """Give a request its KV cache; one that cannot be allocated fails alone."""
        live = self._requests[admission.sequence.request_id]
        try:
            live.hold(self._kv.admit(admission), now_s)
        except (MemoryError, RuntimeError) as error:
            self._fail(live.request.request_id, model_failed("has no memory for it", error))
            return

    def _make_room(self, chunk: Chunk, now_s: float) -> bool:
        """Let the request's KV cache grow to what it holds blocks for; False when that fails.

        Room for the whole prefix comes with the slot, room for the answer block by block: a high
        token limit alone holds no memory.
        """
        live = self._requests.get(chunk.sequence.request_id)
        if live is None or live.cache is None:  # its admission failed
            return False
        room = self._scheduler.room_of(chunk.sequence.request_id)
        if room <= live.cache.capacity_tokens:
            return True
        self._totals.kv_byte_s += live.count_kv(now_s)
        try:
            live.cache.reserve(room)
        except (MemoryError, RuntimeError) as error:
            failure = model_failed("could not allocate its KV cache", error)
            self._fail(chunk.sequence.request_id, failure)
            return False
        live.kv_bytes = live.cache.allocated_bytes
        return True

    def _remember_prompts(self) -> None:
        """Cache the prompts that the last step completed; their first tokens are out already."""
        for request_id in self._prefilled:
            live = self._requests.get(request_id)
            if live is not None and live.cache is not None:
                self._kv.keep(live.cache, live.request.token_ids, live.request.cache_salt)
        self._prefilled.clear()

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
            live.response_end() if chunk.samples else (),
            live.rolling_hash,
            live.prompt_to_score if chunk.samples else None,
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
            self._totals.kv_byte_s += live.count_kv(now_s)
            if result.failure is not None:
                self._fail(request_id, model_failed("failed on this request", result.failure))
                continue
            if result.prompt_scores is not None:
                live.prompt_scored = True
                self._emit(PromptScored(request_id, result.prompt_scores))
            position = chunk.sequence.next_position
            self._scheduler.advance(chunk)
            if chunk.samples and not chunk.decodes:
                self._prefilled.append(request_id)
            if result.token_id is not None:
                self._append(live, chunk.sequence, position, result.token_id, now_s)

    def _append(
        self, live: LiveRequest, sequence: Sequence, position: int, token_id: int, now_s: float
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
        self._remember(request_id)
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

    def _remember(self, request_id: int) -> None:
        """Cache what a request has computed: whoever continues its answer begins there."""
        live, sequence = self._requests[request_id], self._scheduler.get(request_id)
        if live.cache is not None and sequence is not None:
            computed = live.token_ids[: sequence.num_computed_tokens]
            self._kv.keep(live.cache, computed, live.request.cache_salt)

    def _release(self, request_id: int) -> LiveRequest | None:
        """Take a request out and let go of its KV cache."""
        self._scheduler.remove(request_id)
        live = self._requests.pop(request_id, None)
        if live is not None:
            self._totals.kv_byte_s += live.drop_cache(time.perf_counter())
        return live

    def _emit(self, event: EngineEvent) -> None:
        self._totals.events.append(event)

    def _is_eos(self, token_id: int) -> bool:
        return token_id in self._eos_token_ids

    def _hash_of(self, request: EngineRequest) -> RollingHash | None:
        if self._card.sampler == "model":
            return None
        return RollingHash(self._card.vocab_size, self._card.eos_token_ids, request.token_ids)


def _expired(sequence: Sequence) -> RequestExpired:
    return RequestExpired(
        f"the request was still queued after the {sequence.useful_for_s:.3f} s it was useful for; "
        "its prefill was never begun"
    )
