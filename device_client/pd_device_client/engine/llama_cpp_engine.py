"""The local engine over llama.cpp: any GGUF file, behind the port of the torch engine.

Its answers are consistent, never identical: its sums depend on how tokens are cut into passes. What
is chosen from its logits is chosen by our own sampler, as on every other side.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from pd_core.errors import EngineError, PdError
from pd_core.generation import ModelCard, TokenLogprobs
from pd_core.grammar.grammars import Grammars
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.kept_prefixes import KeptPrefixes
from pd_device_client.engine.llama_cpp_model import LlamaCppModel
from pd_device_client.engine.sequence_tokens import SequenceTokens
from pd_device_client.engine.served_model import ServedModel

__all__ = ["LlamaCppEngine"]


class LlamaCppEngine:
    """A model that llama.cpp runs in this process, on one worker thread.

    A pass is one job, so a cancel waits for at most one pass. A finished answer's keys and values
    are copied out of the model's memory, and copied back for the next turn.

    Args:
        served: the model's names, text and limits.
        model: the model in memory; the engine owns it.
        num_slots: sequences that the model has slots for.
        chunk_tokens: tokens per prefill pass.
        kept_kv_bytes: limit of what is kept for conversations' next turns; 0 keeps none.
    """

    def __init__(
        self,
        served: ServedModel,
        model: LlamaCppModel,
        *,
        num_slots: int = 1,
        chunk_tokens: int = 128,
        kept_kv_bytes: int = 0,
    ) -> None:
        self.served = served
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="local-engine")
        self.free_slots = list(range(num_slots))  # only the worker takes and returns them
        self.grammars = Grammars(served.tokenizer, served.num_token_ids, served.eos_token_ids)
        self.kept = KeptPrefixes[_KeptState](kept_kv_bytes if model.can_go_back else 0)
        self._card = ModelCard(
            name=f"{served.name} (llama.cpp)",
            engine="llama-cpp",
            fingerprints=served.fingerprints,
            vocab_size=served.num_token_ids,
            eos_token_ids=served.eos_token_ids,
            max_context_tokens=served.max_context_tokens,
            logprobs=True,
            grammar_library=self.grammars.library,
        )

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    @property
    def leaves_out(self) -> bool:
        """No: llama.cpp wants the positions of a sequence without gaps."""
        return False

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Number of the prompt's first tokens that are cached from earlier answers."""
        return self.kept.shared_tokens(prompt_token_ids)

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "_LlamaCppSequence":
        """Open a sequence; if opened with a prompt, its cache is kept when it is closed."""
        return _LlamaCppSequence(self, sampling, prompt_token_ids)

    async def close(self) -> None:
        """Let the running pass finish, and free the model."""
        self.worker.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self.worker.shutdown(wait=True)
        self.model.close()


class _KeptState:
    """A finished answer's keys and values; the worker copies them after it is kept."""

    def __init__(self, allocated_bytes: int) -> None:
        self.allocated_bytes = allocated_bytes
        self.content: Future[NDArray[np.uint8]] = Future()


class _LlamaCppSequence:
    """One sequence; its passes run one after another on the engine's worker."""

    def __init__(
        self, engine: LlamaCppEngine, sampling: SamplingParams, prompt_token_ids: Sequence[int]
    ) -> None:
        self._engine = engine
        self._keeps = bool(prompt_token_ids)
        self._slot: int | None = None  # from the first pass on
        self._logprobs: TokenLogprobs | None = None
        self._source, num_kept = engine.kept.take(prompt_token_ids)
        served = engine.served
        asked = sampling.constraint
        self._tokens = SequenceTokens(
            *(sampling, served.eos_token_ids, served.max_context_tokens),
            prompt_token_ids[:num_kept],
            form=None if asked is None else engine.grammars.matcher(asked),
        )

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        assert positions is None, "its positions have no gaps"
        loop = asyncio.get_running_loop()
        sampled = await loop.run_in_executor(
            self._engine.worker, self._pass, list(token_ids), sample_position
        )
        self._tokens.held += token_ids
        return sampled

    def close(self) -> None:
        kept, held = None, self._tokens.held
        keeps = self._keeps and self._source is None and bool(held)
        self._keeps = False
        if keeps:
            kept = _KeptState(len(held) * self._engine.model.kv_bytes_per_token)
            self._engine.kept.keep(held, kept)
        with suppress(RuntimeError):  # the engine is closed, and all its memory is free
            self._engine.worker.submit(self._release, kept)

    def _release(self, kept: _KeptState | None) -> None:
        """Give the slot back, on the worker's thread; copy what it holds if that is kept."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        model = self._engine.model
        if kept is not None:
            try:
                model.clear(slot, len(self._tokens.held))
                kept.content.set_result(model.state(slot))
            except PdError as error:
                kept.content.set_exception(error)
        model.clear(slot)
        self._engine.free_slots.append(slot)

    def _pass(self, token_ids: list[int], sample_position: int | None) -> int | None:
        """Run one pass on the worker's thread."""
        self._tokens.room_for(len(token_ids))
        with self._tokens.computing(len(token_ids)):
            try:
                return self._forward(token_ids, sample_position)
            except Exception:
                if self._slot is not None:  # what went through, so that nothing is there twice
                    self._engine.model.clear(self._slot, self._tokens.num_tokens)
                raise

    def _forward(self, token_ids: list[int], sample_position: int | None) -> int | None:
        slot = self._slot if self._slot is not None else self._begin()
        self._tokens.feed(token_ids)
        logits = self._engine.model.run(
            slot, self._tokens.num_tokens, token_ids, wants_logits=sample_position is not None
        )
        self._tokens.num_tokens += len(token_ids)
        if logits is None or sample_position is None:
            return None
        # Rows behind these belong to no token.
        logits[self._engine.served.num_token_ids :] = float("-inf")
        row = torch.from_numpy(logits)[None]
        token_id, self._logprobs = self._tokens.sample(row, sample_position)
        return token_id

    def _begin(self) -> int:
        """Take a slot, with the prompt's kept beginning in it."""
        engine = self._engine
        if not engine.free_slots:
            raise EngineError("every slot of the local engine holds a sequence")
        if self._source is not None:
            state = self._source.content.result(timeout=0)  # this thread has copied it before
        self._slot = slot = engine.free_slots.pop()
        if self._source is not None:
            engine.model.restore(slot, state)
            if not engine.model.clear(slot, self._tokens.num_tokens):
                raise EngineError("llama.cpp cannot shorten a kept sequence of this model")
            self._source = None
        return slot
