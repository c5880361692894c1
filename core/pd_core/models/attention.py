"""Causal attention whose rows do not depend on the chunk they are computed in.

torch's CPU kernel picks its blocking by the number of queries and keys, so a query's bits change
with the chunk around it. Here every kernel call sees the same shape: tiles of a fixed number of
query rows (the query heads of one KV head are folded into the rows), keys padded to whole blocks
of 512. A masked key adds an exact zero, so the padding changes nothing. Tiles that need equally
many keys go through the kernel together, as its batch.

Legend: T tokens, G KV heads, g query heads per KV head, D head dim, N tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.kv_cache import KEY_BLOCK, Segment

__all__ = ["CausalMask", "Pass", "PlainSpan", "TiledSpan", "tile_tokens"]

_TILE_ROWS = 8


def tile_tokens(group: int) -> int:
    """Tokens per tile when `group` query heads share a KV head."""
    return max(1, _TILE_ROWS // group)


class CausalMask:
    """All causal masks of all tiles, as views of one table; it grows with the context.

    Row r of a tile that starts at position p may see the keys up to p + r // group. So column x
    of the table stands for the key at p + x - centre, and each tile's mask is a window into it.
    """

    def __init__(self, group: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.tile_tokens = tile_tokens(group)
        self._group = group
        self._dtype = dtype
        self._device = device
        self._centre = 0
        self._table = torch.empty(0)

    def reserve(self, num_tokens: int) -> None:
        """Cover contexts of num_tokens; doubles, so that it seldom happens."""
        if num_tokens <= self._centre:
            return
        centre = max(num_tokens, 2 * self._centre, 4 * KEY_BLOCK)
        row = torch.arange(self.tile_tokens * self._group, device=self._device) // self._group
        column = torch.arange(2 * centre, device=self._device) - centre
        table = torch.zeros(row.numel(), column.numel(), dtype=self._dtype, device=self._device)
        self._table = table.masked_fill_(column > row[:, None], float("-inf"))
        self._centre = centre

    def window(self, last_tile_start: int, num_tiles: int, num_keys: int) -> Tensor:
        """Return (num_tiles, 1, rows, num_keys) for tiles in falling order of position."""
        rows, stride = self._table.shape[0], self._table.stride(0)
        return self._table.as_strided(
            (num_tiles, 1, rows, num_keys),
            (self.tile_tokens, 0, stride, 1),
            self._centre - last_tile_start,
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """Tiles [first, end) in falling order of position, which need the same number of keys."""

    first: int
    end: int
    num_keys: int
    mask: Tensor


class TiledSpan:
    """Attention of one span of tokens in fixed tiles; planned once, used by every layer.

    Args:
        mask: the model's masks.
        start: position of the first token.
        num_tokens: tokens in the span.
    """

    def __init__(self, mask: CausalMask, start: int, num_tokens: int) -> None:
        self._num_tokens = num_tokens
        self._tile = mask.tile_tokens
        self._num_tiles = -(-num_tokens // self._tile)
        mask.reserve(start + self._num_tiles * self._tile + KEY_BLOCK)
        self._runs = tuple(self._plan(mask, start))

    def _plan(self, mask: CausalMask, start: int) -> Iterator[_Run]:
        """Yield runs from the front of the span to its back."""
        tile, last = self._tile, start + self._num_tokens
        first = 0
        while first < self._num_tiles:
            num_keys = -(-min(start + (first + 1) * tile, last) // KEY_BLOCK) * KEY_BLOCK
            # The last tile may hold fewer tokens than a whole one: count its real end.
            fitting = (num_keys - start) // tile if num_keys < last else self._num_tiles
            end = max(first + 1, fitting)
            window = mask.window(start + (end - 1) * tile, end - first, num_keys)
            yield _Run(self._num_tiles - end, self._num_tiles - first, num_keys, window)
            first = end

    def fold(self, q: Tensor) -> Tensor:
        """Arrange q: (T, G, g, D) as tiles (N, G, rows, D), the last tile first."""
        _, kv_heads, group, dim = q.shape
        q = F.pad(q, (0, 0, 0, 0, 0, 0, 0, self._num_tiles * self._tile - self._num_tokens))
        tiles = q.view(self._num_tiles, self._tile, kv_heads, group, dim).transpose(1, 2)
        return tiles.flip(0).reshape(self._num_tiles, kv_heads, self._tile * group, dim)

    def attend(self, tiles: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Fill out: (N, G, rows, D) from tiles of that shape, keys and values (G, capacity, D).

        Keys and values are read in place.
        """
        for run in self._runs:
            count = run.end - run.first
            # The kernel runs its tiles in parallel, each with single-threaded products; but a lone
            # tile of a lone head it hands to threaded ones, whose bits differ. So double that.
            lone = count * tiles.shape[1] == 1 and torch.get_num_threads() > 1
            shape = (2 if lone else count, -1, -1, -1)
            result = F.scaled_dot_product_attention(
                tiles[run.first : run.end].expand(*shape),
                keys[None, :, : run.num_keys].expand(*shape),
                values[None, :, : run.num_keys].expand(*shape),
                attn_mask=run.mask.expand(*shape),
            )
            out[run.first : run.end] = result[:count]

    def unfold(self, out: Tensor, group: int) -> Tensor:
        """Undo `fold`: (N, G, rows, D) to (T, G * g * D)."""
        num_tiles, kv_heads, _, dim = out.shape
        rows = out.flip(0).view(num_tiles, kv_heads, self._tile, group, dim).transpose(1, 2)
        return rows.reshape(num_tiles * self._tile, kv_heads * group * dim)[: self._num_tokens]


class PlainSpan:
    """Attention of one span by one kernel call: faster, and not bit-reproducible."""

    def __init__(
        self, start: int, num_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._end = start + num_tokens
        self._mask: Tensor | None = None
        if num_tokens > 1:
            # Added to scores: of a mask of booleans every call would make one of these.
            position = torch.arange(start, self._end, device=device)
            future = torch.arange(self._end, device=device) > position[:, None]
            mask = torch.zeros(num_tokens, self._end, dtype=dtype, device=device)
            self._mask = mask.masked_fill_(future, float("-inf"))

    def fold(self, q: Tensor) -> Tensor:
        """Arrange q: (T, G, g, D) as (g, G, T, D)."""
        return q.permute(2, 1, 0, 3)

    def attend(self, tiles: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Fill out: (g, G, T, D) from tiles of that shape, keys and values (G, capacity, D)."""
        shape = (tiles.shape[0], -1, -1, -1)
        out.copy_(
            F.scaled_dot_product_attention(
                tiles,
                keys[None, :, : self._end].expand(*shape),
                values[None, :, : self._end].expand(*shape),
                attn_mask=self._mask,
            )
        )

    def unfold(self, out: Tensor, group: int) -> Tensor:
        """Undo `fold`: (g, G, T, D) to (T, G * g * D)."""
        return out.permute(2, 1, 0, 3).reshape(out.shape[2], -1)


class Pass:
    """What the layers share while one batch goes through them."""

    def __init__(
        self, parts: Sequence[tuple[Segment, TiledSpan | PlainSpan]], cos: Tensor, sin: Tensor
    ) -> None:
        self.parts = parts
        self.cos = cos
        self.sin = sin
