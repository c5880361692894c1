"""A GGUF file's header: its keys, and where its tensors are. No weight is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as _short  # a file may hold a name of megabytes

from pd_core.errors import ModelError
from pd_core.gguf.block_types import BlockType, block_type
from pd_core.gguf.byte_reader import ByteReader, Value, damaged

__all__ = ["MAGIC", "Header", "TensorPlace", "read_header"]

MAGIC = b"GGUF"
"""The first bytes of every such file."""

_VERSIONS = (2, 3)
_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 16
_MOST_DIMENSIONS = 4
_MOST_NUMBERS = 1 << 40  # in one tensor
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor is.

    Attributes:
        name: as in the file.
        shape: rows first, as in PyTorch (the file has it in the other order).
        kind: how its numbers are stored.
        begin: offset of its first byte in the file.
        size_bytes: its bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    begin: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its weights.

    Attributes:
        keys: the value of every key.
        tensors: where the tensors are, by name.
    """

    keys: Mapping[str, Value]
    tensors: Mapping[str, TensorPlace]


def read_header(content: memoryview) -> Header:
    """Read and check a file's header.

    The tensors must lie one behind the other, as every writer puts them, so a small file cannot
    claim many large ones.

    Args:
        content: the whole file, mapped into memory.

    Raises:
        ModelError: it is not a GGUF file, truncated, damaged, or of an unsupported version or type;
            the message says what is wrong.
    """
    if bytes(content[: len(MAGIC)]) != MAGIC:
        raise damaged("it does not begin with GGUF")
    reader = ByteReader(content)
    reader.place = len(MAGIC)
    version = reader.whole("I")
    if version not in _VERSIONS:
        raise ModelError(
            f"it is of version {version:#x}; supported are {' and '.join(map(str, _VERSIONS))} "
            "(little-endian); convert the model again with a current llama.cpp"
        )
    num_tensors, num_keys = reader.whole("Q"), reader.whole("Q")
    for count, most, what in (
        (num_keys, _MOST_KEYS, "keys"),
        (num_tensors, _MOST_TENSORS, "tensors"),
    ):
        if count > most:
            raise damaged(f"its header counts {count} {what}, and no model has more than {most}")
    keys = _read_keys(reader, num_keys)
    infos = [_read_info(reader) for _ in range(num_tensors)]
    return Header(keys, _places(infos, reader.place, _alignment(keys), len(content)))


def _read_keys(reader: ByteReader, count: int) -> dict[str, Value]:
    keys: dict[str, Value] = {}
    for _ in range(count):
        name = reader.text()
        if name in keys:
            raise damaged(f"the key {_short(name)} is there twice")
        kind = reader.whole("I")
        try:
            keys[name] = reader.value(kind)
        except ModelError as error:
            raise ModelError(f"the key {_short(name)}: {error}") from error
    return keys


def _read_info(reader: ByteReader) -> tuple[str, tuple[int, ...], BlockType, int]:
    """Return a tensor's name, shape, type and offset behind the header."""
    name = reader.text()
    dimensions = reader.whole("I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise damaged(
            f"tensor {_short(name)} has {dimensions} dimensions; it must have 1 to "
            f"{_MOST_DIMENSIONS}"
        )
    shape = tuple(reader.whole("Q") for _ in range(dimensions))[::-1]
    kind = block_type(reader.whole("I"), name)
    if not all(shape) or math.prod(shape) > _MOST_NUMBERS:
        raise damaged(f"tensor {_short(name)} has the impossible shape {list(shape)}")
    if shape[-1] % kind.numbers:
        raise damaged(
            f"tensor {_short(name)} has rows of {shape[-1]} numbers, which do not divide into the "
            f"blocks of {kind.numbers} of {kind.name}"
        )
    return name, shape, kind, reader.whole("Q")


def _alignment(keys: Mapping[str, Value]) -> int:
    value = keys.get(_ALIGNMENT, 32)
    if type(value) is not int or not 0 < value < 1 << 20 or value & (value - 1):
        raise damaged(f"{_ALIGNMENT} is {_short(value)}; it must be a power of two")
    return value


def _places(
    infos: list[tuple[str, tuple[int, ...], BlockType, int]],
    header_bytes: int,
    alignment: int,
    file_bytes: int,
) -> dict[str, TensorPlace]:
    """Return the tensors' places, each checked to begin where the one before it ends."""
    first = -(-header_bytes // alignment) * alignment
    places: dict[str, TensorPlace] = {}
    expected = 0
    for name, shape, kind, offset in infos:
        if name in places:
            raise damaged(f"tensor {_short(name)} is there twice")
        if offset != expected:
            raise damaged(
                f"tensor {_short(name)} begins at {offset} behind the header; the one before it "
                f"ends at {expected}"
            )
        size_bytes = math.prod(shape) // kind.numbers * kind.bytes
        if first + offset + size_bytes > file_bytes:
            raise damaged(
                f"tensor {_short(name)} ends at byte {first + offset + size_bytes}, and the file "
                f"at byte {file_bytes}"
            )
        places[name] = TensorPlace(name, shape, kind, first + offset, size_bytes)
        expected = offset + -(-size_bytes // alignment) * alignment
    return places
