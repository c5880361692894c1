"""Run one step's chunks through the model in one ragged batch, and sample.

One request's failure must not end the others. Results do not depend on how a batch is composed, so
the chunks of a failed batch are run again one at a time, and only those that fail alone fail.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import EngineDead, EngineError, PdError
from pd_core.generation import TokenLogprobs
from pd_core.models import KVCache, Segment
from pd_core.sampling.history import History
from pd_core.sampling.logprobs import asked_logprobs
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.schedule import Chunk

__all__ = ["ModelRunner", "Work", "WorkResult", "model_failed", "nobodys_work"]

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """One chunk of one request, and the KV cache it is written to."""

    chunk: Chunk
    cache: KVCache

    @property
    def token_ids(self) -> list[int]:
        """The tokens to compute."""
        _, first, num_tokens, _, _, draft = self.chunk
        return [*self.chunk.request.token_ids[first : first + num_tokens], *draft]


@dataclass(frozen=True, slots=True)
class WorkResult:
    """The result of a chunk.

    Attributes:
        token_ids: the sampled token, and one more for each guess that was right; empty: there was
            nothing to sample.
        logprobs: one for each of token_ids where the request asks for them, else none.
        prompt_scores: scores of the prompt it completed, if they were requested.
        failure: the error it failed with; the other fields are None then.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
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

    def run(self, batch: Sequence[Work]) -> list[WorkResult]:
        """Compute a batch and return one result a chunk, in the batch's order.

        Raises:
            EngineDead: every chunk fails alone, and so does a probe that belongs to no request.
        """
        try:
            return self._run_together(batch)
        except Exception as error:  # whatever the model raises, the other requests go on
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
        """Compute one token that belongs to no request.

        Raises:
            EngineDead: that fails too.
        """
        result = self._run_alone(nobodys_work(self.make_cache(1), 0, 1))
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
        segments = [Segment(work.cache, work.chunk.first, work.chunk.num_rows) for work in batch]
        hidden = self._lm.model.forward(torch.tensor(token_ids, dtype=torch.long), segments)
        made, told = self._sample([work.chunk for work in batch], hidden)
        return [
            WorkResult(tuple(made[i]), tuple(told.get(i, ())), self._score(work))
            for i, work in enumerate(batch)
        ]

    def _sample(
        self, chunks: Sequence[Chunk], hidden: torch.Tensor
    ) -> tuple[list[list[int]], dict[int, list[TokenLogprobs]]]:
        """Sample what follows each chunk that asks for it, given hidden: (T, hidden).

        First the next token of all; then, as long as a guess is the token that was sampled, the
        token after it, which the guess's row gives.

        Returns:
            The tokens of each chunk, and what is told of them, of the chunks that ask.
        """
        made: list[list[int]] = [[] for _ in chunks]
        told = dict[int, list[TokenLogprobs]]()
        ends = accumulate(chunk.num_rows for chunk in chunks)
        first_row, rows = dict[int, int](), list[int]()  # of each chunk's rows that are sampled
        for i, (chunk, end) in enumerate(zip(chunks, ends, strict=True)):
            if chunk.samples:
                first_row[i] = len(rows)
                rows += range(end - len(chunk.draft) - 1, end)
        if not rows:
            return made, told
        logits = self._lm.model.logits(hidden[rows])  # (R, V)
        going = list(first_row)
        while going:
            requests = [chunks[i].request for i in going]
            at = [first_row[i] + len(made[i]) for i in going]
            going_logits = logits if len(at) == len(rows) else logits[at]
            sampling = [request.sampling for request in requests]
            tokens = sample(
                going_logits,
                sampling,
                [chunks[i].request.next_position + len(made[i]) for i in going],
                self._lm.eos_token_ids,
                [_history(chunks[i].request, made[i]) for i in going],
                [_mask(chunks[i].request, made[i]) for i in going],
            )
            for i, token_id in zip(going, tokens, strict=True):
                made[i].append(token_id)
            for i, one in zip(going, asked_logprobs(going_logits, sampling, tokens), strict=True):
                if one is not None:
                    told.setdefault(i, []).append(one)
            going = [i for i in going if _right(chunks[i].draft, made[i])]
        return made, told

    def _score(self, work: Work) -> tuple[float, ...] | None:
        request = work.chunk.request
        if not (request.score_prompt and work.chunk.samples):
            return None
        prompt = torch.tensor(request.token_ids[: request.num_prompt_tokens], dtype=torch.long)
        return tuple(self._lm.model.prompt_scores(prompt, work.cache).tolist())


def _history(request: LiveRequest, made: Sequence[int]) -> History | None:
    """Return a request's history, up to tokens that it has not got yet."""
    if request.history is None or not made:
        return request.history
    return request.history.followed_by(made)


def _mask(request: LiveRequest, made: Sequence[int]) -> NDArray[np.int32] | None:
    """Return which tokens may follow a request's, and those it has not got yet; None: all."""
    return None if request.form is None else request.form.mask(request.response(made))


def _right(draft: Sequence[int], made: Sequence[int]) -> bool:
    """Whether the last token made is the guess at its place."""
    return len(made) <= len(draft) and draft[len(made) - 1] == made[-1]


def nobodys_work(cache: KVCache, first: int, num_tokens: int) -> Work:
    """Return num_tokens tokens to compute from a position on, and one to sample, for no request."""
    request = LiveRequest(-1, [0] * (first + num_tokens), 0, 0, 1, SamplingParams(), 0.0)
    return Work(Chunk(request, first, num_tokens, samples=True, decodes=False), cache)


def model_failed(what: str, error: Exception) -> PdError:
    """Return the error a request gets when the model failed on it, and log the cause."""
    if isinstance(error, PdError):  # its message is more specific than ours
        return error
    logger.error("the model %s", what, exc_info=error)
    return EngineError(f"the model {what} ({type(error).__name__}); the server's log has the cause")
