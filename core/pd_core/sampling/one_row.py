"""How one row's token is chosen: the definition, plain and slow.

`sampling` chooses many rows together and gives the same tokens. It comes back here for a row whose
choice is so close that only these very operations can decide it.
"""

import torch
from torch import Tensor

from pd_core.errors import EngineError
from pd_core.sampling.noise import gumbel, noise_key
from pd_core.sampling_params import SamplingParams

__all__ = ["check_largest", "choose_one"]


def choose_one(scores: Tensor, params: SamplingParams, position: int) -> int:
    """Return the token of one row.

    Args:
        scores: (V,), float64: logits after masks and the costs of repetition.
        params: of the request; forced_length and everything that looks back is not read.
        position: response position.

    Raises:
        EngineError: the row holds NaN or +inf, or no token is left to choose.
    """
    if params.greedy:
        return _lowest_argmax(scores)
    check_largest(scores.max())
    scores = scores / params.temperature
    ids = torch.arange(len(scores), device=scores.device)
    if 0 < params.top_k < len(scores) or params.top_p < 1.0 or params.min_p:
        ids = _kept(scores, params)
        scores = scores[ids]
    choice = _lowest_argmax(scores + gumbel(ids, noise_key(params.seed, position)))
    return int(ids[choice])


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
    check_largest(largest)
    return int((scores == largest).nonzero()[0])


def check_largest(largest: Tensor) -> None:
    """Refuse rows whose largest scores are not finite: (R,) or one value.

    Raises:
        EngineError: one is not.
    """
    finite = torch.isfinite(largest)
    if not finite.all():
        raise EngineError(
            f"the largest logit is {float(largest[~finite][0])}; the model computed nonsense, "
            "or every token is masked"
        )
