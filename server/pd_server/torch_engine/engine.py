"""The embedded engine: continuous batching and chunked prefill over a torch model.

One step is schedule, run, postprocess. New requests join while others decode. A request's KV cache
is allocated when it gets its slot, starts with its cached prefix, grows in blocks, and is freed
when the request ends or is preempted.
"""

import logging
import time
from dataclasses import replace
from functools import partial

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError, PdError
from pd_core.generation import Load, ModelCard, TokenLogprobs
from pd_core.grammar.grammars import Grammars
from pd_core.models.kv_cache import KEY_BLOCK
from pd_server.engine.contract import EngineEvent, PromptScored
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS
from pd_server.scheduling.drafting import Drafting
from pd_server.scheduling.hashed_tokens import HashedTokens
from pd_server.scheduling.request_book import RequestBook
from pd_server.scheduling.schedule import Chunk
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter
from pd_server.torch_engine.kv_store import KVStore, num_blocks
from pd_server.torch_engine.model_runner import ModelRunner, Work, WorkResult, model_failed
from pd_server.torch_engine.warm_up import warm_up

__all__ = ["SAMPLERS", "TorchEngine"]

SAMPLERS = ("model", "rolling-hash")

logger = logging.getLogger(__name__)

_WAIT_S = 0.0005


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
        speculate: most tokens guessed of a stream in a step; 0: none. Without reproducible numerics
            none are guessed, as they could change a token, and none with another sampler.
        decode_gap_s: prompts may be prefilled beside streams until a step takes this long.

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
        speculate: int = 0,
        decode_gap_s: float = 0.0,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
        fingerprints = lm.fingerprints
        if sampler != "model":
            # Tokens do not come from the model, so the id must not promise its numerics.
            fingerprints = replace(fingerprints, numerics_id=sampler)
        self._runner = ModelRunner(lm)
        self._grammars = Grammars(lm.tokenizer, lm.num_token_ids, lm.eos_token_ids)
        context = lm.model.config.max_context_tokens
        blocks = num_blocks(self._runner.make_cache, kv_cache_bytes, max_num_seqs, context)
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
            name=lm.name,
            engine="torch",
            fingerprints=fingerprints,
            eos_token_ids=tuple(lm.eos_token_ids),
            vocab_size=lm.model.num_token_ids,
            max_context_tokens=min(context, held),
            sampler=sampler,
            grammar_library=self._grammars.library if sampler == "model" else "",
            logprobs=True,
        )
        self._grammars.prepare()
        self._kv = KVStore(self._runner.make_cache, blocks)
        speeds = SpeedMeter()
        cost = warm_up(self._runner, speeds, self._card.max_context_tokens)
        scheduler = Scheduler(
            max_num_seqs,
            max_num_batched_tokens or cost.step_tokens(max_num_seqs),
            self._kv.budget,
            self._kv.prefixes,
            room_tokens=KEY_BLOCK,
            spare_tokens=partial(cost.spare_tokens, decode_gap_s=decode_gap_s),
        )
        logger.info(
            "steps of at most %d tokens; %d KV blocks of %d tokens",
            scheduler.max_num_batched_tokens,
            blocks,
            BLOCK_TOKENS,
        )
        self._events: list[EngineEvent] = []
        self._book = RequestBook(
            scheduler,
            self._kv,
            lm.eos_token_ids,
            time.perf_counter,
            self._events.append,
            speeds,
        )
        exact = lm.numerics.reproducible and sampler == "model"
        self._drafting = Drafting(
            speculate if exact else 0, scheduler.max_num_batched_tokens, scheduler.room_of
        )
        self._hashed: HashedTokens | None = None
        if sampler == "rolling-hash":
            self._hashed = HashedTokens(self._card.vocab_size, lm.eos_token_ids)

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    def check_integrity(self) -> None:
        """Assert that slots and KV blocks are where they should be."""
        self._book.check_integrity()
        self._kv.check_integrity()

    def add_request(self, request: LiveRequest) -> None:
        """Queue a request; one with nothing left to generate ends in the next step.

        The form of its answer is compiled from now on, beside queue and prefill.
        """
        if request.sampling.constraint is not None:
            request.form = self._grammars.matcher(request.sampling.constraint)
        self._book.add(request)

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit."""
        self._book.extend(request_id, token_limit)

    def stop(self, request_id: int) -> None:
        """End a request in order."""
        self._book.stop(request_id)

    def abort(self, request_id: int) -> None:
        """Forget a request and free its KV cache at once."""
        self._book.abort(request_id)

    def has_unfinished(self) -> bool:
        """Whether there are live requests or events to report."""
        return bool(self._book.num_requests or self._events)

    def step(self) -> list[EngineEvent]:
        """Choose the work, run it, and report what came of it."""
        began_at_s = time.perf_counter()
        chunks = self._book.begin_step(began_at_s)
        chunks = [c for c in chunks if self._fits_form(c) and self._has_room(c, began_at_s)]
        if chunks:
            chunks = self._drafting.with_drafts(chunks)
            results = self._runner.run([Work(c, self._kv.cache_of(c.request)) for c in chunks])
            now_s = time.perf_counter()
            self._kv.count(now_s)
            made = [self._made(c, result) for c, result in zip(chunks, results, strict=True)]
            accepted = sum([max(0, len(result.token_ids) - 1) for result in results])
            self._drafting.ran(chunks, accepted, now_s - began_at_s)
            logprobs = {
                chunk.request.request_id: self._logprobs(chunk, result)
                for chunk, result in zip(chunks, results, strict=True)
                if chunk.request.sampling.logprobs is not None
            }
            self._book.end_step(chunks, made, now_s - began_at_s, logprobs)
        elif self._book.num_requests:
            time.sleep(_WAIT_S)  # for a form that is being compiled
        if not self._book.num_requests:
            self.check_integrity()
        events = self._events.copy()
        self._events.clear()
        return events

    def load(self) -> Load:
        """How busy it is, as of the last step."""
        drafting = self._drafting
        return replace(
            self._book.load(),
            drafted_tokens=drafting.num_drafted,
            accepted_tokens=drafting.num_accepted,
        )

    def close(self) -> None:
        """Do nothing: the engine holds nothing outside this process."""

    def _has_room(self, chunk: Chunk, now_s: float) -> bool:
        """Whether the request's KV cache has room for the chunk; if it cannot grow, fail it."""
        try:
            self._kv.grow(chunk.request, now_s)
        except PdError as error:
            self._book.fail(chunk.request, error)
            return False
        return True

    def _logprobs(self, chunk: Chunk, result: WorkResult) -> tuple[TokenLogprobs, ...]:
        """Return what is told of a chunk's tokens."""
        if self._hashed is None or not chunk.samples:
            return result.logprobs
        return self._hashed.logprobs(chunk.request)

    def _fits_form(self, chunk: Chunk) -> bool:
        """Whether a token can be sampled in the form asked for; if none ever can, fail the request.

        The mask is found here, and kept: the step's other requests must not be computed twice.
        """
        request = chunk.request
        if request.form is None or not chunk.samples:
            return True
        try:
            request.form.mask(request.response())
        except PdError as error:
            self._book.fail(request, error)
            return False
        return True

    def _made(self, chunk: Chunk, result: WorkResult) -> int | tuple[int, ...] | PdError | None:
        """Return a chunk's tokens or error, and report the scores of a prompt it completed."""
        request = chunk.request
        if result.failure is not None:
            return model_failed("failed on this request", result.failure)
        if result.prompt_scores is not None:
            request.score_prompt = False
            self._events.append(PromptScored(request.request_id, result.prompt_scores))
        if self._hashed is not None and chunk.samples:
            return self._hashed.next_token(request)
        return result.token_ids or None
