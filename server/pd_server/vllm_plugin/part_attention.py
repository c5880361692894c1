"""The unit layout's two kinds of cache owner: a part of a layer's attention, and a V unit."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig, get_current_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.utils.torch_utils import _encode_layer_name, get_dtype_size
from vllm.v1.kv_cache_interface import FullAttentionSpec

from pd_server.vllm_plugin.unit_backend import UnitBackend

__all__ = ["PartAttention", "ValueUnit"]


class ValueUnit(torch.nn.Module, AttentionLayerBase):
    """A cache unit that holds values and computes nothing.

    Args:
        prefix: its name among vLLM's layers; holds the layer's index.
        num_heads: query heads that read it; the same for all units of a model.
        num_kv_heads: heads it holds.
        head_dim: D.
        dtype: the cache's dtype.
    """

    def __init__(
        self, prefix: str, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self._num_kv_heads = num_kv_heads
        self._head_dim = head_dim
        self._dtype = dtype
        self.kv_cache = torch.tensor([])  # until vLLM binds the unit
        layers = get_current_vllm_config().compilation_config.static_forward_context
        assert prefix not in layers, f"two layers are called {prefix}"
        layers[prefix] = self

    def get_attn_backend(self) -> type[UnitBackend]:
        """Return the same backend as the parts', so that all units form one group."""
        return UnitBackend

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> FullAttentionSpec:
        """Return the unit's spec."""
        spec = FullAttentionSpec(
            block_size=vllm_config.cache_config.block_size,
            num_kv_heads=self._num_kv_heads,
            head_size=self._head_dim,
            dtype=self._dtype,
        )
        return _one_tensor(spec)


class PartAttention(Attention):
    """Attention of a part of a layer's heads. Its unit holds keys, `value_unit` the values.

    Args:
        num_heads: h, the query heads of the part.
        head_dim: D.
        num_kv_heads: u, the KV heads of the part: those of a unit.
        value_unit: holds the values; other parts may share it.
        prefix: its name among vLLM's layers; holds the layer's index.
        key_source: read this part's keys and own none (SkipV1-YOCO's upper layers).
        config: vLLM's.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        num_kv_heads: int,
        value_unit: ValueUnit,
        *,
        prefix: str,
        key_source: "PartAttention | None",
        config: VllmConfig,
    ) -> None:
        super().__init__(
            num_heads,
            head_dim,
            head_dim**-0.5,
            num_kv_heads=num_kv_heads,
            cache_config=config.cache_config,
            prefix=prefix,
            attn_backend=UnitBackend,
            kv_sharing_target_layer_name=None if key_source is None else key_source.layer_name,
        )
        # A plain reference, because a submodule would be registered under two names.
        object.__setattr__(self, "value_unit", value_unit)

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> FullAttentionSpec:
        """Return the key unit's spec."""
        return _one_tensor(super().get_kv_cache_spec(vllm_config))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
        """Map query: (T, h * D), key and value: (T, u * D) to (T, h * D).

        With shared keys the parent writes nothing to the cache. Here the values must still be
        written, so both are; the keys are overwritten with the same bytes.
        """
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        name = _encode_layer_name(self.layer_name)
        query = query.view(-1, self.num_heads, self.head_size)
        key = key.view(-1, self.num_kv_heads, self.head_size)
        value = value.view(-1, self.num_kv_heads, self.head_size)
        written = torch.ops.vllm.unified_kv_cache_update(key, value, name)
        torch.ops.vllm.unified_attention_with_output(
            query,
            key,
            value,
            output.view(-1, self.num_heads, self.head_size),
            name,
            kv_cache_dummy_dep=written,
        )
        return output


def _one_tensor(spec: Any) -> FullAttentionSpec:
    """Shrink the spec of a page of K and V to a page of one of them.

    head_size_v stays: some metadata builders read it as the size of a value.
    """
    return replace(spec, state_content_bytes=spec.head_size * get_dtype_size(spec.dtype))
