"""One decoder layer: attention that reads the cache in place, and a gated MLP.

Legend: T tokens of a ragged batch, H query heads, G KV heads, g = H / G, D head dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pd_core.models.attention import PlainSpan, TiledSpan
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment
from pd_core.models.linear import ReproducibleLinear
from pd_core.models.rope import rotate
from pd_core.numerics import Numerics

__all__ = ["Layer", "Pass", "RMSNorm", "silu"]


class RMSNorm(torch.nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.empty(size, dtype=dtype, device=device), requires_grad=False
        )
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x over its last axis: (..., size)."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * (wide * scale).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) from operations whose last bits do not depend on the place in memory.

    torch's own SiLU treats the end of a buffer (and of each thread's share) by other code than
    the rest, and the two differ in the last bit; exp does not.
    """
    return x / (1 + torch.exp(-x))


class Pass:
    """What the layers share while one batch goes through them."""

    def __init__(
        self, parts: Sequence[tuple[Segment, TiledSpan | PlainSpan]], cos: Tensor, sin: Tensor
    ) -> None:
        self.parts = parts
        self.cos = cos
        self.sin = sin


class Layer(torch.nn.Module):
    """One decoder layer; q, k, v and gate, up are fused into one matrix each."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        numerics: Numerics,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._config = config
        self._index = index
        hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
        self._key_layer = config.key_layer(index)
        self._num_key_heads = config.num_key_heads(index)
        self._num_value_heads = config.num_value_heads(index)
        qkv_heads = config.num_heads + self._num_key_heads + self._num_value_heads

        def linear(in_features: int, out_features: int, bias: bool) -> ReproducibleLinear:
            return ReproducibleLinear(
                in_features, out_features, bias=bias, numerics=numerics, dtype=dtype, device=device
            )

        self.input_norm = RMSNorm(hidden, config.rms_norm_eps, dtype, device)
        self.qkv_proj = linear(hidden, qkv_heads * dim, config.qkv_bias)
        self.o_proj = linear(config.num_heads * dim, hidden, config.attention_bias)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps, dtype, device)
            if self._num_key_heads:
                self.k_norm = RMSNorm(dim, config.rms_norm_eps, dtype, device)
        self.post_attention_norm = RMSNorm(hidden, config.rms_norm_eps, dtype, device)
        self.gate_up_proj = linear(hidden, 2 * inner, config.mlp_bias)
        self.down_proj = linear(inner, hidden, config.mlp_bias)

    def forward(self, x: Tensor, batch: Pass) -> Tensor:
        """Map x: (T, hidden) to (T, hidden), writing this layer's keys and values."""
        x = x + self.o_proj(self._attend(self.input_norm(x), batch))
        gate, up = self.gate_up_proj(self.post_attention_norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down_proj(silu(gate) * up)
        return out

    def _attend(self, x: Tensor, batch: Pass) -> Tensor:
        """Return the heads' outputs, (T, H * D)."""
        c = self._config
        heads = self.qkv_proj(x).view(x.shape[0], -1, c.head_dim)
        num_rotated = c.num_heads + self._num_key_heads
        rotated = rotate(self._normed(heads[:, :num_rotated]), batch.cos, batch.sin)
        q = rotated[:, : c.num_heads].view(-1, c.num_kv_heads, c.group, c.head_dim)
        k = rotated[:, c.num_heads :].transpose(0, 1)  # (G, T, D)
        v = heads[:, num_rotated:].transpose(0, 1)
        out = torch.zeros(x.shape[0], c.num_heads * c.head_dim, dtype=x.dtype, device=x.device)
        row = 0
        for segment, span in batch.parts:
            rows = slice(row, row + segment.num_tokens)
            places = slice(segment.start, segment.start + segment.num_tokens)
            if self._num_key_heads:
                segment.cache.keys[self._index][:, places] = k[:, rows]
            segment.cache.values[self._index][:, places] = v[:, rows]
            out[rows] = self._attend_span(q[rows], segment.cache, span)
            row = rows.stop
        return out

    def _normed(self, heads: Tensor) -> Tensor:
        """Normalise queries and keys, (T, H + own key heads, D), where the family does so."""
        if self.q_norm is None:
            return heads
        q: Tensor = self.q_norm(heads[:, : self._config.num_heads])
        if self.k_norm is None:
            return q
        return torch.cat((q, self.k_norm(heads[:, self._config.num_heads :])), dim=1)

    def _attend_span(self, q: Tensor, cache: KVCache, span: TiledSpan | PlainSpan) -> Tensor:
        """Attend q: (T, G, g, D) to one sequence's cache; (T, H * D).

        In a SkipV1 layer the upper half of the KV heads reads the first layer's values in place;
        in the upper half of SkipV1-YOCO all heads read the source layer's keys in place.
        """
        tiles = span.fold(q)
        out = torch.empty_like(tiles)
        keys, values = cache.keys[self._key_layer], cache.values[self._index]
        own = self._num_value_heads
        span.attend(tiles[:, :own], keys[:own], values, out[:, :own])
        if own < tiles.shape[1]:
            span.attend(tiles[:, own:], keys[own:], cache.values[0][own:], out[:, own:])
        return span.unfold(out, self._config.group)

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors of this layer, by name: views into the fused weights."""
        c, dim = self._config, self._config.head_dim
        norms = {
            "input_layernorm": self.input_norm,
            "post_attention_layernorm": self.post_attention_norm,
            "self_attn.q_norm": self.q_norm,
            "self_attn.k_norm": self.k_norm,
        }
        named = {f"{name}.weight": n.weight.data for name, n in norms.items() if n is not None}
        qkv = {
            "self_attn.q_proj": c.num_heads * dim,
            "self_attn.k_proj": self._num_key_heads * dim,
            "self_attn.v_proj": self._num_value_heads * dim,
        }
        inner = c.intermediate_size
        for fused, parts in (
            (self.qkv_proj, {name: rows for name, rows in qkv.items() if rows}),
            (self.o_proj, {"self_attn.o_proj": c.hidden_size}),
            (self.gate_up_proj, {"mlp.gate_proj": inner, "mlp.up_proj": inner}),
            (self.down_proj, {"mlp.down_proj": c.hidden_size}),
        ):
            named |= fused.split(parts)
        return named
