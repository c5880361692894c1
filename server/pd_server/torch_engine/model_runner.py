"""Run one step's chunks through the model in one ragged batch, and sample.

One request's failure must not end the others: results do not depend on how a batch is composed,
so a batch that fails is run again one chunk at a time, and only the chunks that fail alone fail.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError, EngineDead, EngineError, PdError
from pd_core.host.free_memory import available_bytes
from pd_core.models import KVCache, Segment
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_server.scheduling.block_budget import BLOCK_TOKENS

__all__ = ["ModelRunner", "Work", "WorkResult", "model_failed"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk of one request.

    Attributes:
        request_id: whose.
        token_ids: the tokens to compute.
        first: index of token_ids[0], counted from the start of the prompt.
        cache: the request's KV cache.
        sampling: how to choose the token after the chunk; None: choose none.
        position: response position of that token.
        history: the response before it, or its end.
        rolling_hash: chooses it in place of the model's logits; None in ordinary service.
        scored_prompt: a prompt that the chunk completes, to be scored; None: score none.
    """

    request_id: int
    token_ids: Sequence[int]
    first: int
    cache: KVCache
    sampling: SamplingParams | None
    position: int
    history: Sequence[int] = ()
    rolling_hash: RollingHash | None = None
    scored_prompt: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What became of a chunk.

    Attributes:
        token_id: sampled; None: there was nothing to sample.
        prompt_scores: of the prompt it completed, if that was asked for.
        failure: what it failed with; the rest is None then.
    """

    token_id: int | None = None
    prompt_scores: tuple[float, ...] | None = None
    failure: Exception | None = None


class ModelRunner:
    """Forward passes and sampling; owned by the engine's thread.

    Args:
        lm: the model.
    """

    def __init__(self, lm: LoadedModel) -> None:
        self._lm = lm

    def make_cache(self, num_tokens: int) -> KVCache:
        """Allocate a KV cache for num_tokens tokens."""
        return self._lm.model.make_cache(num_tokens)

    def num_blocks(self, kv_cache_bytes: int | None, wanted_tokens: int) -> int:
        """Return how many KV blocks an amount of memory holds.

        Args:
            kv_cache_bytes: the memory; None: for wanted_tokens, but at most half of what is free.
            wanted_tokens: see there.

        Raises:
            ConfigError: it does not hold one sequence of the least size, or is more than is free.
        """
        least = self.make_cache(1)
        blocks_of_least = least.capacity_tokens // BLOCK_TOKENS
        block_bytes = least.allocated_bytes // blocks_of_least
        free_bytes = _free_bytes(least.keys[0].device)
        if kv_cache_bytes is None:
            wanted = -(-wanted_tokens // BLOCK_TOKENS) * block_bytes
            kv_cache_bytes = min(wanted, free_bytes // 2)
        elif kv_cache_bytes > free_bytes:
            raise ConfigError(
                f"the KV cache is to have {kv_cache_bytes >> 20} MiB, and of the memory "
                f"{free_bytes >> 20} MiB are free; lower --kv-cache-mib"
            )
        blocks = kv_cache_bytes // block_bytes
        if blocks < blocks_of_least:
            raise ConfigError(
                f"{kv_cache_bytes} bytes of KV cache hold no sequence: the least one takes "
                f"{least.allocated_bytes}, for {least.capacity_tokens} tokens; raise --kv-cache-mib"
            )
        return blocks

    def run(self, batch: Sequence[Work]) -> list[WorkResult]:
        """Compute a batch and return one result a chunk, in the batch's order.

        Raises:
            EngineDead: every chunk fails alone, and so does a probe that is nobody's request.
        """
        try:
            return self._run_together(batch)
        except Exception as error:  # whatever the model raises, others' requests go on
            logger.warning(
                "a step of %d chunks failed (%s); running each alone",
                len(batch),
                type(error).__name__,
            )
        results = [self._run_alone(work) for work in batch]
        if all(result.failure is not None for result in results):
            self.probe()
        return results

    def probe(self) -> None:
        """Compute one token for nobody.

        Raises:
            EngineDead: even that fails.
        """
        work = Work(-1, (0,), 0, self.make_cache(1), SamplingParams(), 0)
        result = self._run_alone(work)
        if result.failure is not None:
            raise EngineDead(
                f"the model no longer computes ({type(result.failure).__name__}); restart the "
                "server, its log has the cause"
            ) from result.failure

    def _run_alone(self, work: Work) -> WorkResult:
        try:
            return self._run_together([work])[0]
        except Exception as error:  # attributed to this chunk
            return WorkResult(failure=error)

    @torch.inference_mode()
    def _run_together(self, batch: Sequence[Work]) -> list[WorkResult]:
        token_ids = [token_id for work in batch for token_id in work.token_ids]
        segments = [Segment(work.cache, work.first, len(work.token_ids)) for work in batch]
        hidden = self._lm.model.forward(torch.tensor(token_ids, dtype=torch.long), segments)
        tokens = self._sample(batch, hidden)
        return [
            WorkResult(token_id, self._score(work))
            for work, token_id in zip(batch, tokens, strict=True)
        ]

    def _sample(self, batch: Sequence[Work], hidden: torch.Tensor) -> list[int | None]:
        """Choose a token after each chunk that wants one, given hidden: (T, hidden)."""
        rows: list[int] = []
        sampled: list[int] = []
        params: list[SamplingParams] = []
        end = 0
        for index, work in enumerate(batch):
            end += len(work.token_ids)
            if work.sampling is not None:
                rows.append(end - 1)
                sampled.append(index)
                params.append(work.sampling)
        result: list[int | None] = [None] * len(batch)
        if not rows:
            return result
        logits = self._lm.model.logits(hidden[rows])  # (R, V)
        positions = [batch[index].position for index in sampled]
        histories = [batch[index].history for index in sampled]
        chosen = sample(logits, params, positions, self._lm.eos_token_ids, histories)
        for index, sampling, token_id in zip(sampled, params, chosen, strict=True):
            hashed = batch[index].rolling_hash
            result[index] = (
                token_id if hashed is None else hashed.next_token(batch[index].position, sampling)
            )
        return result

    def _score(self, work: Work) -> tuple[float, ...] | None:
        if work.scored_prompt is None:
            return None
        prompt = torch.tensor(work.scored_prompt, dtype=torch.long)
        return tuple(self._lm.model.prompt_scores(prompt, work.cache).tolist())


def model_failed(what: str, error: Exception) -> PdError:
    """Return the error a request gets when the model failed on it, and log the cause."""
    if isinstance(error, PdError):  # it says more than we could
        return error
    logger.error("the model %s", what, exc_info=error)
    return EngineError(f"the model {what} ({type(error).__name__}); the server's log has the cause")


def _free_bytes(device: torch.device) -> int:
    """Return the free memory of a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()
