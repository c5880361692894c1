"""The weights of a GGUF file under Hugging Face's names, as float32, one tensor at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pd_core.checkpoints.stored_weights import StoredWeights
from pd_core.errors import ModelError
from pd_core.gguf.block_types import SUPPORTED, dequantised
from pd_core.gguf.gguf_file import GgufFile, StoredTensor
from pd_core.gguf.model_shape import FREQUENCY_FACTORS
from pd_core.gguf.tensor_names import our_rows, ours
from pd_core.models.config import ModelConfig

__all__ = ["GgufWeights"]

# Made into float32 at once: what stays in a processor's cache is quickest, and takes no memory.
_PART_NUMBERS = 1 << 18


class GgufWeights(StoredWeights):
    """One GGUF file's weights.

    Args:
        file: the file.
        config: the shape of the model in it.

    Raises:
        ModelError: two of the file's tensors have the same place in a model.
    """

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        places = {ours(name): place for name, place in file.header.tensors.items()}
        if len(places) < len(file.header.tensors):
            raise ModelError("two tensors have the same place in the model")
        places.pop(FREQUENCY_FACTORS, None)  # part of the config
        self._file = file
        self._theirs = {name: place.name for name, place in places.items()}
        self._heads: dict[str, int] = {}
        if config.family == "llama":
            for i in range(config.num_layers):
                for kind in ("weight", "bias"):
                    layer = f"model.layers.{i}.self_attn"
                    self._heads[f"{layer}.q_proj.{kind}"] = config.num_heads
                    self._heads[f"{layer}.k_proj.{kind}"] = config.num_kv_heads
        super().__init__(
            (file.path,),
            {name: list(place.shape) for name, place in places.items()},
            {name: place.kind.name for name, place in places.items()},
            tuple(kind.name for kind in SUPPORTED.values()),
        )

    def blocks(self, name: str) -> StoredTensor:
        """Return a tensor as it is stored, in blocks, with its rows in our order.

        Nothing is copied, but for a Llama's queries and keys, whose rows are put in order.

        Args:
            name: Hugging Face's; one of the file's.

        Raises:
            ModelError: it is a bias whose numbers cannot be put in order one by one.
        """
        stored = self._file.stored(self._theirs[name])
        if name not in self._heads:
            return stored
        blocks = stored.blocks
        if len(stored.shape) == 1:  # a bias: one number is a row
            if stored.kind.numbers > 1:
                raise ModelError(
                    f"tensor {name} is a bias in blocks ({stored.kind.name}), which is not "
                    "supported; supported are F32, F16 and BF16"
                )
            blocks = blocks.reshape(stored.shape[0], -1)
        blocks = our_rows(blocks, self._heads[name]).reshape(stored.blocks.shape)
        return StoredTensor(stored.kind, stored.shape, blocks)

    def _parts(self, place: str) -> Iterator[Tensor]:
        stored = self.blocks(place)
        if len(stored.shape) == 1:
            yield torch.from_numpy(dequantised(stored.blocks, stored.kind).reshape(-1))
            return
        rows = max(1, _PART_NUMBERS // stored.shape[-1])
        for first in range(0, len(stored.blocks), rows):
            blocks = stored.blocks[first : first + rows]
            yield torch.from_numpy(dequantised(blocks, stored.kind))
            self._file.give_back()

    def stored_bytes(self, place: str) -> int:
        """Return how many bytes of the file a tensor takes."""
        return self._file.header.tensors[self._theirs[place]].size_bytes

    def _type_name(self, place: str, tensor: Tensor) -> str:
        return self._types[place]
