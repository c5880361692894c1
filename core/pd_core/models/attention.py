"""Causal attention whose rows do not depend on the chunk they are computed in.

torch's CPU kernel picks its blocking by the number of queries and keys, so a query's bits change
with the chunk around it. Here every kernel call sees one of a few shapes:

* Queries come in *tiles* of a fixed number of rows. The query heads of one KV head are folded into
  the rows. A segment of a token or two may have smaller tiles (`Numerics.query_rows`).
* Keys are padded to whole blocks of 512, which is what the kernel takes at a time. A masked key
  adds an exact zero, so padding changes nothing. The last block may be shorter: it has one of the
  lengths (`Numerics.key_steps`) that the numerics probe found to give the bits of a whole block.

Consecutive tiles that need the same number of keys make a *run* and go through the kernel
together, as its batch. A *place* is room for one token in a tile. For example, five tokens at
positions 62 to 66, with four query heads to a KV head, so that a tile holds two tokens:

    token              t0  t1     t2  t3     t4
    position           62  63     64  65     66
    tile                  0          1          2      ceil(5 / 2) tiles
    keys it needs         64         66         67
    padded to             64        128        128     by the key steps 64, 128, ..., 512
    run               `-- A -'   `------- B -------'

In memory the last tile comes first, because the masks of a run lie in one table in that order:

    place               0   1      2   3      4   5
    holds              t4  t4     t2  t3     t0  t1    place 1 repeats t4; its result is dropped
    tile                  2          1          0
    kernel call       `--- B: 128 keys ---'  `A: 64'

    tile 1, 8 rows     | t2 h0 | t2 h1 | t2 h2 | t2 h3 | t3 h0 | t3 h1 | t3 h2 | t3 h3 |

Legend: T tokens, G KV heads, g query heads per KV head, D head dim, N tiles. Where some KV heads
read another layer's values, the heads come in parts, one after the other: the heads of a part have
equal distances in memory. P equal parts with equal distances are one source, other parts several.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.kv_cache import KEY_BLOCK, Segment

__all__ = [
    "CachedHeads",
    "CausalMask",
    "Pass",
    "PlainBatch",
    "Sources",
    "TiledBatch",
    "tile_tokens",
]

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
        query_rows: the least number of rows of a small tile.
        dtype, device: of the model.
    """

    def __init__(
        self,
        group: int,
        key_steps: Sequence[int] = (KEY_BLOCK,),
        query_rows: int = _TILE_ROWS,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.tile_tokens = tile_tokens(group)
        self._small_tokens = min(-(-query_rows // group), self.tile_tokens)
        self._key_steps = tuple(key_steps)
        self._group = group
        self.device = device
        self._dtype = dtype
        self._centre = 0
        self._table = torch.empty(0)

    def reserve(self, num_tokens: int) -> None:
        """Cover contexts of num_tokens. The table doubles each time, so it seldom grows."""
        if num_tokens <= self._centre:
            return
        centre = max(num_tokens, 2 * self._centre, 4 * KEY_BLOCK)
        row = torch.arange(self.tile_tokens * self._group, device=self.device) // self._group
        column = torch.arange(2 * centre, device=self.device) - centre
        table = torch.zeros(row.numel(), column.numel(), dtype=self._dtype, device=self.device)
        self._table = table.masked_fill_(column > row[:, None], float("-inf"))
        self._centre = centre

    def tile_for(self, num_tokens: int) -> int:
        """Return the tokens per tile of a segment of num_tokens."""
        return self._small_tokens if num_tokens <= self._small_tokens else self.tile_tokens

    def padded_keys(self, num_keys: int) -> int:
        """Return how many keys the kernel is given for a tile that needs num_keys."""
        whole, rest = divmod(num_keys - 1, KEY_BLOCK)
        return whole * KEY_BLOCK + next(step for step in self._key_steps if step > rest)

    def window(self, tile: int, last_tile_start: int, num_tiles: int, num_keys: int) -> Tensor:
        """Return (num_tiles, 1, rows, num_keys) for tiles in falling order of position."""
        return self._table.as_strided(
            (num_tiles, 1, tile * self._group, num_keys),
            (tile, 0, self._table.stride(0), 1),
            self._centre - last_tile_start,
        )


class CachedHeads(NamedTuple):
    """What consecutive KV heads read of one sequence, in place, in P equal parts.

    The heads of a part have equal distances in memory, and so have the parts; P is 2 where half of
    the heads read another layer's values.

    Attributes:
        keys, values: (P, heads of a part, capacity, D).
    """

    keys: Tensor
    values: Tensor

    @property
    def num_heads(self) -> int:
        """KV heads of all parts together."""
        return self.keys.shape[0] * self.keys.shape[1]


Sources = Sequence[Sequence[CachedHeads]]
"""What the KV heads read of each sequence, in the order of the heads."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive tiles of one segment that need the same number of keys.

    Attributes:
        segment: index of the segment in the batch.
        count: number of tiles, in falling order of position.
        num_keys: keys the kernel is given, padding included.
        mask: (count, 1, rows, num_keys).
    """

    segment: int
    count: int
    num_keys: int
    mask: Tensor


class _Span(NamedTuple):
    """A segment as tiles see it: its index, first row in the batch, first position and length."""

    segment: int
    row: int
    start: int
    num_tokens: int


class _Tiling:
    """All tiles of one size in a batch; the module's picture shows how they lie.

    Attributes:
        places: of each token of the spans, in order, its place in what `attend` returns.
        num_places: places in all tiles together.
    """

    def __init__(self, mask: CausalMask, tile: int, spans: Sequence[_Span]) -> None:
        self._tile = tile
        self._runs: list[_Run] = []
        self.places: list[int] = []
        token_of_place: list[int] = []
        for span in spans:
            self._runs += reversed(list(_plan(mask, tile, span)))
            num_tiles = -(-span.num_tokens // tile)
            first_place = len(token_of_place)
            for index in reversed(range(num_tiles)):  # the last tile first, as its mask lies
                for token in range(index * tile, (index + 1) * tile):
                    # A place past the end repeats the last token; nothing reads its result.
                    token_of_place.append(span.row + min(token, span.num_tokens - 1))
            for token in range(span.num_tokens):
                index, rest = divmod(token, tile)
                self.places.append(first_place + (num_tiles - 1 - index) * tile + rest)
        self.num_places = len(token_of_place)
        self._token_of_place = torch.tensor(token_of_place, device=mask.device)

    def attend(self, q: Tensor, sources: Sources) -> Tensor:
        """Mix values by queries q: (T, G, g, D) to (num_places, G * g * D)."""
        _, kv_heads, group, dim = q.shape
        places = q[self._token_of_place].view(-1, self._tile, kv_heads, group, dim)
        tiles = places.transpose(1, 2).reshape(-1, kv_heads, self._tile * group, dim)
        by_run = zip(self._runs, torch.split(tiles, [r.count for r in self._runs]), strict=True)
        mixed = torch.cat([_mix(run, its, sources[run.segment]) for run, its in by_run])
        rows = mixed.view(-1, kv_heads, self._tile, group, dim).transpose(1, 2)
        return rows.reshape(-1, kv_heads * group * dim)


class TiledBatch:
    """Attention of a ragged batch in fixed tiles; planned once, used by every layer.

    Args:
        mask: the model's masks.
        segments: for each segment, the position of its first token and its number of tokens.
    """

    def __init__(self, mask: CausalMask, segments: Sequence[tuple[int, int]]) -> None:
        mask.reserve(max(start + n for start, n in segments) + mask.tile_tokens + KEY_BLOCK)
        by_tile: dict[int, list[_Span]] = {}
        row = 0
        for index, (start, num_tokens) in enumerate(segments):
            span = _Span(index, row, start, num_tokens)
            by_tile.setdefault(mask.tile_for(num_tokens), []).append(span)
            row += num_tokens
        self._tilings = []
        place_of_token = [0] * row
        first_place = 0
        for tile, spans in by_tile.items():
            tiling = _Tiling(mask, tile, spans)
            tokens = (t for s in spans for t in range(s.row, s.row + s.num_tokens))
            for token, place in zip(tokens, tiling.places, strict=True):
                place_of_token[token] = first_place + place
            first_place += tiling.num_places
            self._tilings.append(tiling)
        self._place_of_token = torch.tensor(place_of_token, device=mask.device)

    def attend(self, q: Tensor, sources: Sources) -> Tensor:
        """Mix values by queries q: (T, G, g, D) to (T, G * g * D); `sources` by segment."""
        mixed = [tiling.attend(q, sources) for tiling in self._tilings]
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed))[self._place_of_token]


def _plan(mask: CausalMask, tile: int, span: _Span) -> Iterator[_Run]:
    """Yield a segment's runs from its front to its back."""
    start, last = span.start, span.start + span.num_tokens
    num_tiles = -(-span.num_tokens // tile)
    first = 0
    while first < num_tiles:
        num_keys = mask.padded_keys(min(start + (first + 1) * tile, last))
        # The last tile may hold fewer tokens than a whole one: count its real end.
        fitting = (num_keys - start) // tile if num_keys < last else num_tiles
        end = max(first + 1, fitting)
        window = mask.window(tile, start + (end - 1) * tile, end - first, num_keys)
        yield _Run(span.segment, end - first, num_keys, window)
        first = end


def _mix(run: _Run, tiles: Tensor, sources: Sequence[CachedHeads]) -> Tensor:
    """Attend tiles: (N, G, rows, D) of one run to their sequence."""
    split = torch.split(tiles, [source.num_heads for source in sources], dim=1)
    mixed = [_mix_source(run, its, source) for its, source in zip(split, sources, strict=True)]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def _mix_source(run: _Run, tiles: Tensor, source: CachedHeads) -> Tensor:
    """Attend the tiles of one source's heads."""
    count, num_parts, heads = run.count, *source.keys.shape[:2]
    keys, values = source.keys[:, :, : run.num_keys], source.values[:, :, : run.num_keys]
    if count == 1 and num_parts > 1:  # the parts are the kernel's batch
        parts = tiles.view(num_parts, heads, *tiles.shape[2:])
        mask = run.mask.expand(num_parts, -1, -1, -1)
        return F.scaled_dot_product_attention(parts, keys, values, attn_mask=mask).view_as(tiles)
    # The kernel runs tiles in parallel, each with single-threaded products. A lone tile of a lone
    # head goes to threaded products instead, whose bits differ; so give it that tile twice.
    if count * heads == 1 and torch.get_num_threads() > 1:
        count = 2
    shape = (count, -1, -1, -1)
    mask = run.mask.expand(*shape)
    mixed = [
        F.scaled_dot_product_attention(
            part.expand(*shape), k.expand(*shape), v.expand(*shape), attn_mask=mask
        )[: run.count]
        for part, k, v in zip(torch.split(tiles, heads, dim=1), keys, values, strict=True)
    ]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


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

    def attend(self, q: Tensor, sources: Sources) -> Tensor:
        """Mix values by queries q: (T, G, g, D) to (T, G * g * D); `sources` by segment."""
        out = torch.empty_like(q)
        results = torch.split(out, self._lengths)
        for index, queries in enumerate(torch.split(q, self._lengths)):
            end, first = self._ends[index], 0
            for keys, values in _parts(sources[index]):
                which = slice(first, first + keys.shape[0])
                tiles = queries[:, which].permute(2, 1, 0, 3)  # (g, heads, T, D)
                shape = (tiles.shape[0], -1, -1, -1)
                mixed = F.scaled_dot_product_attention(
                    tiles,
                    keys[None, :, :end].expand(*shape),
                    values[None, :, :end].expand(*shape),
                    attn_mask=self._masks[index],
                )
                results[index][:, which] = mixed.permute(2, 1, 0, 3)
                first = which.stop
        return out.flatten(1)


def _parts(sources: Sequence[CachedHeads]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each part's keys and values, (heads, capacity, D)."""
    for source in sources:
        yield from zip(source.keys, source.values, strict=True)


def _added_mask(
    start: int, num_tokens: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Return what is added to scores: (num_tokens, keys); None for a lone token, which sees all."""
    if num_tokens == 1:
        return None
    # From a mask of booleans every kernel call would make such a mask anew.
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
