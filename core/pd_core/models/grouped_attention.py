"""Grouped attention with keys and values per head; SkipV1 layers read other layers' in place.

Legend: T tokens of a ragged batch, H query heads, G KV heads, g = H / G, D head dim.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.attention import CachedHeads, Pass
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache
from pd_core.models.linear import Placement
from pd_core.models.norm import RMSNorm
from pd_core.models.rope import rotate

__all__ = ["GroupedAttention"]


class GroupedAttention(torch.nn.Module):
    """MHA and GQA; q, k and v are fused into one matrix."""

    def __init__(self, config: ModelConfig, index: int, placement: Placement) -> None:
        super().__init__()
        self._config = config
        self._index = index
        hidden, dim = config.hidden_size, config.head_dim
        self._key_layer = config.key_layer(index)
        self._num_key_heads = config.num_key_heads(index)
        self._num_value_heads = config.num_value_heads(index)
        qkv_heads = config.num_heads + self._num_key_heads + self._num_value_heads
        self.qkv_proj = placement.linear(hidden, qkv_heads * dim, bias=config.qkv_bias)
        self.o_proj = placement.linear(config.num_heads * dim, hidden, bias=config.attention_bias)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            eps, dtype, device = config.rms_norm_eps, placement.dtype, placement.device
            self.q_norm = RMSNorm(dim, eps, dtype, device)
            if self._num_key_heads:
                self.k_norm = RMSNorm(dim, eps, dtype, device)

    def forward(self, x: Tensor, batch: Pass) -> Tensor:
        """Map x: (T, hidden) to (T, hidden), writing this layer's keys and values."""
        num_tokens = sum(segment.num_tokens for segment in batch.segments)
        q, k, v = self._project(x, batch)
        self._write(k, v, batch)
        mixed = batch.attention.attend(q[:num_tokens], self._sources(batch))
        out: Tensor = self.o_proj(F.pad(mixed, (0, 0, 0, x.shape[0] - num_tokens)))
        return out

    def _write(self, k: Tensor, v: Tensor, batch: Pass) -> None:
        """Cache the layer's own keys and values, (heads, T, D)."""
        row = 0
        for segment in batch.segments:
            rows = slice(row, row + segment.num_tokens)
            places = slice(segment.start, segment.start + segment.num_tokens)
            if self._num_key_heads:
                segment.cache.keys[self._index][:, places] = k[:, rows]
            segment.cache.values[self._index][:, places] = v[:, rows]
            row = rows.stop

    def _sources(self, batch: Pass) -> list[list[CachedHeads]]:
        """Return the keys and values that the heads read for each sequence, in place.

        In a SkipV1 layer the upper KV heads read the first layer's values; in the upper half of
        SkipV1-YOCO all heads read the source layer's keys.
        """
        return [self._cached_heads(segment.cache) for segment in batch.segments]

    def _cached_heads(self, cache: KVCache) -> list[CachedHeads]:
        values = cache.values_read(self._index)
        sizes = [parts.shape[0] * parts.shape[1] for parts in values]
        keys = torch.split(cache.keys[self._key_layer], sizes)
        return [
            CachedHeads(torch.unflatten(k, 0, v.shape[:2]), v)
            for k, v in zip(keys, values, strict=True)
        ]

    def products(self, x: Tensor, batch: Pass) -> Tensor:
        """Return the scaled products (H, T, S) of one segment's queries with all S cached keys.

        Args:
            x: (T, hidden), as in `forward`; the segment's own keys must be cached already.
            batch: a pass with that segment alone.
        """
        (segment,) = batch.segments
        q, _, _ = self._project(x, batch)
        keys = segment.cache.keys[self._key_layer][:, : segment.start + segment.num_tokens]
        products = torch.einsum("tghd,gsd->ghts", q[: segment.num_tokens], keys).flatten(0, 1)
        return products / math.sqrt(self._config.head_dim)

    def _project(self, x: Tensor, batch: Pass) -> tuple[Tensor, Tensor, Tensor]:
        """Make queries (T, G, g, D), and the layer's own keys and values, (heads, T, D)."""
        c = self._config
        heads = self.qkv_proj(x).view(x.shape[0], -1, c.head_dim)
        num_rotated = c.num_heads + self._num_key_heads
        rotated = rotate(self._normed(heads[:, :num_rotated]), batch.cos, batch.sin)
        q = rotated[:, : c.num_heads].view(-1, c.num_kv_heads, c.group, c.head_dim)
        return q, rotated[:, c.num_heads :].transpose(0, 1), heads[:, num_rotated:].transpose(0, 1)

    def _normed(self, heads: Tensor) -> Tensor:
        """Normalise queries and keys, (T, H + own key heads, D), if the family does so."""
        if self.q_norm is None:
            return heads
        q: Tensor = self.q_norm(heads[:, : self._config.num_heads])
        if self.k_norm is None:
            return q
        return torch.cat((q, self.k_norm(heads[:, self._config.num_heads :])), dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors of this layer, by name: views into the fused weights."""
        c, dim = self._config, self._config.head_dim
        norms = {"q_norm": self.q_norm, "k_norm": self.k_norm}
        named = {f"{name}.weight": n.weight.data for name, n in norms.items() if n is not None}
        qkv = {
            "q_proj": c.num_heads * dim,
            "k_proj": self._num_key_heads * dim,
            "v_proj": self._num_value_heads * dim,
        }
        named |= self.qkv_proj.split({name: rows for name, rows in qkv.items() if rows})
        return named | self.o_proj.split({"o_proj": c.hidden_size})
