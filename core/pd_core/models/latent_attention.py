"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), and SkipV1-MLA.

A token caches one row: its latent after the norm, and one rotated key for all heads. Queries are
mapped into the latent space and results out of it, so the cache is read in place and keys and
values are never materialised.

In SkipV1-MLA (arXiv 2510.16807) all layers but the first compute and normalise a part of a latent,
half of it unless the config says otherwise; the rest is the upper part of the first layer's, as
cached after that layer's norm over the whole latent. Keys and values come from both together; the
rotated key is each layer's own.

Legend: T tokens, H heads, C latent, N unrotated, D rotated and E value elements of a head, S keys.
"""

import torch
from torch import Tensor

from pd_core.models.attention import Pass
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KEY_BLOCK, KVCache, Segment
from pd_core.models.latent_shape import LatentShape
from pd_core.models.linear import Placement, add_linear, linear
from pd_core.models.norm import RMSNorm
from pd_core.models.rope import rotate_pairs

__all__ = ["LatentAttention"]

_LATENT_EPS = 1e-6  # DeepSeek-V2 uses this, whatever the config says
# Elements of scores held at once: a megabyte of float32 stays in a core's cache from the product
# that computes them to the one that uses them. Rows do not depend on how they are cut.
_SCORES = 1 << 18


class LatentAttention(torch.nn.Module):
    """MLA without compressed queries, in its absorbed form."""

    def __init__(
        self, config: ModelConfig, latent: LatentShape, index: int, placement: Placement
    ) -> None:
        super().__init__()
        self._index = index
        self._numerics = placement.numerics
        self._latent = latent
        self._heads, self._dim = config.num_heads, config.head_dim
        self._own = config.own_rank(index)
        self._hidden = config.hidden_size
        bias = config.attention_bias
        hidden, heads = config.hidden_size, config.num_heads
        query_dim = latent.nope_dim + config.head_dim
        made_dim = latent.nope_dim + latent.value_dim
        self._scale = float(query_dim) ** -0.5
        self.q_proj = placement.linear(hidden, heads * query_dim, bias=False)
        self.kv_a_proj = placement.linear(hidden, self._own + config.head_dim, bias=bias)
        self.kv_a_norm = RMSNorm(self._own, _LATENT_EPS, placement.dtype, placement.device)
        self.kv_b_proj = placement.linear(latent.kv_rank, heads * made_dim, bias=False)
        self.o_proj = placement.linear(heads * latent.value_dim, hidden, bias=bias)

    def forward(self, x: Tensor, batch: Pass) -> Tensor:
        """Map x: (T, hidden) to (T, hidden), writing this layer's rows of the cache."""
        carried, rotated = self._queries(x, batch)
        made = self.kv_a_proj(x)
        key = rotate_pairs(made[:, None, self._own :], batch.cos, batch.sin)[:, 0]
        rows_made = torch.cat((self.kv_a_norm(made[:, : self._own]), key), dim=-1)
        out = x.new_zeros(x.shape[0], self._heads, self._latent.kv_rank)
        row = 0
        for segment in batch.segments:
            rows = slice(row, row + segment.num_tokens)
            places = slice(segment.start, segment.start + segment.num_tokens)
            segment.cache.keys[self._index][0, places] = rows_made[rows]
            out[rows] = self._attend(carried[rows], rotated[rows], segment)
            row = rows.stop
        mixed: Tensor = self.o_proj(self._out_of_latent(out))
        return mixed

    def products(self, x: Tensor, batch: Pass) -> Tensor:
        """Return the scaled products (H, T, S) of one segment's queries with all S cached rows.

        Args:
            x: (T, hidden), as in `forward`; the segment's own rows must be cached already.
            batch: a pass with that segment alone.
        """
        (segment,) = batch.segments
        num_keys = segment.start + segment.num_tokens
        cached, own = segment.cache.keys, self._own
        rows = cached[self._index][0, :num_keys]
        skipped = cached[0][0, :num_keys, own : self._latent.kv_rank]
        keys = torch.cat((rows[:, :own], skipped, rows[:, own:]), dim=-1)
        queries = torch.cat(self._queries(x, batch), dim=-1)[: segment.num_tokens]
        products: Tensor = torch.einsum("thc,sc->hts", queries, keys) * self._scale
        return products

    def _queries(self, x: Tensor, batch: Pass) -> tuple[Tensor, Tensor]:
        """Compute queries in two parts: in the latent space, (T, H, C), and rotated, (T, H, D)."""
        q = self.q_proj(x).view(x.shape[0], self._heads, -1)
        rotated = rotate_pairs(q[..., self._latent.nope_dim :], batch.cos, batch.sin)
        return self._into_latent(q[..., : self._latent.nope_dim]), rotated

    def _made_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights that map a latent to keys, (H, N, C), and to values, (H, E, C)."""
        weight = self.kv_b_proj.weight.view(self._heads, -1, self._latent.kv_rank)
        return weight[:, : self._latent.nope_dim], weight[:, self._latent.nope_dim :]

    def _into_latent(self, q: Tensor) -> Tensor:
        """Map queries (T, H, N) into the latent space, (T, H, C)."""
        keys, _ = self._made_weights()
        parts = [linear(q[:, h], keys[h].T, None, self._numerics) for h in range(self._heads)]
        return torch.stack(parts, dim=1)

    def _out_of_latent(self, mixed: Tensor) -> Tensor:
        """Map mixed latents (T, H, C) to values (T, H * E)."""
        _, values = self._made_weights()
        parts = [linear(mixed[:, h], values[h], None, self._numerics) for h in range(self._heads)]
        return torch.cat(parts, dim=-1)

    def _attend(self, carried: Tensor, rotated: Tensor, segment: Segment) -> Tensor:
        """Mix one sequence's latents by its queries, (T, H, C) and (T, H, D), to (T, H, C).

        Tokens that need the same number of key blocks go together, so that the length of a token's
        sums does not depend on its chunk.
        """
        out = torch.empty_like(carried)
        start, end = segment.start, segment.start + segment.num_tokens
        while start < end:
            num_keys = (start // KEY_BLOCK + 1) * KEY_BLOCK
            count = max(1, _SCORES // (num_keys * self._heads))
            stop = min(end, num_keys, start + count)
            part = slice(start - segment.start, stop - segment.start)
            out[part] = self._mix(carried[part], rotated[part], segment.cache, start, num_keys)
            start = stop
        return out

    def _mix(
        self, carried: Tensor, rotated: Tensor, cache: KVCache, start: int, num_keys: int
    ) -> Tensor:
        """Attend from consecutive tokens, the first at `start`, to num_keys cached rows."""
        tokens, own = carried.shape[0], self._own
        rows = cache.keys[self._index][0, :num_keys]  # (S, own + D)
        skipped = cache.keys[0][0, :num_keys, own : self._latent.kv_rank]  # (S, C - own)
        queries = torch.cat((carried[..., :own], rotated), dim=-1).flatten(0, 1)
        scores = linear(queries * self._scale, rows, None, self._numerics)  # (T * H, S)
        if own < self._latent.kv_rank:
            other = carried[..., own:].flatten(0, 1) * self._scale
            scores = add_linear(scores, other, skipped, self._numerics)
        # Keys before `start` need no mask: they are in the past of all these tokens.
        position = torch.arange(start, start + tokens, device=rows.device)
        future = torch.arange(start, num_keys, device=rows.device) > position[:, None]
        late = scores.view(tokens, self._heads, num_keys)[:, :, start:]
        late.masked_fill_(future[:, None], float("-inf"))
        weights = scores.softmax(-1)
        mixed = linear(weights, rows[:, :own].T, None, self._numerics)
        if own < self._latent.kv_rank:
            more = linear(weights, skipped.T, None, self._numerics)
            mixed = torch.cat((mixed, more), dim=-1)
        return mixed.view(tokens, self._heads, -1)

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors of this layer, by name."""
        named = {"kv_a_layernorm.weight": self.kv_a_norm.weight.data}
        for name, layer in (
            ("q_proj", self.q_proj),
            ("kv_a_proj_with_mqa", self.kv_a_proj),
            ("kv_b_proj", self.kv_b_proj),
            ("o_proj", self.o_proj),
        ):
            named |= layer.split({name: layer.out_features})
        return named
