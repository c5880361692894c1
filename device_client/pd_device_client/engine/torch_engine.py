"""The local engine: a torch model on one worker thread, off the event loop.

A thread is enough: torch releases the GIL inside its operators. One pass is one job, so a cancel
waits for at most one pass; the chunk size is chosen for that latency.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import EngineError, PromptTooLong
from pd_core.generation import ModelCard
from pd_core.models import Segment
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.kept_prefixes import KeptPrefixes

__all__ = ["KEPT_KV_BYTES", "TorchLocalEngine"]

KEPT_KV_BYTES = 256 << 20
"""The default of `kept_kv_bytes` for conversations."""

logger = logging.getLogger(__name__)


class TorchLocalEngine:
    """A model in this process.

    Args:
        loaded: the model with its tokenizer and fingerprints.
        chunk_tokens: tokens per prefill pass.
        num_threads: torch threads of the worker; None leaves torch's default.
        kept_kv_bytes: limit of the KV caches kept for conversations' next turns; 0 keeps none, as
            measurements need.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        chunk_tokens: int = 128,
        num_threads: int | None = None,
        kept_kv_bytes: int = 0,
    ) -> None:
        self._loaded = loaded
        self._kept = KeptPrefixes(kept_kv_bytes)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="local-engine")
        if num_threads is not None:
            self._worker.submit(torch.set_num_threads, num_threads).result()
        config = loaded.model.config
        self.chunk_tokens = chunk_tokens
        self._card = ModelCard(
            name=f"{loaded.name} (torch)",
            engine="torch",
            fingerprints=loaded.fingerprints,
            vocab_size=loaded.model.num_token_ids,
            eos_token_ids=loaded.eos_token_ids,
            max_context_tokens=config.max_context_tokens,
        )

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Number of the prompt's first tokens that are cached from earlier answers."""
        return self._kept.shared_tokens(prompt_token_ids)

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "_TorchSequence":
        """Open a sequence; if opened with a prompt, its cache is kept when it is closed."""
        return _TorchSequence(self._loaded, self._worker, sampling, prompt_token_ids, self._kept)

    async def close(self) -> None:
        """Let the running pass finish and end the worker."""
        self._worker.shutdown(wait=False, cancel_futures=True)


class _TorchSequence:
    """One sequence; its passes run one after another on the engine's worker."""

    def __init__(
        self,
        loaded: LoadedModel,
        worker: ThreadPoolExecutor,
        sampling: SamplingParams,
        prompt_token_ids: Sequence[int],
        kept: KeptPrefixes,
    ) -> None:
        self._loaded = loaded
        self._worker = worker
        self._sampling = sampling
        self._kept = kept if prompt_token_ids else None
        self._source, self._num_tokens = kept.take(prompt_token_ids)
        self._cache = loaded.model.make_cache(1)
        # Tokens surely in the cache: a pass whose caller was cancelled does not count.
        self._held = list(prompt_token_ids[: self._num_tokens])
        # Only where sampling looks back, and only on the worker: all tokens in the cache.
        self._token_ids = list(self._held) if sampling.looks_back else []
        self._history: History | None = None

    async def feed(self, token_ids: Sequence[int], sample_position: int | None) -> int | None:
        loop = asyncio.get_running_loop()
        sampled = await loop.run_in_executor(
            self._worker, self._pass, list(token_ids), sample_position
        )
        self._held += token_ids
        return sampled

    def close(self) -> None:
        # A running pass writes only after the held tokens, so the kept prefix does not change.
        if self._kept is not None and self._source is None and self._held:
            self._kept.keep(self._held, self._cache)
        self._kept = None

    def _pass(self, token_ids: list[int], sample_position: int | None) -> int | None:
        """Run one forward pass on the worker's thread."""
        end = self._num_tokens + len(token_ids)
        limit = self._loaded.model.config.max_context_tokens
        if end > limit:
            raise PromptTooLong(f"{end} tokens do not fit the local model's context of {limit}")
        try:
            with torch.inference_mode():
                return self._forward(token_ids, end, sample_position)
        except Exception as error:
            logger.exception("the local engine failed in a pass of %d tokens", len(token_ids))
            raise EngineError(
                f"the local engine failed: {type(error).__name__}; see the log for the cause"
            ) from error

    def _forward(self, token_ids: list[int], end: int, sample_position: int | None) -> int | None:
        model = self._loaded.model
        self._cache.reserve(end)
        if self._source is not None:  # not in `open`, so that copying is off the event loop
            self._cache.copy_prefix(self._source, self._num_tokens)
            self._source = None
        segment = Segment(self._cache, self._num_tokens, len(token_ids))
        hidden = model.forward(torch.tensor(token_ids), [segment])
        self._num_tokens = end
        if self._sampling.looks_back:
            self._token_ids += token_ids
        if sample_position is None:
            return None
        if self._sampling.looks_back and self._history is None:
            self._history = History(self._token_ids, len(self._token_ids) - sample_position)
        logits = model.logits(hidden[-1:])
        eos = self._loaded.eos_token_ids
        return sample(logits, [self._sampling], [sample_position], eos, [self._history])[0]
