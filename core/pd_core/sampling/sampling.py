"""Choosing tokens: the same function, and the same bits, on the cloud and on the device.

Sampling is keyed by position. The token at response position i is the argmax of
logit / temperature + Gumbel noise, where the noise of token t is an integer hash of (seed, i, t):
there is no generator whose state could differ between two sides. Everything after the logits is
float64, and each row is computed by itself, so a row's token never depends on its batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pd_core.errors import EngineError, InvalidSamplingParams
from pd_core.sampling.history import History
from pd_core.sampling.repetition import repetition_costs
from pd_core.sampling.splitmix import mixed, mixed_tensor, shifted, signed
from pd_core.sampling_params import SamplingParams

__all__ = ["SAMPLER_VERSION", "sample"]

# Part of the numerics id: raise it with every change that could change a token.
SAMPLER_VERSION = 2

_NEVER = float("-inf")


def sample(
    logits: Tensor,
    sampling: Sequence[SamplingParams],
    positions: Sequence[int],
    eos_token_ids: Sequence[int],
    histories: Sequence[History | None] | None = None,
) -> list[int]:
    """Choose one token per row.

    In this order: mask end-of-sequence ids if requested; repetition_penalty; subtract the costs of
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

    Raises:
        EngineError: a row holds NaN or +inf, or no token is left to choose.
        InvalidSamplingParams: forced_length is set, but the model has no end-of-sequence id.
    """
    assert len(logits) == len(sampling) == len(positions), "one row, parameters, position each"
    eos = list(eos_token_ids)
    known = histories if histories is not None else [None] * len(sampling)
    return [
        _sample_row(row, params, position, eos, history)
        for row, params, position, history in zip(logits, sampling, positions, known, strict=True)
    ]


def _sample_row(
    row: Tensor, params: SamplingParams, position: int, eos: list[int], history: History | None
) -> int:
    """Choose the token of one row: (V,)."""
    if params.forced_length is not None:
        if not eos:
            raise InvalidSamplingParams(
                "forced_length needs a model with an end-of-sequence token; leave it unset"
            )
        if position >= params.forced_length - 1:
            return eos[0]
    scores = row.double()
    if eos and (params.ignore_eos or params.forced_length is not None):
        scores = scores.index_fill(0, torch.tensor(eos, device=row.device), _NEVER)
    if params.looks_back:
        assert history is not None, "no history"
        scores = _with_costs(scores, params, history)
    if params.greedy:
        return _lowest_argmax(scores)
    _check(scores.max())
    ids = None
    scores = scores / params.temperature
    if 0 < params.top_k < len(scores) or params.top_p < 1.0 or params.min_p:
        ids = _kept(scores, params)
        scores = scores[ids]
    scores = scores + _gumbel(params.seed, position, ids, len(row), row.device)
    choice = _lowest_argmax(scores)
    return choice if ids is None else int(ids[choice])


def _with_costs(scores: Tensor, params: SamplingParams, history: History) -> Tensor:
    """Return the scores after everything that repetitions cost."""
    device = scores.device
    if params.repetition_penalty != 1.0:
        ids = torch.tensor(list(history.seen()), dtype=torch.int64, device=device)
        seen, penalty = scores[ids], params.repetition_penalty
        scores = scores.index_copy(0, ids, torch.where(seen < 0, seen * penalty, seen / penalty))
    if costs := repetition_costs(history, params):
        ids = torch.tensor(list(costs), dtype=torch.int64, device=device)
        off = torch.tensor(list(costs.values()), dtype=torch.float64, device=device)
        scores = scores.index_add(0, ids, -off)
    return scores


def _kept(scores: Tensor, params: SamplingParams) -> Tensor:
    """Return the ids that top-k, top-p and min-p keep, in rising order."""
    ids = torch.arange(len(scores), device=scores.device)
    if params.top_k or params.top_p < 1.0:
        falling, ids = torch.sort(scores, descending=True, stable=True)
        if params.top_k:
            falling, ids = falling[: params.top_k], ids[: params.top_k]
        if params.top_p < 1.0:
            before = torch.softmax(falling, 0).cumsum(0).roll(1)
            before[0] = 0.0  # the most likely token always stays
            ids = ids[before < params.top_p]
        ids = ids.sort().values
    if params.min_p:
        ids = ids[torch.exp(scores[ids] - scores.max()) >= params.min_p]
    return ids


def _lowest_argmax(scores: Tensor) -> int:
    """Return the lowest index of the largest value; torch.argmax does not define ties."""
    largest = scores.max()
    _check(largest)
    return int((scores == largest).nonzero()[0])


def _check(largest: Tensor) -> None:
    if not torch.isfinite(largest):
        raise EngineError(
            f"the largest logit is {float(largest)}; the model computed nonsense, "
            "or every token is masked"
        )


def _gumbel(
    seed: int, position: int, ids: Tensor | None, vocab_size: int, device: torch.device
) -> Tensor:
    """Return the standard Gumbel noise of the given ids (all: None), float64.

    The hash's upper 52 bits give a uniform value in (0, 1), offset by a half so that neither
    logarithm gets 0.
    """
    if ids is None:
        ids = torch.arange(vocab_size, device=device)
    key = mixed(mixed(seed) ^ position)
    bits = shifted(mixed_tensor(ids ^ signed(key)), 12)
    uniform = (bits.double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))
