"""One SkipV1 layer's attention in vLLM, in either layout of the KV cache.

Weights lie in half-layers' order, [own half | shared half] of query and key heads, so that tensor
parallelism can cut each half evenly. Legend: T tokens, H query heads, G KV heads, D head dim, all
of one rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.rotary_embedding import get_rope

from pd_core.errors import ModelError
from pd_core.models import ModelConfig
from pd_server.vllm_plugin.half_attention import HalfAttention, ValueUnit

__all__ = ["KVLayout", "Shared", "SkipV1Attention"]


class KVLayout(StrEnum):
    """How SkipV1 layers lie in the paged cache."""

    UNIT = "unit"  # one page is one tensor of half the KV heads: the saving is real
    NAIVE = "naive"  # every layer caches all its keys and values, shared ones too: no saving


@dataclass(slots=True)
class Shared:
    """What later layers take from earlier ones in one pass: keys and values just computed.

    Attributes:
        value: (T, G / 2 * D), the first layer's values that all later layers share.
        key: (T, G * D), the key source's keys after norm and RoPE (SkipV1-YOCO).
    """

    value: Tensor | None = None
    key: Tensor | None = None


class SkipV1Attention(torch.nn.Module):
    """Attention whose upper half of the KV heads reads the first layer's values.

    Args:
        config: the model's shape.
        index: the layer's, from 0.
        earlier: the layers before this one, whose units it may read.
        layout: of the cache.
        vllm_config: vLLM's.
        prefix: the layer's name in the checkpoint.

    Raises:
        ModelError: tensor parallelism cannot cut the halves evenly.
    """

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        earlier: "list[SkipV1Attention]",
        layout: KVLayout,
        vllm_config: VllmConfig,
        prefix: str,
    ) -> None:
        super().__init__()
        tp = get_tensor_model_parallel_world_size()
        if config.num_kv_heads // 2 % tp:
            raise ModelError(
                f"half of {config.num_kv_heads} KV heads cannot be cut into {tp} equal parts; "
                "lower --tensor-parallel-size"
            )
        self._config = config
        self._is_first = index == 0
        self._is_key_source = index == config.skip_v1_k_source
        self._owns_keys = config.key_layer(index) == index
        dim = config.head_dim
        self._q_size = config.num_heads // tp * dim
        self._k_size = config.num_kv_heads // tp * dim
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
        self._layout = layout
        heads, kv_heads = config.num_heads // tp, config.num_kv_heads // tp
        if layout is KVLayout.NAIVE:
            self.attn = Attention(
                heads,
                dim,
                dim**-0.5,
                num_kv_heads=kv_heads,
                cache_config=vllm_config.cache_config,
                prefix=f"{prefix}.attn",
            )
        else:
            self._make_halves(heads // 2, kv_heads // 2, index, earlier, vllm_config, prefix)

    def _part_sizes(self, index: int) -> dict[str, list[int]]:
        """Return the rows of each projection's halves, over all ranks."""
        config = self._config
        half_q = config.num_heads // 2 * config.head_dim
        half_kv = config.num_kv_heads // 2 * config.head_dim
        sizes = {"q_proj": [half_q, half_q]}
        if self._owns_keys:
            sizes["k_proj"] = [half_kv, half_kv]
        sizes["v_proj"] = [half_kv, half_kv] if index == 0 else [half_kv]
        return sizes

    def _make_halves(
        self,
        heads: int,
        kv_heads: int,
        index: int,
        earlier: "list[SkipV1Attention]",
        vllm_config: VllmConfig,
        prefix: str,
    ) -> None:
        dim = self._config.head_dim
        source = None if self._owns_keys else earlier[self._config.key_layer(index)]
        dtype = vllm_config.model_config.dtype
        own_unit = ValueUnit(f"{prefix}.v_own", heads, kv_heads, dim, dtype)
        if index == 0:
            shared_unit = ValueUnit(f"{prefix}.v_shared", heads, kv_heads, dim, dtype)
            self.v_shared = shared_unit
        else:
            shared_unit = earlier[0].v_shared
        self.v_own = own_unit
        self.own = HalfAttention(
            heads,
            dim,
            kv_heads,
            own_unit,
            prefix=f"{prefix}.own",
            key_source=None if source is None else source.own,
            config=vllm_config,
        )
        self.shared = HalfAttention(
            heads,
            dim,
            kv_heads,
            shared_unit,
            prefix=f"{prefix}.shared",
            key_source=None if source is None else source.shared,
            config=vllm_config,
        )

    def forward(self, positions: Tensor, x: Tensor, shared: Shared) -> Tensor:
        """Map x: (T, hidden) to (T, hidden); the first layer and the key source fill `shared`."""
        qkv, _ = self.qkv_proj(x)
        q, k, v = self._project(qkv, positions, shared)
        if self._is_first:
            v, shared.value = v.chunk(2, dim=-1)
        if self._is_key_source:
            shared.key = k
        assert shared.value is not None, "the first layer comes first"
        if self._layout is KVLayout.NAIVE:
            out = self.attn(q, k, torch.cat((v, shared.value), dim=-1))
        else:
            (q_own, q_shared), (k_own, k_shared) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)
            own = self.own(q_own, k_own, v)
            out = torch.cat((own, self.shared(q_shared, k_shared, shared.value)), dim=-1)
        mixed: Tensor
        mixed, _ = self.o_proj(out)
        return mixed

    def _project(
        self, qkv: Tensor, positions: Tensor, shared: Shared
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split into q, k and own v, normalised and rotated."""
        if self._owns_keys:
            q, k, v = qkv.split(self._split, dim=-1)
            k = self._normed(k, "k_norm")
        else:
            assert shared.key is not None, "the key source comes first"
            (q, v), k = qkv.split(self._split, dim=-1), None
        q, k = self.rotary_emb(positions, self._normed(q, "q_norm"), k)
        return q, shared.key if k is None else k, v

    def _normed(self, heads: Tensor, name: str) -> Tensor:
        if not self._config.qk_norm:
            return heads
        by_head = heads.reshape(-1, self._config.head_dim)
        normed: Tensor = getattr(self, name)(by_head)
        return normed.view(heads.shape)

    def shards(self) -> Mapping[str, tuple[int, ...]]:
        """Return, for each fused projection, which parts of qkv_proj its rows fill, in order."""
        numbers = iter(range(6))
        owned = ["q_proj", *(["k_proj"] if self._owns_keys else []), "v_proj"]
        halves = {"q_proj": 2, "k_proj": 2, "v_proj": 2 if self._is_first else 1}
        return {name: tuple(next(numbers) for _ in range(halves[name])) for name in owned}

    @staticmethod
    def output_columns(weight: Tensor) -> Tensor:
        """Reorder o_proj's columns, (hidden, H * D), so that each rank's are [own | shared]."""
        tp = get_tensor_model_parallel_world_size()
        return weight.unflatten(1, (2, tp, -1)).transpose(1, 2).flatten(1)
