"""How likely each token of a prompt was: passes that keep all positions' logits for a moment."""

from collections.abc import Iterator, Sequence

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.generation import TokenLogprobs
from pd_core.models import Segment
from pd_core.sampling.logprobs import token_logprobs

__all__ = ["prompt_passes"]


def prompt_passes(
    loaded: LoadedModel, token_ids: Sequence[int], count: int, chunk_tokens: int
) -> Iterator[list[TokenLogprobs]]:
    """Yield what the model says of the tokens that follow each pass's; the first is left out.

    Args:
        loaded: the model.
        token_ids: the prompt.
        count: how many of the most likely ids to name at each position.
        chunk_tokens: tokens of one pass.
    """
    model = loaded.model
    cache = model.make_cache(len(token_ids))
    fed = token_ids[:-1]  # nothing of the prompt follows the last one
    for first in range(0, len(fed), chunk_tokens):
        chunk = list(fed[first : first + chunk_tokens])
        with torch.inference_mode():
            segment = Segment(cache, first, len(chunk))
            logits = model.logits(model.forward(torch.tensor(chunk), [segment]))
            following = token_ids[first + 1 : first + 1 + len(chunk)]
            told = token_logprobs(logits, following, [count] * len(chunk))
        yield told
