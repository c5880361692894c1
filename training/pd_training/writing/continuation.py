"""Texts written by a model, many at a time, with the inference code that also serves it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.models import CausalLM, Segment
from pd_core.models.kv_cache import KVCache
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams

__all__ = ["continue_prompts"]

_BATCH = 64


def continue_prompts(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    max_tokens: int,
    is_done: Callable[[int, list[int]], bool] = lambda prompt, ids: False,
) -> Iterator[list[int]]:
    """Yield each prompt's continuation, in order; the end-of-sequence token is left out.

    Args:
        prompts: token ids, one or more each; together with max_tokens they must fit the context.
        sampling: prompt i is sampled with the seed plus i.
        max_tokens: longest continuation.
        is_done: ends a continuation early, given its prompt's index and its tokens so far.
    """
    waiting = iter(enumerate(prompts))
    rows: list[_Row] = []
    ended: dict[int, list[int]] = {}
    due = 0
    while True:
        # A free row is filled at once, since lengths differ and small batches are slow.
        rows += (
            _Row(loaded.float_model, index, list(prompt), sampling, max_tokens)
            for index, prompt in islice(waiting, _BATCH - len(rows))
        )
        if not rows:
            return
        _step(loaded, rows, max_tokens, is_done)
        ended |= {row.index: row.out for row in rows if row.done}
        rows = [row for row in rows if not row.done]
        while due in ended:
            yield ended.pop(due)
            due += 1


class _Row:
    """One continuation in progress."""

    def __init__(
        self,
        model: CausalLM,
        index: int,
        prompt: list[int],
        sampling: SamplingParams,
        max_tokens: int,
    ) -> None:
        self.index = index
        self.sampling = replace(sampling, seed=sampling.seed + index)
        self.cache: KVCache = model.make_cache(len(prompt) + max_tokens)
        self.token_ids = prompt[:]
        looks_back = sampling.looks_back
        self.history = History(self.token_ids, len(prompt)) if looks_back else None
        self.todo = prompt
        self.start = 0
        self.out: list[int] = []
        self.done = False


def _step(
    loaded: LoadedModel,
    rows: list[_Row],
    max_tokens: int,
    is_done: Callable[[int, list[int]], bool],
) -> None:
    ids = torch.tensor([token for row in rows for token in row.todo])
    segments = [Segment(row.cache, row.start, len(row.todo)) for row in rows]
    last = torch.tensor([len(row.todo) for row in rows]).cumsum(0) - 1
    logits = loaded.model.logits(loaded.model.forward(ids, segments)[last])
    positions = [len(row.out) for row in rows]
    sampling, histories = [row.sampling for row in rows], [row.history for row in rows]
    tokens = sample(logits, sampling, positions, loaded.eos_token_ids, histories)
    for row, token in zip(rows, tokens, strict=True):
        row.start += len(row.todo)
        row.todo = [token]
        if token in loaded.eos_token_ids:
            row.done = True
        else:
            row.out.append(token)
            row.token_ids.append(token)
            row.done = len(row.out) == max_tokens or is_done(row.index, row.out)
