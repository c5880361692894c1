"""Choosing tokens: the same function, and the same bits, on the cloud and on the device.

Sampling is keyed by position. The token at response position i is the argmax of
logit / temperature + Gumbel noise, where the noise of token t is an integer hash of (seed, i, t):
there is no generator whose state could differ between two sides. Everything after the logits is
float64. Rows are computed together, by what they ask for; a row's token never depends on its batch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pd_core.errors import InvalidSamplingParams
from pd_core.sampling.allowed import only_allowed
from pd_core.sampling.history import History
from pd_core.sampling.many_rows import (
    Filters,
    filtered_choices,
    greedy_choices,
    kept_choices,
    plain_choices,
)
from pd_core.sampling.noise import noise_key
from pd_core.sampling.one_row import choose_one
from pd_core.sampling.repetition import repetition_costs
from pd_core.sampling_params import SamplingParams

__all__ = ["SAMPLER_VERSION", "sample"]

# Part of the numerics id: raise it with every change that could change a token.
SAMPLER_VERSION = 2

_NEVER = float("-inf")
# How many logits of rows with noise are hashed at once on a CPU: what stays in a core's cache.
_CACHED = 1 << 17
_AT_ONCE = 1 << 24
_CANDIDATES = 128


class _Kind(Enum):
    GREEDY = "greedy"
    PLAIN = "plain"
    FILTERED = "filtered"


def sample(
    logits: Tensor,
    sampling: Sequence[SamplingParams],
    positions: Sequence[int],
    eos_token_ids: Sequence[int],
    histories: Sequence[History | None] | None = None,
    masks: Sequence[NDArray[np.int32] | None] | None = None,
) -> list[int]:
    """Choose one token per row.

    In this order: mask what the form does not allow, and end-of-sequence ids if requested or too
    early; add logit_bias and mask late_token_ids while it is too early for them;
    repetition_penalty; subtract the costs of
    presence, frequency and DRY; divide by the temperature; top-k keeps the k largest; top-p keeps
    the shortest prefix, in falling order of probability (renormalised after top-k), whose sum
    reaches top_p, including the token that crosses it; min-p drops those less likely than min_p
    times the most likely one; Gumbel-max among the kept tokens. Every tie, also at the edge of
    top-k and top-p, goes to the lowest id.

    Args:
        logits: (R, V), any float dtype; -inf for ids that must never be chosen.
        sampling: R parameters.
        positions: R response positions, from 0.
        eos_token_ids: the model's end-of-sequence ids; forced_length chooses the first.
        histories: R histories up to the position; needed only for rows whose parameters look back.
        masks: which tokens the form of each row's answer allows, as `only_allowed` takes them; None
            for rows without a form. Every parameter works among these.

    Raises:
        EngineError: a row holds NaN or +inf, or no token is left to choose.
        InvalidSamplingParams: forced_length is set, but the model has no end-of-sequence id.
    """
    assert len(logits) == len(sampling) == len(positions), "one row, parameters, position each"
    assert histories is None or len(histories) == len(sampling), "one history each"
    masks = masks or [None] * len(sampling)
    assert len(masks) == len(sampling), "one mask each"
    eos = list(eos_token_ids)
    tokens = [-1] * len(sampling)
    alike: dict[tuple[_Kind, bool, bool], list[int]] = defaultdict(list)
    for row, (params, position) in enumerate(zip(sampling, positions, strict=True)):
        if _is_forced(params, position, eos):
            tokens[row] = eos[0]
        else:
            formed = masks[row] is not None
            adjusted = params.looks_back or bool(params.logit_bias) or _holds_back(params, position)
            alike[_kind(params, logits.shape[1]), adjusted, formed].append(row)
    for (kind, adjusted, formed), rows in alike.items():
        for part in _parts(rows, logits, _AT_ONCE):
            asked, at = [sampling[row] for row in part], [positions[row] for row in part]
            scores = _taken(logits, part)
            if formed:
                scores = only_allowed(scores, [m for row in part if (m := masks[row]) is not None])
            scores = _without_eos(scores, asked, at, eos)
            if adjusted:
                told = [None if histories is None else histories[row] for row in part]
                scores = _with_costs(_biased(scores, asked, at), asked, told)
            for row, token in zip(part, _chosen(kind, scores, asked, at), strict=True):
                tokens[row] = token
    return tokens


def _is_forced(params: SamplingParams, position: int, eos: list[int]) -> bool:
    """Whether the token is the end of sequence, whatever the logits."""
    if params.forced_length is None:
        return False
    if not eos:
        raise InvalidSamplingParams(
            "forced_length needs a model with an end-of-sequence token; leave it unset"
        )
    return position >= params.forced_length - 1


def _kind(params: SamplingParams, vocab_size: int) -> _Kind:
    if params.greedy:
        return _Kind.GREEDY
    filters = 0 < params.top_k < vocab_size or params.top_p < 1.0 or params.min_p > 0.0
    return _Kind.FILTERED if filters else _Kind.PLAIN


def _parts(rows: list[int], logits: Tensor, at_once: int) -> Iterator[list[int]]:
    """Cut rows into parts of at most that many logits, or of one row."""
    step = max(1, at_once // logits.shape[1])
    return (rows[first : first + step] for first in range(0, len(rows), step))


def _taken(tensor: Tensor, rows: list[int]) -> Tensor:
    """Return some rows, in rising order; a view where they stand together."""
    first, last = rows[0], rows[-1]
    return tensor[first : last + 1] if last - first < len(rows) else tensor[rows]


def _holds_back(params: SamplingParams, position: int) -> bool:
    """Whether ids of the request's own are masked at this position."""
    return position < params.min_tokens and bool(params.late_token_ids)


def _without_eos(
    scores: Tensor, params: list[SamplingParams], positions: list[int], eos: list[int]
) -> Tensor:
    """Return the scores with the end-of-sequence ids masked in the rows that ask for it."""
    asking = [
        p.ignore_eos or p.forced_length is not None or position < p.min_tokens
        for p, position in zip(params, positions, strict=True)
    ]
    if not eos or not any(asking):
        return scores
    at = torch.tensor(eos, device=scores.device)
    ask = torch.tensor(asking, device=scores.device)[:, None]
    return scores.index_copy(1, at, torch.where(ask, _NEVER, scores[:, at]))


def _biased(scores: Tensor, params: list[SamplingParams], positions: list[int]) -> Tensor:
    """Return the scores, float64 and a copy, with each row's bias and what it holds back masked."""
    scores = scores.double().clone()
    for row, one, position in zip(scores, params, positions, strict=True):
        if one.logit_bias:
            ids, bias = zip(*one.logit_bias, strict=True)
            at = torch.tensor(ids, dtype=torch.int64, device=row.device)
            row[at] += torch.tensor(bias, dtype=torch.float64, device=row.device)
        if _holds_back(one, position):
            row[torch.tensor(one.late_token_ids, dtype=torch.int64, device=row.device)] = _NEVER
    return scores


def _with_costs(
    scores: Tensor, params: list[SamplingParams], histories: list[History | None]
) -> Tensor:
    """Return the scores, changed in place, after everything that repetitions cost."""
    for row, one, history in zip(scores, params, histories, strict=True):
        if not one.looks_back:
            continue
        assert history is not None, "no history"
        if one.repetition_penalty != 1.0:
            ids = torch.tensor(list(history.seen()), dtype=torch.int64, device=row.device)
            seen, penalty = row[ids], one.repetition_penalty
            row[ids] = torch.where(seen < 0, seen * penalty, seen / penalty)
        if costs := repetition_costs(history, one):
            ids = torch.tensor(list(costs), dtype=torch.int64, device=row.device)
            row[ids] -= torch.tensor(list(costs.values()), dtype=torch.float64, device=row.device)
    return scores


def _chosen(
    kind: _Kind, scores: Tensor, params: list[SamplingParams], positions: list[int]
) -> list[int]:
    """Return the tokens of rows of one kind."""
    if kind is _Kind.GREEDY:
        return [int(token) for token in greedy_choices(scores).tolist()]
    tokens = [-1] * len(params)

    def settle(choose: _Choose, at_once: int) -> None:
        left = [row for row, token in enumerate(tokens) if token < 0]
        for part in _parts(left, scores, at_once):
            noisy = _Noisy.of(scores, part, params, positions)
            for row, token in zip(part, choose(noisy).tolist(), strict=True):
                tokens[row] = token

    hashed = _CACHED if scores.device.type == "cpu" else _AT_ONCE
    if kind is _Kind.PLAIN:
        settle(_plain, hashed)
    else:
        settle(_among_candidates, _AT_ONCE)
        settle(_kept, hashed)
    for row, token in enumerate(tokens):
        if token < 0:
            tokens[row] = choose_one(scores[row].double(), params[row], positions[row])
    return tokens


class _Noisy(NamedTuple):
    """Rows with noise, as `many_rows` takes them."""

    rows: Tensor
    temperatures: Tensor
    keys: Tensor
    params: list[SamplingParams]

    @classmethod
    def of(
        cls, scores: Tensor, at: list[int], params: list[SamplingParams], positions: list[int]
    ) -> Self:
        rows, asked = _taken(scores, at), [params[row] for row in at]
        keys = [[noise_key(params[row].seed, positions[row])] for row in at]
        temperatures = torch.tensor([[p.temperature] for p in asked], dtype=torch.float64)
        temperatures = temperatures.to(scores.device)
        if rows.dtype == torch.float64:
            rows, temperatures = rows / temperatures, torch.ones_like(temperatures)
        return cls(rows, temperatures, torch.tensor(keys, device=scores.device), asked)

    @property
    def filters(self) -> Filters:
        asked = [(p.top_k, p.top_p, p.min_p) for p in self.params]
        return Filters(asked, self.rows.shape[1], self.rows.device)


_Choose = Callable[[_Noisy], Tensor]


def _plain(noisy: _Noisy) -> Tensor:
    return plain_choices(noisy.rows, noisy.temperatures, noisy.keys)


def _among_candidates(noisy: _Noisy) -> Tensor:
    return filtered_choices(noisy.rows, noisy.temperatures, noisy.keys, noisy.filters, _CANDIDATES)


def _kept(noisy: _Noisy) -> Tensor:
    return kept_choices(noisy.rows, noisy.temperatures, noisy.keys, noisy.filters)
