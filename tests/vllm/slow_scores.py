"""Prompt scores computed the slow way, from the torch model's own hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pd_core.checkpoints.loading import LoadedModel
from pd_core.models import Segment
from pd_core.models.attention import Pass
from pd_core.models.grouped_attention import GroupedAttention
from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention, score_layer
from pd_core.models.rope import rotate

__all__ = ["expected_scores"]


def expected_scores(lm: LoadedModel, prompt: Sequence[int]) -> Tensor:
    """The definition, word for word: hidden states to queries and keys to attention."""
    index = score_layer(lm.model.config.num_layers, lm.model.config.skip_v1_k_source)
    attention = lm.float_model.layers[index].attention
    assert isinstance(attention, GroupedAttention)
    seen: list[tuple[Tensor, Pass]] = []
    hook = attention.register_forward_pre_hook(lambda _, given: seen.append(given))
    cache = lm.model.make_cache(len(prompt))
    with torch.inference_mode():
        lm.model.forward(torch.tensor(prompt), [Segment(cache, 0, len(prompt))])
        hook.remove()
        ((x, batch),) = seen
        config = lm.model.config
        heads = attention.qkv_proj(x).view(x.shape[0], -1, config.head_dim)
        num_rotated = config.num_heads + config.num_kv_heads
        rotated = rotate(attention._normed(heads[:, :num_rotated]), batch.cos, batch.sin)
        rotated = rotated[: len(prompt)]
        queries, keys = rotated[:, : config.num_heads], rotated[:, config.num_heads :]
        keys = keys.repeat_interleave(config.group, dim=1)
        window = queries[-min(SCORE_WINDOW, len(prompt)) :]
        products = torch.einsum("whd,nhd->hwn", window, keys) * config.head_dim**-0.5
        return mean_attention(products)
