"""One SkipV1 layer's attention in vLLM: projections, norms and RoPE around the cached attention.

Weights are ordered by the units of query and key heads, first those with own values, then those
with shared ones, so that tensor parallelism can cut each unit evenly. Legend: T tokens, H query
heads, G KV heads, K of them with own values, D head dim, all of one rank.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.rotary_embedding import get_rope

from pd_core.models import ModelConfig
from pd_server.vllm_plugin.cached_attention import KVLayout, NaiveAttention, UnitAttention
from pd_server.vllm_plugin.head_units import HeadUnits

__all__ = ["Shared", "SkipV1Attention"]


@dataclass(slots=True)
class Shared:
    """Keys and values of earlier layers that later layers use in one forward pass.

    Attributes:
        value: (T, (G - K) * D), the first layer's values that all later layers share.
        key: (T, G * D), the key source's keys after norm and RoPE (SkipV1-YOCO).
    """

    value: Tensor | None = None
    key: Tensor | None = None


class SkipV1Attention(torch.nn.Module):
    """Attention whose upper KV heads read the first layer's values.

    Args:
        config: the model's shape.
        index: the layer's index, from 0.
        earlier: the attention of the layers before this one, whose units it may read.
        layout: the cache's layout.
        vllm_config: vLLM's.
        prefix: the layer's name in the checkpoint.

    Raises:
        ModelError: tensor parallelism cannot cut the units evenly.
    """

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        earlier: Sequence[NaiveAttention | UnitAttention],
        layout: KVLayout,
        vllm_config: VllmConfig,
        prefix: str,
    ) -> None:
        super().__init__()
        tp = get_tensor_model_parallel_world_size()
        units = HeadUnits.of(config)
        units.check_ranks(tp)
        self._config, self._units = config, units
        self._own_width = units.own * units.heads // tp * config.head_dim
        self._is_first = index == 0
        self._is_key_source = index == config.skip_v1_k_source
        self._owns_keys = config.key_layer(index) == index
        dim = config.head_dim
        sizes = self._part_sizes(index)
        self._split = [sum(parts) // tp for parts in sizes.values()]
        self.qkv_proj = MergedColumnParallelLinear(
            config.hidden_size,
            [part for parts in sizes.values() for part in parts],
            bias=config.qkv_bias,
            prefix=f"{prefix}.qkv_proj",
        )
        self.o_proj = RowParallelLinear(
            config.num_heads * dim,
            config.hidden_size,
            bias=config.attention_bias,
            prefix=f"{prefix}.o_proj",
        )
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, eps=config.rms_norm_eps)
            if self._owns_keys:
                self.k_norm = RMSNorm(dim, eps=config.rms_norm_eps)
        self.rotary_emb = get_rope(
            dim,
            max_position=config.max_context_tokens,
            rope_parameters=vllm_config.model_config.hf_config.rope_parameters,
        )
        heads, kv_heads = config.num_heads // tp, config.num_kv_heads // tp
        self.attn: NaiveAttention | UnitAttention
        if layout is KVLayout.NAIVE:
            self.attn = NaiveAttention(heads, kv_heads, dim, prefix=prefix, config=vllm_config)
        else:
            lower = [attention for attention in earlier if isinstance(attention, UnitAttention)]
            self.attn = UnitAttention(
                heads,
                kv_heads,
                dim,
                units=units,
                first=lower[0] if index else None,
                key_source=None if self._owns_keys else lower[config.key_layer(index)],
                prefix=prefix,
                config=vllm_config,
            )

    def _part_sizes(self, index: int) -> dict[str, list[int]]:
        """Return the rows of each projection's units, over all ranks."""
        units, config = self._units, self._config
        kv_rows = units.heads * config.head_dim
        sizes = {"q_proj": units.total * [kv_rows * config.group]}
        if self._owns_keys:
            sizes["k_proj"] = units.total * [kv_rows]
        sizes["v_proj"] = (units.own if index else units.total) * [kv_rows]
        return sizes

    def forward(self, positions: Tensor, x: Tensor, shared: Shared) -> Tensor:
        """Map x: (T, hidden) to (T, hidden); the first layer and the key source fill `shared`."""
        qkv, _ = self.qkv_proj(x)
        q, k, v = self._project(qkv, positions, shared)
        if self._is_first:
            v, shared.value = v[..., : self._own_width], v[..., self._own_width :]
        if self._is_key_source:
            shared.key = k
        assert shared.value is not None, "the first layer comes first"
        out = self.attn(q, k, v, shared.value)
        mixed: Tensor
        mixed, _ = self.o_proj(out)
        return mixed

    def _project(
        self, qkv: Tensor, positions: Tensor, shared: Shared
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split into q, k and own v, normalised and rotated."""
        q, *k, v = torch.split(qkv, self._split, dim=-1)
        q = self._normed(q, "q_norm")
        if k:
            q, own = self.rotary_emb(positions, q, self._normed(k[0], "k_norm"))
            return q, own, v
        assert shared.key is not None, "the key source comes first"
        q, _ = self.rotary_emb(positions, q, None)
        return q, shared.key, v

    def _normed(self, heads: Tensor, name: str) -> Tensor:
        if not self._config.qk_norm:
            return heads
        by_head = heads.reshape(-1, self._config.head_dim)
        normed: Tensor = getattr(self, name)(by_head)
        return normed.view(heads.shape)

    def shards(self) -> Mapping[str, tuple[int, ...]]:
        """Return, for each fused projection, which parts of qkv_proj its rows fill, in order."""
        numbers = itertools.count()
        sizes = self._part_sizes(0 if self._is_first else 1)
        return {name: tuple(next(numbers) for _ in parts) for name, parts in sizes.items()}

    def output_columns(self, weight: Tensor) -> Tensor:
        """Reorder o_proj's columns, (hidden, H * D), so that each rank's are unit by unit."""
        tp = get_tensor_model_parallel_world_size()
        return weight.view(weight.shape[0], self._units.total, tp, -1).transpose(1, 2).flatten(1)
