"""How many bytes a model takes in integers, by the shapes of its weights."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pd_core.integer.kernel_library import kernel_library
from pd_core.integer.native_passes import fits_kernels
from pd_core.integer.weights import EMBEDDING, GROUP, HEAD, PADDED
from pd_core.models.config import ModelConfig

__all__ = ["LAYERS", "IntegerSizes", "integer_sizes"]

LAYERS = "model.layers."
"""How the names of the layers' tensors begin."""

_LAYER = re.compile(rf"{re.escape(LAYERS)}\d+")


@dataclass(frozen=True, slots=True)
class IntegerSizes:
    """Bytes.

    Attributes:
        held: of all weights, as they are held.
        loading: at most while they are rounded and packed.
    """

    held: int
    loading: int


def integer_sizes(
    config: ModelConfig, shapes: Mapping[str, Tensor], bits: Callable[[str], int]
) -> IntegerSizes:
    """Return the sizes of a model.

    Args:
        config: the model's.
        shapes: its weights by name; only their shapes matter.
        bits: of a linear layer's weight by its name, 8 or 4.
    """
    packed = kernel_library() is not None and fits_kernels(config)
    held, layers = 0, Counter[str]()
    for name, tensor in shapes.items():
        if tensor.dim() == 1:
            held += tensor.nbytes
            continue
        rows, cols = (-(-size // PADDED) * PADDED for size in tensor.shape)
        codes, steps = rows * cols, rows * cols // GROUP
        four = bits(name) == 4 and name != EMBEDDING
        held += 4 * rows + (steps if four else 0) + (codes // 2 if four and packed else codes)
        if layer := _LAYER.match(name):
            layers[layer[0]] += codes
    # Codes lie beside their packed form: the output layer's at first, then a layer's.
    first = shapes[EMBEDDING].numel() * 2 + (shapes[HEAD].numel() if HEAD in shapes else 0)
    return IntegerSizes(held, max(first, held + max(layers.values()) * packed))
