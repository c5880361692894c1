"""CPU attention with keys and values in two separate units of the paged cache.

vLLM's own layout keeps a layer's K and V in one page. Here a page, called a unit, is one tensor,
K or V, of as many KV heads as a unit has (u, see `head_units`): (num_blocks, u, block_size, D). All
units have the same spec, so
they share one cache group, one block table and one slot mapping, and prefix caching, preemption
and chunked prefill work as for any model.
"""

from typing import Any

from torch import Tensor
from vllm import _custom_ops as ops
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
)

__all__ = ["UnitBackend", "UnitImpl"]


class UnitBackend(CPUAttentionBackend):
    """vLLM's CPU backend, with `UnitImpl` for the work."""

    @staticmethod
    def get_impl_cls() -> type["UnitImpl"]:
        """Return the class that reads and writes the units."""
        return UnitImpl


class UnitImpl(CPUAttentionBackendImpl):
    """Calls the parent's kernels with the keys of one unit and the values of another."""

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attend from query: (T, h, D) to the layer's units; fill output, of the same shape."""
        if attn_metadata is None:  # vLLM is measuring its memory use
            return output
        values = _value_unit(layer, kv_cache)
        num_tokens = attn_metadata.num_actual_tokens
        ops.cpu_attention_with_kv_cache(
            query=query[:num_tokens],
            key_cache=kv_cache,
            value_cache=values,
            output=output[:num_tokens],
            query_start_loc=attn_metadata.query_start_loc,
            seq_lens=attn_metadata.seq_lens,
            scale=self.scale,
            causal=attn_metadata.causal,
            alibi_slopes=self.alibi_slopes,
            sliding_window=self.sliding_window,
            block_table=attn_metadata.block_table,
            softcap=self.logits_soft_cap,
            scheduler_metadata=attn_metadata.scheduler_metadata,
            s_aux=self.sinks,
            dynamic_causal=attn_metadata.dynamic_causal,
        )
        return output

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write key and value: (T, u, D) to their units.

        Every layer that shares a unit writes it again, with the same bytes, because the kernel
        always writes both tensors.
        """
        ops.cpu_attn_reshape_and_cache(
            key, value, kv_cache, _value_unit(layer, kv_cache), slot_mapping, layer.isa
        )


def _value_unit(layer: Any, keys: Tensor) -> Tensor:
    values: Tensor = layer.value_unit.kv_cache
    # The kernels use the keys' strides for both; unequal strides give wrong results and no error.
    assert values.stride() == keys.stride(), "key unit and value unit have different strides"
    return values
