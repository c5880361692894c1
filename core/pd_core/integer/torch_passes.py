"""Integer numerics by torch alone, on any device: slower than the kernels, and the same bits.

Products of small integers run in whatever type holds their sums exactly: int8 or float32 for linear
layers (`exact_products`), float32 for queries and keys, float64 for weights and values. All else is
one operation of a number or two at a time, which every device rounds as IEEE 754 says: none that
fuses two, and no division by a plain number, which torch may turn into a product.

Legend: T tokens of a ragged batch, H query heads, G KV heads, g = H / G, D head dim, n keys.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.errors import EngineError
from pd_core.integer.exact_products import exact_product
from pd_core.integer.integer_cache import IntegerKVCache
from pd_core.integer.weights import (
    GROUP,
    PANEL,
    IntegerWeight,
    LayerWeights,
    quotient,
    scaled_rows,
)
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import Segment
from pd_core.models.rope import rotate

__all__ = ["TorchPasses"]

_TOP = 127 * 16
_WIDE_TOP = 2047
_LIMITS = (127.5, 255.0, 510.0, 1020.0)
_NORM_TOP = 32767
_HEAD_TOP = 127
_MIX_TOP = 32767
# As in Cephes.
_POWERS = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
_FLOAT_DIM = 1040  # elements of a head whose products' sums stay below 2^24


class TorchPasses:
    """Runs a batch through the layers.

    Args:
        config: the model's.
        layers: their weights.
        head: the output layer's weight.
    """

    def __init__(
        self, config: ModelConfig, layers: Sequence[LayerWeights], head: IntegerWeight
    ) -> None:
        self._config = config
        self._layers = layers
        self._head = head
        self._queries: tuple[Tensor, Tensor] | None = None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all codes."""
        weights = [self._head]
        for layer in self._layers:
            weights += [layer.qkv, layer.out, layer.gate_up, layer.down]
        return sum(weight.codes.nbytes for weight in weights)

    def run(
        self, x: Tensor, cos: Tensor, sin: Tensor, segments: Sequence[Segment], stop: int
    ) -> None:
        """Run x: (T, padded hidden) through the first `stop` layers, in place."""
        hidden = self._config.hidden_size
        for index, layer in enumerate(self._layers[:stop]):
            normed = normalise(x[:, :hidden], layer.input_norm, self._config.rms_norm_eps)
            mixed = self._attention(normed, index, cos, sin, segments)
            x += linear(mixed, layer.out)
            normed = normalise(x[:, :hidden], layer.post_norm, self._config.rms_norm_eps)
            both = linear(normed, layer.gate_up).view(len(x), -1, 2, PANEL)
            x += linear(gated(both[:, :, 0].flatten(1), both[:, :, 1].flatten(1)), layer.down)
        if not torch.isfinite(x).all():
            raise EngineError("the model computed a number that is not finite")

    def normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        """Normalise rows x: (R, padded hidden) to the same shape."""
        hidden = self._config.hidden_size
        normed = normalise(x[:, :hidden], weight, self._config.rms_norm_eps)
        return F.pad(normed, (0, x.shape[1] - hidden))

    def logits(self, x: Tensor) -> Tensor:
        """Map rows x: (R, padded hidden) to (R, padded vocabulary)."""
        return linear(x, self._head)

    def last_queries(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return the last layer run's queries: integers (T, H, D) and scales (T, H)."""
        assert self._queries is not None, "a pass has run"
        return self._queries[0][:rows], self._queries[1][:rows]

    def _attention(
        self, x: Tensor, index: int, cos: Tensor, sin: Tensor, segments: Sequence[Segment]
    ) -> Tensor:
        c, layer = self._config, self._layers[index]
        made = linear(x, layer.qkv)[
            :, : (c.num_heads + layer.own_keys + layer.own_values) * c.head_dim
        ]
        parts = [c.num_heads, layer.own_keys, layer.own_values]
        q, k, v = torch.split(made.reshape(len(x), -1, c.head_dim), parts, dim=1)
        if layer.query_norm is not None:
            q = normalise(q, layer.query_norm, c.rms_norm_eps)
        if layer.key_norm is not None:
            k = normalise(k, layer.key_norm, c.rms_norm_eps)
        queries = _codes(rotate(q, cos[:, None], sin[:, None]), _HEAD_TOP)
        keys = _codes(rotate(k, cos[:, None], sin[:, None]), _HEAD_TOP) if layer.own_keys else None
        values = _codes(v, _HEAD_TOP)
        self._queries = queries
        mixed = torch.empty_like(q)
        row = 0
        for s in segments:
            assert isinstance(s.cache, IntegerKVCache), "integer numerics have a cache of their own"
            rows = slice(row, row + s.num_tokens)
            own_keys = None if keys is None else (keys[0][rows], keys[1][rows])
            s.cache.write(index, s.start, own_keys, (values[0][rows], values[1][rows]))
            mixed[rows] = self._attend(index, s, queries[0][rows], queries[1][rows])
            row = rows.stop
        return mixed.flatten(1)

    def _attend(self, index: int, s: Segment, queries: Tensor, scales: Tensor) -> Tensor:
        """Mix one sequence's values by queries (T, H, D) with scales (T, H): (T, H, D)."""
        layer, num_keys = self._layers[index], s.start + s.num_tokens
        assert isinstance(s.cache, IntegerKVCache), "integer numerics have a cache of their own"
        keys, key_scales = s.cache.read_keys(layer.key_layer, num_keys)
        values, value_scales = s.cache.read_values(index, num_keys)
        if layer.own_values < self._config.num_kv_heads:  # SkipV1: the first layer's upper heads
            first, first_scales = s.cache.read_values(0, num_keys)
            values = torch.cat((values, first[layer.own_values :]))
            value_scales = torch.cat((value_scales, first_scales[layer.own_values :]))
        group = self._config.group
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        kind = torch.float32 if queries.shape[-1] <= _FLOAT_DIM else torch.float64
        products = queries.transpose(0, 1).to(kind) @ keys.to(kind).transpose(1, 2)
        scores = products.float() * key_scales.repeat_interleave(group, 0)[:, None]  # (H, T, n)
        position = torch.arange(s.start, num_keys, device=scores.device)
        future = torch.arange(num_keys, device=scores.device) > position[:, None]
        root = float(torch.tensor(1.0 / math.sqrt(queries.shape[-1])))
        most = scores.masked_fill(future, -math.inf).amax(-1, keepdim=True)
        p = exponential((scores - most) * (scales.T[..., None] * root)).masked_fill_(future, 0.0)
        total = torch.round(p * 4194304.0).long().sum(-1, keepdim=True)
        weighted = p * value_scales.repeat_interleave(group, 0)[:, None]
        codes = torch.round(scaled_rows(weighted, _MIX_TOP)[0])
        mixed = codes.double() @ values.double()
        largest = weighted.amax(-1, keepdim=True).double()
        factor = quotient(largest, _MIX_TOP) / (total.double() * 2.0**-22)
        out: Tensor = (mixed * factor).float()
        return out.transpose(0, 1)


def linear(x: Tensor, weight: IntegerWeight) -> Tensor:
    """Map rows x: (R, K) to (R, padded N)."""
    rows, cols = x.shape[0], weight.codes.shape[1]
    padded = F.pad(x, (0, cols - x.shape[1]))
    if weight.planes == 2:
        scaled, scales = scaled_rows(padded, _WIDE_TOP)
        whole = torch.round(scaled).int()
    else:
        scaled, scales = scaled_rows(padded, _TOP)
        groups = scaled.view(rows, -1, GROUP)
        most = groups.abs().amax(-1, keepdim=True)
        shift = sum((most >= limit).int() for limit in _LIMITS)
        whole = (torch.round(groups * (1.0 / (1 << shift))).int() << shift).flatten(1)
    out = exact_product(whole, weight.integers()).float() * scales * weight.scales
    return out if weight.bias is None else out + weight.bias


def normalise(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide x: (..., K) by its root mean square, and multiply by weight (K,)."""
    scaled, rounded_unit = scaled_rows(x, _NORM_TOP)
    codes = torch.round(scaled).long()
    squares = (codes * codes).sum(-1, keepdim=True).double()
    unit = quotient(x.abs().amax(-1, keepdim=True).double(), _NORM_TOP)
    mean = quotient(squares * (unit * unit), x.shape[-1])
    scale = (1.0 / torch.sqrt(mean + float(torch.tensor(eps)))).float()
    return torch.where(rounded_unit == 0, 0.0, (x * scale) * weight)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU of gate, times up."""
    return gate / (1.0 + exponential(-gate)) * up


def exponential(x: Tensor) -> Tensor:
    """exp(x), with x clamped to -87 .. 88."""
    x = x.clamp(-87.0, 88.0)
    n = torch.round(x * 1.44269504088896341)
    x = x - n * 0.693359375
    x = x - n * -2.12194440e-4
    y = torch.full_like(x, _POWERS[0])
    for power in _POWERS[1:]:
        y = y * x
        y = y + power
    y = y * (x * x)
    y = y + x + 1.0
    return y * ((n.int() + 127) << 23).view(torch.float32)


def _codes(heads: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Round heads (T, heads, D) to integers of 8 bits; return those and scales (T, heads)."""
    scaled, scales = scaled_rows(heads, top)
    return torch.round(scaled).int(), scales[..., 0]
