"""The weights of a compressed-tensors directory: whole numbers with scales, several in an int32.

A layer's weight is stored as `weight_packed` (N, K * bits / 32), int32, or as `weight` (N, K),
int8, beside `weight_scale` (N, groups) and perhaps `weight_shape`. Here it has one name and one
shape, as in any checkpoint, and is read as floats, or as the integers that it is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pd_core.checkpoints.checkpoint import Checkpoint
from pd_core.checkpoints.quantization_config import INT_FORMAT, PackedScheme
from pd_core.checkpoints.stored_weights import StoredWeights, joined
from pd_core.errors import ModelError
from pd_core.identity.fingerprint import WeightsDigest
from pd_core.integer.group_rounding import split_scales
from pd_core.integer.weights import GROUP, IntegerWeight

__all__ = ["PackedWeights", "pack", "unpack"]

_SCALE, _PACKED, _SHAPE = "_scale", "_packed", "_shape"
_SCALE_TYPES = ("F32", "F16", "BF16")
_UNREAD = ("_zero_point", "_g_idx", "_global_scale")
_WORD = 32
_PART_NUMBERS = 1 << 18  # unpacked at once


class PackedWeights(StoredWeights):
    """The safetensors files of a compressed-tensors directory.

    Args:
        directory: the directory.
        schemes: those that its config.json names.

    Raises:
        ModelError: as for `Checkpoint`; or the tensors of a layer do not fit each other, or any
            of the schemes.
    """

    def __init__(self, directory: Path, schemes: Sequence[PackedScheme]) -> None:
        self._raw = Checkpoint(directory)
        shapes, types = dict(self._raw.shapes), dict(self._raw.types)
        self._scheme_of: dict[str, PackedScheme] = {}
        for name in [n for n in shapes if n.endswith(".weight" + _SCALE)]:
            weight = name.removesuffix(_SCALE)
            if unread := [weight + end for end in _UNREAD if weight + end in shapes]:
                raise ModelError(
                    f"the weights are not symmetric or sorted ({unread[0]}), which is not supported"
                )
            shape, scheme = self._fitting_scheme(weight, schemes)
            self._scheme_of[weight] = scheme
            for end in (_SCALE, _PACKED, _SHAPE):
                shapes.pop(weight + end, None)
                types.pop(weight + end, None)
            shapes[weight], types[weight] = shape, f"int{scheme.bits}"
        supported = (*_SCALE_TYPES, "int4", "int8")
        super().__init__(self._raw.files, shapes, types, supported)

    def _fitting_scheme(
        self, weight: str, schemes: Sequence[PackedScheme]
    ) -> tuple[list[int], PackedScheme]:
        """Return the shape of a layer's weight, and the scheme that its tensors' shapes are of."""
        shapes, types = self._raw.shapes, self._raw.types
        packed = weight + _PACKED in shapes
        stored = shapes.get(weight + _PACKED if packed else weight, [])
        scales, kind = shapes[weight + _SCALE], types.get(weight + _PACKED if packed else weight)
        if len(stored) == 2 and types[weight + _SCALE] in _SCALE_TYPES:
            shape = self._stored_shape(weight) if packed else stored
            for scheme in schemes:
                wanted = ("I8", shape[1])
                if scheme.format != INT_FORMAT:
                    wanted = ("I32", -(-shape[1] * scheme.bits // _WORD))
                groups = -(-shape[1] // scheme.group) if scheme.group else 1
                told = [shape[0], groups]
                if (kind, stored) == (wanted[0], [shape[0], wanted[1]]) and scales == told:
                    return shape, scheme
        raise ModelError(
            f"tensor {weight} is stored as {kind} of {stored} with scales of {scales}, which is "
            "none of the ways that config.json names (quantization_config)"
        )

    def _stored_shape(self, weight: str) -> list[int]:
        name = weight + _SHAPE
        if self._raw.shapes.get(name) != [2] or self._raw.types[name] not in ("I64", "I32"):
            raise ModelError(f"tensor {name} is missing, or is not two whole numbers")
        shape: list[int] = self._raw.whole(name).tolist()
        if min(shape) < 1:
            raise ModelError(f"tensor {name} is {shape}, which is no shape")
        return shape

    def _whole(self, place: str) -> Tensor:
        return super()._whole(place) if place in self._scheme_of else self._raw.whole(place)

    def _parts(self, place: str) -> Iterator[Tensor]:
        if place not in self._scheme_of:
            yield from self._raw.parts(place)
            return
        group, scales, row = self._scheme_of[place].group, self._scales(place), 0
        for codes in self._codes(place):
            each = scales[row : row + len(codes)]
            if group:
                each = each.repeat_interleave(group, 1)[:, : codes.shape[1]]
            yield codes.float() * each
            row += len(codes)

    def _scales(self, place: str) -> Tensor:
        """Return a weight's scales (N, groups), float32."""
        scales = self._raw.whole(place + _SCALE).float()
        most = scales * (1 << self._scheme_of[place].bits - 1)  # what the largest code stands for
        if not torch.isfinite(most).all() or (scales < 0).any():
            raise ModelError(
                f"tensor {place + _SCALE} holds NaN, infinite or negative values, or too large ones"
            )
        return scales

    def _codes(self, place: str) -> Iterator[Tensor]:
        """Yield a weight's codes (N, K), int8, some rows at a time."""
        scheme, cols = self._scheme_of[place], self._shapes[place][1]
        rows = max(1, _PART_NUMBERS // cols)
        packed = scheme.format != INT_FORMAT
        for part in self._raw.parts(place + _PACKED if packed else place):
            for some in torch.split(part, rows):
                yield unpack(some, scheme.bits, cols) if packed else some

    def packing(self) -> dict[str, Any]:
        """Return the schemes of all layers that are stored as integers."""
        return {"packing": {name: astuple(scheme) for name, scheme in self._scheme_of.items()}}

    def integers(self, name: str, digest: WeightsDigest | None = None) -> IntegerWeight:
        """Return a layer's weight as the integers that are stored.

        Those of 4 bits whose scales are not whole multiples of one of their row's, and those of 8
        bits in groups, are rounded to 8 bits by rows.
        """
        place = self._place(name)
        scheme = self._scheme_of.get(place)
        if scheme is None:
            return super().integers(name, digest)
        if digest is not None:
            for part in self._parts(place):
                digest.add(name, self._shapes[place], part)
        scales = self._scales(place)
        if scheme.bits == 8 and not scheme.group:
            return IntegerWeight(self._all_codes(place), scales[:, 0])
        if self.bits(place) == 4:
            groups = -(-self._shapes[place][1] // GROUP)
            times = scheme.group // GROUP or groups
            split = split_scales(scales.repeat_interleave(times, 1)[:, :groups])
            if split is not None:
                return IntegerWeight(self._all_codes(place), split[1], steps=split[0])
        return self._rounded(name)

    def bits(self, place: str) -> int:
        """Return the bits of what `integers` returns: at most, before the scales are known."""
        scheme = self._scheme_of.get(place)
        return 4 if scheme is not None and scheme.bits == 4 and scheme.group % GROUP == 0 else 8

    def _all_codes(self, place: str) -> Tensor:
        return joined(self._codes(place), self._shapes[place])

    def stored_bytes(self, place: str) -> int:
        """Return how many bytes of the file a tensor's numbers take, without their scales."""
        scheme = self._scheme_of.get(place)
        if scheme is None:
            return self._raw.stored_bytes(place)
        return math.prod(self._shapes[place]) * scheme.bits // 8

    def _type_name(self, place: str, tensor: Tensor) -> str:
        return self._types[place] if place in self._scheme_of else super()._type_name(place, tensor)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes (N, K), int8 of 4 or 8 bits, into int32 words, the first in the lowest bits."""
    per = _WORD // bits
    unsigned = codes.to(torch.int64) + (1 << bits - 1)
    places = torch.nn.functional.pad(unsigned, (0, -codes.shape[1] % per)).view(len(codes), -1, per)
    words = (places << torch.arange(0, _WORD, bits)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack(words: Tensor, bits: int, cols: int) -> Tensor:
    """Undo `pack`: codes (N, cols), int8."""
    unsigned = words.view(torch.uint8)  # the lowest bits are in the first byte
    if bits == 4:
        unsigned = torch.stack((unsigned & 15, unsigned >> 4), -1).flatten(1)
    return (unsigned[:, :cols] - (1 << bits - 1)).view(torch.int8)
