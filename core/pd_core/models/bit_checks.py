"""The checks of the numerics probe: whether bits are equal on this machine, and their digest."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.identity.numerics import Numerics
from pd_core.models.activation import silu
from pd_core.models.attention import CachedHeads, CausalMask, TiledBatch
from pd_core.models.kv_cache import KEY_BLOCK
from pd_core.models.linear import add_linear, linear, pack, packed_linear
from pd_core.models.rope import RotaryEmbedding

__all__ = [
    "attention_is_equal",
    "bits_digest",
    "elementwise_is_equal",
    "linear_is_equal",
    "num_threads",
    "sums_are_equal",
]

# (in, out): thin, wide, the shapes of the two built-in models, and widths that are not a multiple
# of the vector length.
_SHAPES = (
    *((128, 256), (128, 704), (352, 128), (128, 1024)),  # random-tiny
    *((256, 1472), (736, 256), (256, 4096)),  # skipv1-python-5m
    *((96, 72), (576, 960), (1536, 256)),
)
_ROWS = (*range(1, 36), 48, 63, 64, 100, 127, 128, 129, 256, 317, 500, 511)
_FULL = 512
_ATTENDED = 700


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads in the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbers(*shape: int, key: int) -> Tensor:
    """Return float32 values in [-2, 2) from integer arithmetic, the same on every machine."""
    count = torch.Size(shape).numel()
    mixed = (torch.arange(count, dtype=torch.int64) + key * 7919) * 2654435761 % 1000003
    mixed = mixed * mixed % 1000003
    return (mixed.float() / 250000.75 - 2.0).reshape(shape)


def linear_is_equal(numerics: Numerics, threads: list[int]) -> bool:
    """Whether rows are the same for all row counts, offsets and thread counts."""
    return all(
        _rows_are_equal(multiply, x, rows, threads)
        for inner, outer in _SHAPES
        for x in (_numbers(_FULL, inner, key=1),)
        for multiply, rows in _products(_numbers(outer, inner, key=2), numerics)
    )


def _products(
    weight: Tensor, numerics: Numerics
) -> Iterator[tuple[Callable[[Tensor], Tensor], Sequence[int]]]:
    """Yield each way of using a weight (out, in), with the numbers of rows to try."""
    yield lambda x: linear(x, weight, None, numerics), _ROWS
    if numerics.packed:
        packed, bias = pack(weight), _numbers(len(weight), key=14)
        rows = _least_and_most(numerics.padded_rows)
        yield lambda x: packed_linear(x, packed, None, numerics), rows
        yield lambda x: packed_linear(x, packed, bias, numerics), rows


def _least_and_most(padded_rows: Callable[[int], int]) -> list[int]:
    """Return, for each padded number of rows, the fewest and the most rows that are padded to it.

    Only the padded number decides which code runs, so other row counts would test nothing new.
    """
    least = {padded_rows(rows): rows for rows in reversed(_ROWS)}
    most = {padded_rows(rows): rows for rows in _ROWS}
    return sorted({*least.values(), *most.values()})


def _rows_are_equal(
    multiply: Callable[[Tensor], Tensor], x: Tensor, numbers: Sequence[int], threads: list[int]
) -> bool:
    with num_threads(threads[0]):
        whole = multiply(x)
    for count in threads:
        with num_threads(count):
            for rows in numbers:
                part = slice((_FULL - rows) // 2, (_FULL - rows) // 2 + rows)
                if not torch.equal(multiply(x[part]), whole[part]):
                    return False
    return True


def sums_are_equal(numerics: Numerics, threads: list[int]) -> bool:
    """Whether rows are also the same when a product is added to a sum, as in latent attention."""
    x, weight = _numbers(64, 48, key=11), _numbers(_FULL, 48, key=12)
    total = _numbers(64, _FULL, key=13)
    with num_threads(threads[0]):
        whole = add_linear(total.clone(), x, weight, numerics)
    for count in threads:
        with num_threads(count):
            for first, rows in ((0, 1), (5, 2), (40, 3), (9, 7), (1, 33), (3, 60)):
                part = slice(first, first + rows)
                added = add_linear(total[part].clone(), x[part], weight, numerics)
                if not torch.equal(added, whole[part]):
                    return False
    return True


def _attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    start: int,
    steps: Sequence[int] = (KEY_BLOCK,),
    query_rows: int = 8,
    part_heads: Sequence[int] = (),
) -> Tensor:
    cpu = torch.device("cpu")
    mask = CausalMask(q.shape[2], steps, query_rows, dtype=torch.float32, device=cpu)
    return TiledBatch(mask, [(start, q.shape[0])]).attend(q, [_in_parts(keys, values, part_heads)])


def _in_parts(keys: Tensor, values: Tensor, heads: Sequence[int]) -> list[CachedHeads]:
    """Cut heads into parts of these numbers as a SkipV1 layer does: equal parts are one source."""
    if len(set(heads)) == 1:
        return [CachedHeads(*(torch.unflatten(t, 0, (len(heads), -1)) for t in (keys, values)))]
    sizes = list(heads) or [len(keys)]
    pieces = zip(torch.split(keys, sizes), torch.split(values, sizes), strict=True)
    return [CachedHeads(k[None], v[None]) for k, v in pieces]


def _attention_inputs(kv_heads: int, group: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    length = _ATTENDED
    q = _numbers(length, kv_heads, group, dim, key=3)
    keys, values = torch.zeros(2, kv_heads, 1024, dim)
    keys[:, :length] = _numbers(kv_heads, length, dim, key=4)
    values[:, :length] = _numbers(kv_heads, length, dim, key=5)
    return q, keys, values


def attention_is_equal(threads: list[int], steps: Sequence[int], query_rows: int) -> bool:
    """Whether queries are the same in one pass, in chunks and alone, past 512 keys.

    Each is compared with whole blocks of keys, at every length in `steps`, with the heads in one
    part and, where possible, in two equal ones; three heads also in unequal ones.
    """
    parts = [(0, _ATTENDED), (300, 400), (505, 37), (505, 1), (690, 1), (13, 3)]
    ends = [block + step for block in (0, KEY_BLOCK) for step in steps]
    parts += [(end - 1, 2) for end in ends if end < _ATTENDED]
    shapes = ((1, 2, 16), (2, 2, 32), (2, 1, 64), (1, 7, 64), (2, 4, 128), (3, 3, 64))
    ways: dict[int, Sequence[Sequence[int]]] = {1: ((),), 2: ((), (1, 1)), 3: ((), (2, 1))}
    for kv_heads, group, dim in shapes:
        q, keys, values = _attention_inputs(kv_heads, group, dim)
        with num_threads(threads[0]):
            whole = _attention(q, keys, values, 0)
        for count in threads:
            with num_threads(count):
                for (first, rows), heads in product(parts, ways[kv_heads]):
                    tokens = slice(first, first + rows)
                    part = _attention(q[tokens], keys, values, first, steps, query_rows, heads)
                    if not torch.equal(part, whole[tokens]):
                        return False
    return True


def elementwise_is_equal(threads: list[int]) -> bool:
    """Whether elementwise functions and row means do not depend on the position in memory."""
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        silu,
        torch.rsqrt,
        lambda x: torch.log(x.double()),
    )
    x = _numbers(70001, key=6).abs() + 0.01
    rows = _numbers(300, 352, key=7)
    spans = ((0, 70001), (1, 70000), (5, 33), (7, 15), (11, 1), (3, 40001))
    checks: list[tuple[Callable[[Tensor], Tensor], Tensor, tuple[tuple[int, int], ...]]]
    checks = [(f, x, spans) for f in functions]
    checks.append((lambda x: x.square().mean(-1), rows, ((0, 300), (7, 1), (9, 5), (100, 128))))
    for function, inputs, parts in checks:
        whole = function(inputs)
        for count in threads:
            with num_threads(count):
                for first, size in parts:
                    part = inputs[first : first + size].clone()
                    if not torch.equal(function(part), whole[first : first + size]):
                        return False
    return True


def bits_digest(numerics: Numerics) -> str:
    """Return the hex sha256 over the bits of a fixed computation.

    There are enough rows that padding to `min_rows` does not affect it.
    """
    outputs = []
    for inner, outer in _SHAPES:
        x, weight = _numbers(64, inner, key=8), _numbers(outer, inner, key=9)
        outputs.append(linear(x, weight, None, numerics))
        if numerics.packed:
            outputs.append(packed_linear(x, pack(weight), None, numerics))
    outputs.append(_attention(*_attention_inputs(2, 2, 32), 0))
    x = _numbers(4099, key=10)
    outputs += [silu(x), torch.rsqrt(x.abs() + 0.01), F.softmax(x.double(), 0)]
    outputs += [torch.log(x.double().abs() + 0.01), F.softmax(x.double(), 0).cumsum(0)]
    outputs.append(_numbers(300, 352, key=7).square().mean(-1))
    rope = RotaryEmbedding(64, 10000.0, dtype=torch.float32, device=torch.device("cpu"))
    rope.reserve(2048)
    outputs += rope.at(torch.arange(2048))
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(output.contiguous().numpy().tobytes())
    return digest.hexdigest()
