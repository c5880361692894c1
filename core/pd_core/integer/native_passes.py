"""Integer numerics by the native kernels: a whole pass in one call, outside the GIL."""

import ctypes
import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from reprlib import repr as _short

import torch
from torch import Tensor

from pd_core.errors import EngineError
from pd_core.integer.huge_pages import HugePages
from pd_core.integer.integer_cache import IntegerKVCache
from pd_core.integer.kernel_library import (
    Cached,
    LayerPointers,
    LinearPointers,
    SegmentPointers,
    Shape,
    kernel_library,
    wanted_isa,
)
from pd_core.integer.weights import IntegerWeight, LayerWeights
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import Segment

__all__ = ["MOST_ROWS", "NativePasses", "fits_kernels", "serving_kernels"]

logger = logging.getLogger(__name__)

MOST_ROWS = 256
"""Rows of a pass; larger ones are cut."""

_MOST_DIM = 512  # of a head

_NO_MEMORY, _NO_TOKEN = -1, -3


class NativePasses:
    """Runs a batch through the layers; owned by one thread at a time.

    Args:
        library: the kernels.
        config: the model's.
        head: the output layer's weight, which is packed; `pack` takes the layers'.

    Attributes:
        head_panels: the packed codes of the head, (N / 16, K / 4, 16, 4): the weight plus 128.
        weight_bytes: bytes of all that a pass reads: codes, steps, scales, norms and biases.

    Raises:
        EngineError: the processor has not the instruction set that PD_KERNEL asks for.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        config: ModelConfig,
        head: IntegerWeight,
    ) -> None:
        self._library = library
        self._config = config
        self._held: list[Tensor] = []  # what the structures point to
        self._pages = HugePages()
        self.weight_bytes = 0
        self.head_panels = self._packed(head)
        self._head = self._linear(head, self.head_panels)
        self._layers = (LayerPointers * config.num_layers)()
        self._context: int | None = None
        self._threads = 0
        self._end: Callable[[], object] = _nothing
        self._widest = max(
            config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
        )
        chosen: bytes = library.pd_isa(wanted_isa())
        if not chosen:
            raise EngineError(
                f"PD_KERNEL asks for {_short(os.fsdecode(wanted_isa()))}, which this processor or "
                "library has not; leave it unset for the best there is"
            )
        logger.info("the native kernels compute by %s", chosen.decode())

    def pack(self, layers: Iterator[tuple[int, LayerWeights]]) -> None:
        """Pack each layer's weights, given with its index; one at a time is in memory unpacked."""
        for _ in self._layers:
            self._fill(*next(layers))

    def _packed(self, weight: IntegerWeight) -> Tensor:
        panels = self._pages.room(weight.panels_shape)
        weight.write_panels(panels)
        return panels

    def _linear(self, weight: IntegerWeight, panels: Tensor) -> LinearPointers:
        self.weight_bytes += panels.nbytes
        rows, cols = weight.codes.shape
        self._held.append(panels)
        return LinearPointers(
            panels.data_ptr(),
            self._pointer(weight.step_panels()),
            self._pointer(weight.scales),
            self._pointer(weight.bias),
            *(rows, cols, weight.bits, weight.planes),
        )

    def _fill(self, index: int, layer: LayerWeights) -> None:
        place = self._layers[index]
        for name in ("qkv", "out", "gate_up", "down"):
            weight = getattr(layer, name)
            setattr(place, name, self._linear(weight, self._packed(weight)))
        for name in ("input_norm", "post_norm", "query_norm", "key_norm"):
            setattr(place, name, self._pointer(getattr(layer, name)))
        for name in ("own_keys", "own_values", "key_layer"):
            setattr(place, name, getattr(layer, name))

    def _pointer(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self.weight_bytes += tensor.nbytes
        self._held.append(self._pages.hold(tensor))
        return self._held[-1].data_ptr()

    def _opened(self) -> int:
        """Return the context, for as many threads as torch has now."""
        threads = torch.get_num_threads()
        if self._context is not None and threads == self._threads:
            return self._context
        c = self._config
        shape = Shape(
            *(c.hidden_size, c.intermediate_size, c.num_layers),
            *(c.num_heads, c.num_kv_heads, c.head_dim, c.rms_norm_eps),
        )
        context: int | None = self._library.pd_open(
            ctypes.byref(shape), wanted_isa(), threads, MOST_ROWS, self._widest
        )
        if not context:
            raise EngineError("there is no memory, or no thread, for the kernels' working space")
        self._end()
        self._end = weakref.finalize(self, self._library.pd_close, context)
        self._context, self._threads = context, threads
        return context

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the output layer's rows of token ids: (T,), as numbers (T, padded hidden)."""
        assert self._head.bits == 8, "embeddings have no steps"
        ids = token_ids.to(torch.int64).contiguous()
        out = torch.empty(len(ids), self._head.cols)
        _check(
            self._library.pd_embed(
                ctypes.byref(self._head), ids.data_ptr(), len(ids), out.data_ptr()
            )
        )
        return out

    def run(
        self, x: Tensor, cos: Tensor, sin: Tensor, segments: Sequence[Segment], stop: int
    ) -> None:
        """Run x: (T, padded hidden), T at most MOST_ROWS, through `stop` layers, in place."""
        context = self._opened()
        parts = (SegmentPointers * len(segments))()
        row = 0
        for part, s in zip(parts, segments, strict=True):
            assert isinstance(s.cache, IntegerKVCache), "integer numerics have a cache of their own"
            if s.cache.native is None:
                s.cache.native = _pointers(s.cache)
            part.cached = s.cache.native
            part.capacity, part.start = s.cache.capacity_tokens, s.start
            part.count, part.first_row = s.num_tokens, row
            row += s.num_tokens
        assert all(t.is_contiguous() for t in (x, cos, sin)), "rows lie in order"
        code = self._library.pd_run(
            *(context, self._layers, stop, x.data_ptr(), row, cos.data_ptr(), sin.data_ptr()),
            *(parts, len(segments)),
        )
        _check(code)

    def normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        """Normalise rows x: (R, padded hidden) to the same shape."""
        out = x.clone()
        _check(self._library.pd_norm(self._opened(), weight.data_ptr(), out.data_ptr(), len(x)))
        return out

    def logits(self, x: Tensor) -> Tensor:
        """Map rows x: (R, padded hidden) to (R, padded vocabulary)."""
        out = torch.empty(len(x), self._head.rows)
        for first in range(0, len(x), MOST_ROWS):
            rows, to = x[first : first + MOST_ROWS].contiguous(), out[first : first + MOST_ROWS]
            _check(
                self._library.pd_logits(
                    *(self._opened(), ctypes.byref(self._head), rows.data_ptr(), len(rows)),
                    to.data_ptr(),
                )
            )
        return out

    def last_queries(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return the last layer run's queries: integers (T, H, D) and scales (T, H)."""
        c = self._config
        codes = torch.empty(rows, c.num_heads, c.head_dim, dtype=torch.int8)
        scales = torch.empty(rows, c.num_heads)
        self._library.pd_queries(self._opened(), rows, codes.data_ptr(), scales.data_ptr())
        return codes, scales


def fits_kernels(config: ModelConfig) -> bool:
    """Whether the kernels take a model's heads: of a multiple of 16 elements, up to 512."""
    return config.head_dim % 16 == 0 and config.head_dim <= _MOST_DIM


def serving_kernels(config: ModelConfig, device: torch.device) -> ctypes.CDLL | None:
    """Return the kernels that compute a model on a device; None: torch does."""
    return kernel_library() if device.type == "cpu" and fits_kernels(config) else None


def _pointers(cache: IntegerKVCache) -> ctypes.Array[Cached]:
    layers = zip(cache.keys, cache.key_scales, cache.values, cache.value_scales, strict=True)
    made = [Cached(*(tensor.data_ptr() for tensor in layer)) for layer in layers]
    return (Cached * len(made))(*made)


def _nothing() -> None:
    """End no context, as none is open yet."""


def _check(code: int) -> None:
    if code == _NO_MEMORY:
        raise EngineError("there is no memory for the scores of this context")
    if code == _NO_TOKEN:
        raise EngineError("a token id is not of the model's vocabulary")
    if code:
        raise EngineError("the model computed a number that is not finite")
