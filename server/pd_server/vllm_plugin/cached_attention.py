"""A SkipV1 layer's attention over the paged cache, in either of two layouts.

Legend: T tokens, H query heads, G KV heads, D head dim, all of one rank.
"""

from enum import StrEnum
from typing import Self

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype

from pd_server.vllm_plugin.half_attention import HalfAttention, ValueUnit

__all__ = ["KVLayout", "NaiveAttention", "UnitAttention"]


class KVLayout(StrEnum):
    """How SkipV1 layers are stored in the paged cache."""

    UNIT = "unit"  # one page is one tensor of half the KV heads: the saving is real
    NAIVE = "naive"  # every layer caches all its keys and values, shared ones too: no saving


class NaiveAttention(torch.nn.Module):
    """vLLM's own attention over whole keys and values: works on any backend, but saves nothing.

    Args:
        num_heads: H.
        num_kv_heads: G.
        head_dim: D.
        prefix: the layer's name.
        config: vLLM's.
    """

    def __init__(
        self, num_heads: int, num_kv_heads: int, head_dim: int, *, prefix: str, config: VllmConfig
    ) -> None:
        super().__init__()
        self.attn = Attention(
            num_heads,
            head_dim,
            head_dim**-0.5,
            num_kv_heads=num_kv_heads,
            cache_config=config.cache_config,
            prefix=f"{prefix}.attn",
        )

    def forward(self, q: Tensor, k: Tensor, own: Tensor, shared: Tensor) -> Tensor:
        """Map q: (T, H * D), k: (T, G * D), own and shared values: (T, G / 2 * D) to (T, H * D)."""
        out: Tensor = self.attn(q, k, torch.cat((own, shared), dim=-1))
        return out


class UnitAttention(torch.nn.Module):
    """Two half-layers, each with a key unit; values are in the layer's own and the shared unit.

    Args:
        num_heads: H.
        num_kv_heads: G.
        head_dim: D.
        first: the first layer's, which owns the shared values; None: this is the first.
        key_source: the layer whose keys to read instead of own ones (SkipV1-YOCO's upper layers).
        prefix: the layer's name.
        config: vLLM's.
    """

    shared_values: ValueUnit
    own: HalfAttention
    shared: HalfAttention

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        first: Self | None,
        key_source: Self | None,
        prefix: str,
        config: VllmConfig,
    ) -> None:
        super().__init__()
        heads, kv_heads = num_heads // 2, num_kv_heads // 2
        dtype = kv_cache_dtype_str_to_dtype(config.cache_config.cache_dtype, config.model_config)
        self.own_values = ValueUnit(f"{prefix}.own_values", heads, kv_heads, head_dim, dtype)
        shared_values = (
            ValueUnit(f"{prefix}.shared_values", heads, kv_heads, head_dim, dtype)
            if first is None
            else first.shared_values
        )
        # A plain reference, because a submodule would be registered again in every layer.
        object.__setattr__(self, "shared_values", shared_values)
        self.own = HalfAttention(
            heads,
            head_dim,
            kv_heads,
            self.own_values,
            prefix=f"{prefix}.own",
            key_source=None if key_source is None else key_source.own,
            config=config,
        )
        self.shared = HalfAttention(
            heads,
            head_dim,
            kv_heads,
            shared_values,
            prefix=f"{prefix}.shared",
            key_source=None if key_source is None else key_source.shared,
            config=config,
        )

    def forward(self, q: Tensor, k: Tensor, own: Tensor, shared: Tensor) -> Tensor:
        """Map q: (T, H * D), k: (T, G * D), own and shared values: (T, G / 2 * D) to (T, H * D)."""
        (q_own, q_shared), (k_own, k_shared) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)
        return torch.cat(
            (self.own(q_own, k_own, own), self.shared(q_shared, k_shared, shared)), dim=-1
        )
