"""Stored numbers become the floats that the format's definition gives, on random blocks."""

from collections.abc import Callable

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from pd_core.errors import ModelError
from pd_core.gguf.block_types import SUPPORTED, BlockType, block_type, dequantised

Block = NDArray[np.uint8]
Numbers = list[np.float32]
_BY_NAME = {kind.name: kind for kind in SUPPORTED.values()}


def _half(block: Block, at: int) -> np.float32:
    return np.float32(block[at : at + 2].view(np.float16)[0])


def _nibble(block: Block, at: int, i: int) -> int:
    """Number i of 32: the low halves of 16 bytes, then their high halves."""
    return int(block[at + i % 16]) >> 4 * (i // 16) & 15


def _fifth_bit(block: Block, at: int, i: int) -> int:
    return int(block[at + i // 8]) >> i % 8 & 1


def _scale_and_least(packed: Block, i: int) -> tuple[int, int]:
    """The 6-bit scale and minimum of group i of 8, out of 12 bytes."""
    if i < 4:
        return int(packed[i]) & 63, int(packed[i + 4]) & 63
    low = int(packed[i + 4])
    return (
        low & 15 | int(packed[i - 4]) >> 6 << 4,
        low >> 4 | int(packed[i]) >> 6 << 4,
    )


def _q4_k(block: Block) -> Numbers:
    d, least = _half(block, 0), _half(block, 2)
    found = []
    for i in range(256):
        scale, minimum = _scale_and_least(block[4:16], i // 32)
        quant = int(block[16 + i // 64 * 32 + i % 32]) >> 4 * (i // 32 % 2) & 15
        found.append(d * np.float32(scale) * np.float32(quant) - least * np.float32(minimum))
    return found


def _q5_k(block: Block) -> Numbers:
    d, least = _half(block, 0), _half(block, 2)
    found = []
    for i in range(256):
        scale, minimum = _scale_and_least(block[4:16], i // 32)
        quant = int(block[48 + i // 64 * 32 + i % 32]) >> 4 * (i // 32 % 2) & 15
        quant += 16 * (int(block[16 + i % 32]) >> i // 32 & 1)
        found.append(d * np.float32(scale) * np.float32(quant) - least * np.float32(minimum))
    return found


def _q6_k(block: Block) -> Numbers:
    d, scales = _half(block, 208), block[192:208].view(np.int8)
    found = []
    for i in range(256):
        half, within = divmod(i, 128)
        low = int(block[half * 64 + within % 64]) >> 4 * (within // 64) & 15
        high = int(block[128 + half * 32 + within % 32]) >> 2 * (within // 32) & 3
        quant = low + 16 * high - 32
        found.append(d * np.float32(scales[i // 16]) * np.float32(quant))
    return found


def _bf16(block: Block) -> Numbers:
    return [(block.view(np.uint16).astype(np.uint32) << 16).view(np.float32)[0]]


_PLAIN: dict[str, Callable[[Block], Numbers]] = {
    "F32": lambda b: [b.view(np.float32)[0]],
    "F16": lambda b: [_half(b, 0)],
    "BF16": _bf16,
    "Q8_0": lambda b: [_half(b, 0) * np.float32(q) for q in b[2:].view(np.int8)],
    "Q4_0": lambda b: [_half(b, 0) * np.float32(_nibble(b, 2, i) - 8) for i in range(32)],
    "Q4_1": lambda b: [_half(b, 0) * np.float32(_nibble(b, 4, i)) + _half(b, 2) for i in range(32)],
    "Q5_0": lambda b: [
        _half(b, 0) * np.float32(_nibble(b, 6, i) + 16 * _fifth_bit(b, 2, i) - 16)
        for i in range(32)
    ],
    "Q5_1": lambda b: [
        _half(b, 0) * np.float32(_nibble(b, 8, i) + 16 * _fifth_bit(b, 4, i)) + _half(b, 2)
        for i in range(32)
    ],
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


def _random_blocks(kind: BlockType, count: int) -> Block:
    """Blocks of any bytes, but with finite scales: half floats below 2."""
    rng = np.random.default_rng(kind.id)
    blocks = rng.integers(0, 256, (count, kind.bytes), dtype=np.uint8)
    scales = {"Q6_K": (208,), "Q4_0": (0,), "Q5_0": (0,), "Q8_0": (0,), "F16": (0,)}
    for at in scales.get(kind.name, (0, 2)):
        if kind.name in ("F32", "BF16"):
            blocks[:, -1] &= 0xBF
        else:
            blocks[:, at + 1] &= 0xBF
    return blocks


@pytest.mark.parametrize("name", sorted(_BY_NAME))
def test_numbers_are_those_of_the_plain_definition(name: str) -> None:
    kind = _BY_NAME[name]
    blocks = _random_blocks(kind, 12)
    expected = np.array([_PLAIN[name](block) for block in blocks], np.float32)
    rows = blocks.reshape(4, -1)  # three blocks a row
    found = dequantised(rows, kind)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(found, expected.reshape(4, -1))


@pytest.mark.parametrize("name", sorted(_BY_NAME))
def test_sizes_are_llama_cpp_s(name: str) -> None:
    kind = _BY_NAME[name]
    theirs = gguf.GGMLQuantizationType[name]
    assert (kind.id, (kind.numbers, kind.bytes)) == (theirs, gguf.GGML_QUANT_SIZES[theirs])


@pytest.mark.parametrize("name", sorted(set(_BY_NAME) - {"F32", "F16", "BF16"}))
def test_a_scale_that_is_not_finite_shows_in_the_numbers(name: str) -> None:
    kind = _BY_NAME[name]
    for scale in (0x7E00, 0x7C00):  # NaN, infinity
        blocks = np.ones((1, kind.bytes), np.uint8)
        at = 208 if name == "Q6_K" else 0
        blocks[0, at : at + 2] = np.array([scale], np.uint16).view(np.uint8)
        assert not np.isfinite(dequantised(blocks, kind)).all()


@pytest.mark.parametrize(("number", "name"), [(10, "Q2_K"), (20, "IQ4_NL"), (999, "type 999")])
def test_every_other_type_is_refused_by_name(number: int, name: str) -> None:
    with pytest.raises(ModelError, match=f"'w' is stored as {name}, .*Q4_K_M"):
        block_type(number, "w")
