"""A SkipV1 layer's attention over the paged cache, in either of two layouts.

Legend: T tokens, H query heads, G KV heads, K of them with own values, D head dim, all of one rank.
"""

from enum import StrEnum
from typing import Self

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype

from pd_server.vllm_plugin.head_units import HeadUnits
from pd_server.vllm_plugin.part_attention import PartAttention, ValueUnit

__all__ = ["KVLayout", "NaiveAttention", "UnitAttention"]


class KVLayout(StrEnum):
    """How SkipV1 layers are stored in the paged cache."""

    UNIT = "unit"  # one page is one tensor of a unit's heads: the saving is real
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
        """Map q: (T, H * D), k: (T, G * D), own values: (T, K * D), shared ones the rest."""
        out: Tensor = self.attn(q, k, torch.cat((own, shared), dim=-1))
        return out


class UnitAttention(torch.nn.Module):
    """Parts of a unit's heads, each with a key unit; values are in own units and in shared ones.

    Args:
        num_heads: H.
        num_kv_heads: G.
        head_dim: D.
        units: how many of the parts have values of their own, and how many the first layer's.
        first: the first layer's, which owns the shared values; None: this is the first.
        key_source: the layer whose keys to read instead of own ones (SkipV1-YOCO's upper layers).
        prefix: the layer's name.
        config: vLLM's.
    """

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        units: HeadUnits,
        first: Self | None,
        key_source: Self | None,
        prefix: str,
        config: VllmConfig,
    ) -> None:
        super().__init__()
        self._units = units
        heads, kv_heads = num_heads // units.total, num_kv_heads // units.total
        dtype = kv_cache_dtype_str_to_dtype(config.cache_config.cache_dtype, config.model_config)

        def value_units(name: str, count: int) -> list[ValueUnit]:
            return [
                ValueUnit(f"{prefix}.{name}_values{i}", heads, kv_heads, head_dim, dtype)
                for i in range(count)
            ]

        own_values = value_units("own", units.own)
        # Lists, because submodules would be registered again in every layer.
        self.shared_values: list[ValueUnit] = (
            value_units("shared", units.shared) if first is None else first.shared_values
        )
        self.parts = torch.nn.ModuleList(
            PartAttention(
                heads,
                head_dim,
                kv_heads,
                values,
                prefix=f"{prefix}.part{i}",
                key_source=None if key_source is None else key_source.part(i),
                config=config,
            )
            for i, values in enumerate([*own_values, *self.shared_values])
        )

    def part(self, index: int) -> PartAttention:
        """Return the attention of one unit's heads."""
        found = self.parts[index]
        assert isinstance(found, PartAttention), "the parts are attention"
        return found

    def forward(self, q: Tensor, k: Tensor, own: Tensor, shared: Tensor) -> Tensor:
        """Map q: (T, H * D), k: (T, G * D), own values: (T, K * D), shared ones the rest."""
        units = self._units
        values = (*own.chunk(units.own, dim=-1), *shared.chunk(units.shared, dim=-1))
        queries, keys = q.chunk(units.total, dim=-1), k.chunk(units.total, dim=-1)
        return torch.cat(
            [part(*its) for part, *its in zip(self.parts, queries, keys, values, strict=True)],
            dim=-1,
        )
