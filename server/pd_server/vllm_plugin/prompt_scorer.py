"""Collects, step by step, the queries that a prompt's scores need; independent of vLLM.

vLLM prefills a prompt in chunks, and one layer's heads may be split over several attention modules
(a SkipV1 layer's over two or more). Each module passes every chunk's queries; at the end of a
prompt, its last queries are scored against all its keys. `pd_core.models.prompt_scores` defines the
scores.

Legend: T tokens, W window, H query heads of a module, G its KV heads, D head dim, n prompt tokens.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention

__all__ = ["Chunk", "PromptScorer"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One module's queries of one request in one step.

    Attributes:
        request_id: vLLM's.
        first: position of the first query.
        queries: (T, H, D).
        keys: returns the keys of the first n positions: (G, n, D).
    """

    request_id: str
    first: int
    queries: Tensor
    keys: Callable[[int], Tensor]


@dataclass(slots=True)
class _Part:
    """One module's share: the window's queries received so far, (W, H, D)."""

    window: Tensor
    seen: Tensor  # (W,), of bool
    scores: Tensor | None = None


@dataclass(slots=True)
class _Request:
    tag: str
    num_tokens: int
    parts: dict[int, _Part] = field(default_factory=dict)


class PromptScorer:
    """Scores prompts on request.

    Args:
        num_parts: attention modules that make up the layer.
        scale: factor of the products of queries and keys.
        max_results: most results kept; older ones, of aborted requests, are dropped.
    """

    def __init__(self, num_parts: int, scale: float, max_results: int) -> None:
        self._num_parts = num_parts
        self._scale = scale
        self._max_results = max_results
        self._requests: dict[str, _Request] = {}
        self._results: dict[str, list[float]] = {}  # by tag, in order of arrival

    def wanted(self, request_id: str) -> bool:
        """Whether chunks of this request are needed."""
        return request_id in self._requests

    def begin(self, request_id: str, tag: str, num_tokens: int) -> None:
        """Expect a request whose scores will be fetched by `tag`; num_tokens is n."""
        self._requests[request_id] = _Request(tag, num_tokens)

    def end(self, request_ids: Iterable[str]) -> None:
        """Forget requests that vLLM has dropped; their scores stay until they are fetched."""
        for request_id in request_ids:
            self._requests.pop(request_id, None)

    def take(self, tag: str) -> list[float] | None:
        """Return the scores, and forget them; None: there are none."""
        return self._results.pop(tag, None)

    def observe(self, part: int, chunk: Chunk) -> None:
        """Take a chunk of module number `part` of a wanted request."""
        request = self._requests[chunk.request_id]
        width = min(SCORE_WINDOW, request.num_tokens)
        mine = request.parts.get(part)
        if mine is None:
            shape = (width, *chunk.queries.shape[1:])
            window = torch.zeros(shape, dtype=chunk.queries.dtype, device=chunk.queries.device)
            mine = request.parts[part] = _Part(window, torch.zeros(width, dtype=torch.bool))
        start, end = request.num_tokens - width, chunk.first + len(chunk.queries)
        first, last = max(chunk.first, start), min(end, request.num_tokens)
        if first < last:
            # By position: a preempted request is computed again, perhaps without cached tokens.
            mine.window[first - start : last - start] = chunk.queries[
                first - chunk.first : last - chunk.first
            ]
            mine.seen[first - start : last - start] = True
        if end >= request.num_tokens:
            self._complete(chunk, request, mine)

    def _complete(self, chunk: Chunk, request: _Request, mine: _Part) -> None:
        """Score a module's heads at the end of a prompt; the last module averages all scores."""
        if not mine.seen.all():
            logger.warning("a prompt has no scores: the prefix cache had its last tokens")
            del self._requests[chunk.request_id]
            return
        mine.scores = _module_scores(mine.window, chunk.keys(request.num_tokens), self._scale)
        scores = [p.scores for p in request.parts.values() if p.scores is not None]
        if len(scores) < self._num_parts:
            return
        # All modules have the same number of heads.
        self._results[request.tag] = torch.stack(scores).mean(0).tolist()
        del self._requests[chunk.request_id]
        while len(self._results) > self._max_results:
            del self._results[next(iter(self._results))]


def _module_scores(window: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Average attention of window: (W, H, D) over keys: (G, n, D); float32 (n,)."""
    num_kv_heads, num_keys, dim = keys.shape
    width, num_heads, _ = window.shape
    by_kv_head = window.float().view(width, num_kv_heads, -1, dim).permute(1, 2, 0, 3)
    rows = by_kv_head.reshape(num_kv_heads, -1, dim)  # (G, H / G * W, D)
    products = torch.bmm(rows, keys.float().transpose(1, 2)) * scale
    return mean_attention(products.view(num_heads, width, num_keys))
