"""Causal attention whose rows do not depend on the chunk they are computed in.

torch's CPU kernel picks its blocking by the number of queries and keys, so a query's bits change
with the chunk around it. Here every kernel call sees the same shape: tiles of a fixed number of
query rows (the query heads of one KV head are folded into the rows), keys padded to whole blocks
of 512. A masked key adds an exact zero, so the padding changes nothing. The kernel takes 512 keys
at a time, and the last block may be shorter: to lengths (`Numerics.key_steps`) of which the
numerics probe has found that they give the bits of a whole one. Tiles that need equally many keys
go through the kernel together, as its batch.

Legend: T tokens, G KV heads, g query heads per KV head, D head dim, N tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.kv_cache import KEY_BLOCK, Segment

__all__ = ["CausalMask", "HeadSource", "Pass", "PlainBatch", "TiledBatch", "tile_tokens"]

_TILE_ROWS = 8


def tile_tokens(group: int) -> int:
    """Tokens per tile when `group` query heads share a KV head."""
    return max(1, _TILE_ROWS // group)


class CausalMask:
    """All causal masks of all tiles, as views of one table; it grows with the context.

    Row r of a tile that starts at position p may see the keys up to p + r // group. So column x
    of the table stands for the key at p + x - centre, and each tile's mask is a window into it.

    Args:
        group: query heads per KV head.
        key_steps: lengths the last block of keys may have, rising, KEY_BLOCK last.
        dtype, device: of the model.
    """

    def __init__(
        self,
        group: int,
        key_steps: Sequence[int] = (KEY_BLOCK,),
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.tile_tokens = tile_tokens(group)
        self._key_steps = tuple(key_steps)
        self._group = group
        self.device = device
        self._dtype = dtype
        self._centre = 0
        self._table = torch.empty(0)

    def reserve(self, num_tokens: int) -> None:
        """Cover contexts of num_tokens; doubles, so that it seldom happens."""
        if num_tokens <= self._centre:
            return
        centre = max(num_tokens, 2 * self._centre, 4 * KEY_BLOCK)
        row = torch.arange(self.tile_tokens * self._group, device=self.device) // self._group
        column = torch.arange(2 * centre, device=self.device) - centre
        table = torch.zeros(row.numel(), column.numel(), dtype=self._dtype, device=self.device)
        self._table = table.masked_fill_(column > row[:, None], float("-inf"))
        self._centre = centre

    def padded_keys(self, num_keys: int) -> int:
        """Return how many keys the kernel is given for a tile that needs num_keys."""
        whole, rest = divmod(num_keys - 1, KEY_BLOCK)
        return whole * KEY_BLOCK + next(step for step in self._key_steps if step > rest)

    def window(self, last_tile_start: int, num_tiles: int, num_keys: int) -> Tensor:
        """Return (num_tiles, 1, rows, num_keys) for tiles in falling order of position."""
        rows, stride = self._table.shape[0], self._table.stride(0)
        return self._table.as_strided(
            (num_tiles, 1, rows, num_keys),
            (self.tile_tokens, 0, stride, 1),
            self._centre - last_tile_start,
        )


class HeadSource(NamedTuple):
    """What some of the KV heads read, sequence by sequence.

    Attributes:
        heads: which KV heads.
        keys, values: of each of the batch's segments, (heads, capacity, D), read in place.
    """

    heads: slice
    keys: Sequence[Tensor]
    values: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class _Run:
    """Tiles that lie together, are of one segment, and need the same number of keys.

    Attributes:
        segment: which.
        count: how many tiles, in falling order of position.
        num_keys: with the padding.
        mask: (count, 1, rows, num_keys).
    """

    segment: int
    count: int
    num_keys: int
    mask: Tensor


class TiledBatch:
    """Attention of a ragged batch in fixed tiles; planned once, used by every layer.

    Args:
        mask: the model's masks.
        segments: of each segment the position of its first token, and how many tokens it has.
    """

    def __init__(self, mask: CausalMask, segments: Sequence[tuple[int, int]]) -> None:
        self._tile = mask.tile_tokens
        mask.reserve(max(start + n for start, n in segments) + self._tile + KEY_BLOCK)
        self._runs: list[_Run] = []
        token_of_place: list[int] = []  # which token stands in a place of a tile
        place_of_token: list[int] = []
        row = 0
        for index, (start, num_tokens) in enumerate(segments):
            self._runs += reversed(list(self._plan(mask, index, start, num_tokens)))
            num_tiles = -(-num_tokens // self._tile)
            first_place = len(token_of_place)
            for tile in reversed(range(num_tiles)):  # the last tile first, as its mask lies
                for token in range(tile * self._tile, (tile + 1) * self._tile):
                    # A place past the end holds some token again, and its result is nobody's.
                    token_of_place.append(row + min(token, num_tokens - 1))
            for token in range(num_tokens):
                tile, rest = divmod(token, self._tile)
                place = (num_tiles - 1 - tile) * self._tile + rest
                place_of_token.append(first_place + place)
            row += num_tokens
        self._token_of_place = torch.tensor(token_of_place, device=mask.device)
        self._place_of_token = torch.tensor(place_of_token, device=mask.device)

    def _plan(self, mask: CausalMask, segment: int, start: int, num_tokens: int) -> Iterator[_Run]:
        """Yield a segment's runs from its front to its back."""
        tile, last = self._tile, start + num_tokens
        num_tiles = -(-num_tokens // tile)
        first = 0
        while first < num_tiles:
            num_keys = mask.padded_keys(min(start + (first + 1) * tile, last))
            # The last tile may hold fewer tokens than a whole one: count its real end.
            fitting = (num_keys - start) // tile if num_keys < last else num_tiles
            end = max(first + 1, fitting)
            window = mask.window(start + (end - 1) * tile, end - first, num_keys)
            yield _Run(segment, end - first, num_keys, window)
            first = end

    def attend(self, q: Tensor, sources: Sequence[HeadSource]) -> Tensor:
        """Mix values by queries q: (T, G, g, D) to (T, G * g * D); sources cover the KV heads."""
        _, kv_heads, group, dim = q.shape
        places = q[self._token_of_place].view(-1, self._tile, kv_heads, group, dim)
        tiles = places.transpose(1, 2).reshape(-1, kv_heads, self._tile * group, dim)
        counts = [run.count for run in self._runs]
        mixed = []
        for source in sources:
            parts = zip(self._runs, torch.split(tiles[:, source.heads], counts), strict=True)
            mixed.append(torch.cat([_mix(run, part, source) for run, part in parts]))
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
        rows = whole.view(-1, kv_heads, self._tile, group, dim).transpose(1, 2)
        return rows.reshape(-1, kv_heads * group * dim)[self._place_of_token]


def _mix(run: _Run, tiles: Tensor, source: HeadSource) -> Tensor:
    """Attend tiles: (N, heads, rows, D) of one run to their sequence."""
    count, mask = run.count, run.mask
    keys = source.keys[run.segment][None, :, : run.num_keys]
    values = source.values[run.segment][None, :, : run.num_keys]
    # The kernel runs its tiles in parallel, each with single-threaded products; but a lone tile of
    # a lone head it hands to threaded ones, whose bits differ. So double that.
    if count * tiles.shape[1] == 1 and torch.get_num_threads() > 1:
        count = 2
    if count > 1:
        shape = (count, -1, -1, -1)
        tiles, mask = tiles.expand(*shape), mask.expand(*shape)
        keys, values = keys.expand(*shape), values.expand(*shape)
    mixed = F.scaled_dot_product_attention(tiles, keys, values, attn_mask=mask)
    return mixed[: run.count]


class PlainBatch:
    """Attention of each segment by one kernel call: faster, and not bit-reproducible.

    Args:
        segments: as for `TiledBatch`.
        dtype, device: of the model.
    """

    def __init__(
        self, segments: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._lengths = [num_tokens for _, num_tokens in segments]
        self._ends = [start + num_tokens for start, num_tokens in segments]
        self._masks = [_added_mask(start, n, dtype, device) for start, n in segments]

    def attend(self, q: Tensor, sources: Sequence[HeadSource]) -> Tensor:
        """Mix values by queries q: (T, G, g, D) to (T, G * g * D); sources cover the KV heads."""
        out = torch.empty_like(q)
        results = torch.split(out, self._lengths)
        for index, queries in enumerate(torch.split(q, self._lengths)):
            end = self._ends[index]
            for source in sources:
                tiles = queries[:, source.heads].permute(2, 1, 0, 3)  # (g, heads, T, D)
                shape = (tiles.shape[0], -1, -1, -1)
                mixed = F.scaled_dot_product_attention(
                    tiles,
                    source.keys[index][None, :, :end].expand(*shape),
                    source.values[index][None, :, :end].expand(*shape),
                    attn_mask=self._masks[index],
                )
                results[index][:, source.heads] = mixed.permute(2, 1, 0, 3)
        return out.flatten(1)


def _added_mask(
    start: int, num_tokens: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Return what is added to scores, (num_tokens, keys); None for a lone token, which sees all."""
    if num_tokens == 1:
        return None
    # Of a mask of booleans every call would make one of these.
    end = start + num_tokens
    future = torch.arange(end, device=device) > torch.arange(start, end, device=device)[:, None]
    mask = torch.zeros(num_tokens, end, dtype=dtype, device=device)
    return mask.masked_fill_(future, float("-inf"))


class Pass(NamedTuple):
    """What the layers share while one batch goes through them.

    Attributes:
        segments: the batch's, in the order of its rows.
        attention: how their queries meet keys and values.
        cos, sin: of the rows' positions.
    """

    segments: Sequence[Segment]
    attention: TiledBatch | PlainBatch
    cos: Tensor
    sin: Tensor
