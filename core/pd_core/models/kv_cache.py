"""The KV cache of one sequence, with only the heads that the model declares for each layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pd_core.errors import EngineError

__all__ = ["KEY_BLOCK", "KVCache", "LayerHeads", "Segment", "check_room", "whole_blocks"]

# Attention reads keys in whole blocks of this many tokens (the block of torch's CPU kernel), so
# capacity is a multiple of it, and unwritten positions must hold finite values: zeros.
KEY_BLOCK = 512


@dataclass(frozen=True, slots=True)
class LayerHeads:
    """How many heads one layer caches: a SkipV1 layer has fewer value heads than key heads.

    Attributes:
        key_dim: elements of a key if not the model's head_dim: a layer of latent attention caches
            one row of latent and rotated key, and no values.
    """

    num_key_heads: int
    num_value_heads: int
    key_dim: int | None = None


class KVCache:
    """Keys and values of one sequence, one pair of tensors per layer.

    All values are in one storage, the first layer's at the end, so that one view can hold a layer's
    own values and those it reads of the first layer.

    Attributes:
        keys: per layer (num_key_heads, capacity_tokens, key_dim or head_dim).
        values: per layer (num_value_heads, capacity_tokens, head_dim).
    """

    def __init__(
        self,
        layers: Sequence[LayerHeads],
        head_dim: int,
        capacity_tokens: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._dtype = dtype
        self._device = device
        self._value_heads = [h.num_value_heads for h in layers]
        capacity = whole_blocks(max(capacity_tokens, 1))
        self.keys = [self._zeros(h.num_key_heads, capacity, h.key_dim or head_dim) for h in layers]
        self.values = self._zero_values(capacity, head_dim)

    def _zeros(self, heads: int, capacity: int, head_dim: int) -> Tensor:
        return torch.zeros(heads, capacity, head_dim, dtype=self._dtype, device=self._device)

    def _zero_values(self, capacity: int, head_dim: int) -> list[Tensor]:
        first, *others = self._value_heads
        storage = self._zeros(sum(self._value_heads), capacity, head_dim)
        *values, last = torch.split(storage, [*others, first])
        return [last, *values]

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit, a multiple of 512."""
        return self.keys[0].shape[1]

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the distinct storages, including the rounding to whole blocks."""
        storages = {t.untyped_storage().data_ptr(): t for t in (*self.keys, *self.values)}
        return sum(t.untyped_storage().nbytes() for t in storages.values())

    def values_read(self, layer: int) -> tuple[Tensor, ...]:
        """Return the values that a layer reads, in place and in the order of its heads.

        Each tensor is (P, heads, capacity_tokens, head_dim): P runs of heads with one distance
        between any two. A layer with as many value heads as the first has its own alone; one with
        half as many has P = 2, its own and the first layer's upper half; any other has two tensors
        with P = 1, its own and those of the first layer's upper heads that it lacks.
        """
        own, first = self.values[layer], self.values[0]
        shared = first[own.shape[0] :]
        if not shared.shape[0]:
            return (own[None],)
        if shared.shape != own.shape:
            return (own[None], shared[None])
        apart = shared.storage_offset() - own.storage_offset()
        return (own.as_strided((2, *own.shape), (apart, *own.stride())),)

    def copy_prefix(self, source: "KVCache", num_tokens: int) -> None:
        """Copy the first num_tokens of another cache of the same model; there must be room."""
        assert num_tokens <= min(self.capacity_tokens, source.capacity_tokens), "it fits both"
        for new, old in zip(self.parts(0, num_tokens), source.parts(0, num_tokens), strict=True):
            new.copy_(old)

    def parts(self, first: int, num_tokens: int) -> Iterator[Tensor]:
        """Yield what is cached of consecutive tokens, in place: (heads, num_tokens, ...) each."""
        for tensor in (*self.keys, *self.values):
            if tensor.shape[0]:
                yield tensor[:, first : first + num_tokens]

    @property
    def growth_bytes(self) -> int:
        """Bytes of old storage that `reserve` keeps beside the new: values and one layer's keys."""
        return self.values[0].untyped_storage().nbytes() + max(keys.nbytes for keys in self.keys)

    def reserve(self, num_tokens: int) -> None:
        """Make room for num_tokens in all, keeping what is cached; never shrinks.

        Meanwhile it needs `growth_bytes` more.
        """
        capacity = whole_blocks(num_tokens)
        if capacity <= self.capacity_tokens:
            return
        for i, old in enumerate(self.keys):
            self.keys[i] = self._zeros(old.shape[0], capacity, old.shape[2])
            self.keys[i][:, : old.shape[1]] = old
        values = self._zero_values(capacity, self.values[0].shape[2])
        for new, old in zip(values, self.values, strict=True):
            new[:, : old.shape[1]] = old
        self.values = values


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's part of a ragged batch.

    Attributes:
        cache: the sequence's; places below start are filled, and there is room for the rest.
        start: place of the part's first token in the cache.
        num_tokens: length of the part; it is cached below start + num_tokens.
        positions: of its tokens in the text they were taken from, rising, where some of that text
            is left out; None: the same as their places in the cache.
    """

    cache: KVCache
    start: int
    num_tokens: int
    positions: tuple[int, ...] | None = None

    @property
    def position_ids(self) -> Tensor:
        """The positions by which queries and keys are rotated, (num_tokens,)."""
        if self.positions is None:
            return torch.arange(self.start, self.start + self.num_tokens)
        return torch.tensor(self.positions)

    @property
    def positions_end(self) -> int:
        """One past its last position."""
        if self.positions is None:
            return self.start + self.num_tokens
        return self.positions[-1] + 1

    def part(self, first: int, num_tokens: int) -> "Segment":
        """Return num_tokens of its tokens, from its token number `first` on."""
        positions = self.positions
        if positions is not None:
            positions = positions[first : first + num_tokens]
        return Segment(self.cache, self.start + first, num_tokens, positions)


def whole_blocks(num_tokens: int) -> int:
    """Round a number of tokens up to whole blocks of keys."""
    return -(-num_tokens // KEY_BLOCK) * KEY_BLOCK


def check_room(token_ids: Tensor, segments: Sequence[Segment]) -> None:
    """Check what a pass is given: token_ids (T,), the segments' tokens in order.

    Raises:
        EngineError: a cache is too small for its segment.
    """
    assert token_ids.shape == (sum(s.num_tokens for s in segments),), "segments cover the ids"
    for s in segments:
        assert s.positions is None or len(s.positions) == s.num_tokens, "each has a position"
        if s.start + s.num_tokens > s.cache.capacity_tokens:
            raise EngineError(
                f"a cache of {s.cache.capacity_tokens} tokens cannot take positions "
                f"{s.start}..{s.start + s.num_tokens - 1}; reserve more first"
            )
