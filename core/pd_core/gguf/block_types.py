"""How GGUF stores numbers: in blocks, each with scales of its own, and back to float32."""

from dataclasses import dataclass
from reprlib import repr as _short
from typing import TYPE_CHECKING, Any

from pd_core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SUPPORTED", "BlockType", "block_type", "dequantised"]


@dataclass(frozen=True, slots=True)
class BlockType:
    """One way to store numbers.

    Attributes:
        name: as llama.cpp calls it.
        id: its number in a file.
        numbers: weights of a block.
        bytes: bytes of a block, scales included.
    """

    name: str
    id: int
    numbers: int
    bytes: int


SUPPORTED = {
    kind.id: kind
    for kind in (
        BlockType("F32", 0, 1, 4),
        BlockType("F16", 1, 1, 2),
        BlockType("Q4_0", 2, 32, 18),
        BlockType("Q4_1", 3, 32, 20),
        BlockType("Q5_0", 6, 32, 22),
        BlockType("Q5_1", 7, 32, 24),
        BlockType("Q8_0", 8, 32, 34),
        BlockType("Q4_K", 12, 256, 144),
        BlockType("Q5_K", 13, 256, 176),
        BlockType("Q6_K", 14, 256, 210),
        BlockType("BF16", 30, 1, 2),
    )
}
"""The supported types by their numbers."""


def block_type(number: int, tensor: str) -> BlockType:
    """Return the type with a number.

    Args:
        number: as in the file.
        tensor: the tensor of that type, for the message.

    Raises:
        ModelError: the type is not supported.
    """
    if (found := SUPPORTED.get(number)) is not None:
        return found
    known = ", ".join(kind.name for kind in SUPPORTED.values())
    raise ModelError(
        f"tensor {_short(tensor)} is stored as {_name_of(number)}, which is not supported; "
        f"supported are {known}; get the model in one of these (most are there as Q8_0 and Q4_K_M)"
    )


def dequantised(blocks: "NDArray[np.uint8]", kind: BlockType) -> "NDArray[np.float32]":
    """Return blocks as float32, by the definition that all readers of the format share.

    Args:
        blocks: (rows, bytes of a row).
        kind: their type.

    Returns:
        (rows, numbers of a row). Scales that are NaN or infinite give such numbers.
    """
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):
        numbers: NDArray[Any] = dequantize(blocks, GGMLQuantizationType(kind.id))
    return numbers if numbers.flags.writeable else numbers.copy()  # torch wants its own


def _name_of(number: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(number).name
    except ValueError:
        return f"type {number}"
