"""The KV cache of one sequence in 8 bits: a quarter of float32's bytes.

Keys and values lie as the kernels read them: 16 keys (4 values) of consecutive tokens together.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pd_core.models.kv_cache import KVCache, LayerHeads, whole_blocks

__all__ = ["IntegerKVCache"]

_KEYS, _VALUES = 16, 4  # tokens that lie together
_OFFSET = 128  # keys are stored with it, as unsigned bytes


class IntegerKVCache(KVCache):
    """Integers and scales per layer, only of the heads that the layer has itself.

    Attributes:
        keys: (heads, capacity / 16, D / 4, 16, 4), uint8: each element plus 128.
        values: (heads, capacity / 4, D, 4), int8.
        key_scales, value_scales: (heads, capacity), float32.
        native: what the kernels made of the addresses; None after they changed.
    """

    def __init__(
        self,
        layers: Sequence[LayerHeads],
        head_dim: int,
        capacity_tokens: int,
        *,
        device: torch.device,
    ) -> None:
        self.device = device
        self.native: Any = None
        capacity = whole_blocks(max(capacity_tokens, 1))
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.key_scales: list[Tensor] = []
        self.value_scales: list[Tensor] = []
        for heads in layers:
            keys, values = heads.num_key_heads, heads.num_value_heads
            shape = (keys, capacity // _KEYS, head_dim // 4, _KEYS, 4)
            self.keys.append(torch.zeros(shape, dtype=torch.uint8, device=device))
            self.values.append(
                torch.zeros(
                    values, capacity // _VALUES, head_dim, _VALUES, dtype=torch.int8, device=device
                )
            )
            self.key_scales.append(torch.zeros(keys, capacity, device=device))
            self.value_scales.append(torch.zeros(values, capacity, device=device))

    def _all(self) -> tuple[list[Tensor], ...]:
        # Wider elements first: a block of the prefix cache holds them aligned one after another.
        return self.key_scales, self.value_scales, self.keys, self.values

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit, a multiple of 512."""
        return self.value_scales[0].shape[1]

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all tensors, including the rounding to whole blocks."""
        return sum(t.nbytes for tensors in self._all() for t in tensors)

    @property
    def growth_bytes(self) -> int:
        """Bytes of old storage that `reserve` keeps beside the new: one tensor's."""
        return max(t.nbytes for tensors in self._all() for t in tensors)

    def reserve(self, num_tokens: int) -> None:
        """Make room for num_tokens in all, keeping what is cached; never shrinks.

        Meanwhile it needs `growth_bytes` more.
        """
        old = self.capacity_tokens
        capacity = whole_blocks(num_tokens)
        if capacity <= old:
            return
        self.native = None
        for tensors in self._all():
            for i, tensor in enumerate(tensors):
                shape = list(tensor.shape)
                shape[1] = shape[1] * capacity // old
                tensors[i] = tensor.new_zeros(shape)
                tensors[i][:, : tensor.shape[1]] = tensor

    def copy_prefix(self, source: KVCache, num_tokens: int) -> None:
        """Copy the first num_tokens of another cache of the same model; there must be room.

        The rest of the last panel comes with them; it is written before it is read.
        """
        whole = -(-num_tokens // _KEYS) * _KEYS
        for ours, theirs in zip(self.parts(0, whole), source.parts(0, whole), strict=True):
            ours.copy_(theirs)

    def parts(self, first: int, num_tokens: int) -> Iterator[Tensor]:
        """Yield what is cached of consecutive tokens, in place.

        Args:
            first, num_tokens: multiples of 16.
        """
        assert first % _KEYS == num_tokens % _KEYS == 0, "whole panels"
        for tensors in self._all():
            for tensor in tensors:
                if tensor.shape[0]:
                    per = self.capacity_tokens // tensor.shape[1]
                    yield tensor[:, first // per : (first + num_tokens) // per]

    def write(
        self,
        layer: int,
        start: int,
        keys: tuple[Tensor, Tensor] | None,
        values: tuple[Tensor, Tensor],
    ) -> None:
        """Cache a layer's own keys and values from position `start` on.

        Args:
            layer: its index.
            start: position of the first token.
            keys, values: integers (T, heads, D) and scales (T, heads); None: the layer has none.
        """
        at = torch.arange(start, start + len(values[0]), device=self.device)
        if keys is not None:
            codes = (
                (keys[0] + _OFFSET).to(torch.uint8).view(*keys[0].shape[:2], -1, 4)
            )  # (T, G, D / 4, 4)
            self.keys[layer][:, at // _KEYS, :, at % _KEYS] = codes
            self.key_scales[layer][:, at] = keys[1].T
        self.values[layer][:, at // _VALUES, :, at % _VALUES] = values[0].to(torch.int8)
        self.value_scales[layer][:, at] = values[1].T

    def read_keys(self, layer: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return a layer's first keys: int8 (heads, n, D), and scales (heads, n)."""
        panels = self.keys[layer][:, : -(-num_tokens // _KEYS)]
        codes = panels.transpose(2, 3).flatten(3).flatten(1, 2)[:, :num_tokens]
        return (codes.to(torch.int16) - _OFFSET).to(torch.int8), self.key_scales[layer][
            :, :num_tokens
        ]

    def read_values(self, layer: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return a layer's first values: int8 (heads, n, D), and scales (heads, n)."""
        blocks = self.values[layer][:, : -(-num_tokens // _VALUES)]
        codes = blocks.transpose(2, 3).flatten(1, 2)[:, :num_tokens]
        return codes, self.value_scales[layer][:, :num_tokens]
