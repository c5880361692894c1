"""How likely each token was, by the model alone.

The probabilities are those of the model's logits as they are: before logit_bias, masks, penalties,
temperature and filters. OpenAI reports the same, and vLLM calls it `raw_logprobs`. They need no
history, and are the same figures whatever the request asks of sampling.

Sums are float64 and the figures float32: what the order of a sum can change lies eight digits below
the last one shown. So two sides with equal logits report equal figures, however many rows they
compute together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pd_core.generation import TokenLogprobs
from pd_core.sampling.row_blocks import largest
from pd_core.sampling_params import SamplingParams

__all__ = ["asked_logprobs", "token_logprobs"]


def asked_logprobs(
    logits: Tensor, sampling: Sequence[SamplingParams], token_ids: Sequence[int]
) -> list[TokenLogprobs | None]:
    """Return what each row's request asks to know of its token; None where it asks nothing.

    Args:
        logits: (R, V), as the model made them.
        sampling: R parameters.
        token_ids: R tokens that were chosen.
    """
    told: list[TokenLogprobs | None] = [None] * len(sampling)
    asking = [row for row, params in enumerate(sampling) if params.logprobs is not None]
    if asking:
        counts = [sampling[row].logprobs or 0 for row in asking]
        rows = logits if len(asking) == len(sampling) else logits[asking]
        known = token_logprobs(rows, [token_ids[row] for row in asking], counts)
        for row, one in zip(asking, known, strict=True):
            told[row] = one
    return told


def token_logprobs(
    logits: Tensor, token_ids: Sequence[int], counts: Sequence[int]
) -> list[TokenLogprobs]:
    """Return how likely each row's token was, and its most likely ones.

    Args:
        logits: (R, V), any float dtype; -inf where there is no token.
        token_ids: R ids.
        counts: how many of the most likely ids to name, of each row; no more than V are named.
    """
    ids = torch.tensor(token_ids, dtype=torch.int64, device=logits.device)[:, None]
    sums = torch.cat([_log_sum(row) for row in logits])[:, None]
    own = (logits.gather(1, ids).double() - sums).float()[:, 0].tolist()
    if not max(counts):
        return [TokenLogprobs(logprob) for logprob in own]
    top_ids = _most_likely(logits, max(counts))
    top = (logits.gather(1, top_ids).double() - sums).float().tolist()
    return [
        TokenLogprobs(logprob, tuple(some[:count]), tuple(theirs[:count]))
        for logprob, some, theirs, count in zip(own, top_ids.tolist(), top, counts, strict=True)
    ]


def _log_sum(row: Tensor) -> Tensor:
    """Return log(sum(exp(row))) of (V,) as (1,), float64; a row at a time stays in the cache."""
    return torch.logsumexp(row.double(), 0, keepdim=True)


def _most_likely(logits: Tensor, count: int) -> Tensor:
    """Return the ids of each row's `count` largest logits, falling; of equals the lowest first."""
    values, ids = largest(logits, count)
    values, ids = values[:, :count], ids[:, :count]
    for row, (its_values, its_ids) in enumerate(zip(values, ids, strict=True)):
        # Which ones of several at the edge were found is not defined.
        edge = its_values == its_values[-1]
        lowest = (logits[row] == its_values[-1]).nonzero()[: int(edge.sum()), 0]
        its_ids[edge] = lowest
    return ids
