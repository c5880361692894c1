"""Whether torch computes integer numerics' bits on a device: probed, not assumed.

A GPU, its driver or a build of torch may round in its own way. So before a model is computed by
torch, a small one is, and single operations on many numbers, as activations that become integers
hide most last bits. What comes out is compared with the bits of every machine.
"""

import functools
import hashlib
from collections.abc import Iterator
from textwrap import shorten

import torch
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.identity.numerics import unchecked
from pd_core.integer import torch_passes
from pd_core.integer.integer_lm import IntegerLM
from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import Segment
from pd_core.models.rope import rotate

__all__ = ["check_bits"]

_CONFIG = ModelConfig(64, 72, 100, 2, 4, 2, 24, 512, family="qwen3")
"""Its heads are of a size that the native kernels do not take, so that torch computes."""
_CHUNKS = ((0, 33), (33, 34), (34, 40))
_DIGEST = "6273b7ef3d1b7b9b4cf4b2f17a8a7e34933c605bd630251a8d80e70ae4bcdd58"


@functools.cache
def check_bits(device: torch.device) -> None:
    """Compute a small model on a device, in chunks, and look at the bits.

    Raises:
        ModelError: they are not those of the definition, or it cannot be computed there.
    """
    try:
        found = hashlib.sha256()
        for made in (_logits(device), *_single_operations(device)):
            found.update(made.cpu().contiguous().numpy().tobytes())
    except (RuntimeError, NotImplementedError, TypeError) as error:  # as torch says it
        reason = shorten(str(error), 100, placeholder=" ...")
        raise ModelError(
            f"integer numerics cannot be computed on {device} ({reason}); use --device cpu or "
            "--numerics float32"
        ) from error
    if found.hexdigest() != _DIGEST:
        raise ModelError(
            f"torch on {device} does not compute the bits of integer numerics, so no answer could "
            "be handed over unchanged; build the native kernels, which serve the CPU (`python -m "
            "pd_core.integer.build`), or use --numerics float32"
        )


def _logits(device: torch.device) -> Tensor:
    shapes = CausalLM(_CONFIG, unchecked("meta"), device=torch.device("meta")).tensors()
    model = IntegerLM(_CONFIG, lambda name: _numbers(shapes[name]), device=device)
    cache, ids = model.make_cache(1), torch.arange(_CHUNKS[-1][1])
    rows = [
        model.logits(model.forward(ids[first:end], [Segment(cache, first, end - first)]))
        for first, end in _CHUNKS
    ]
    return torch.cat(rows)


def _single_operations(device: torch.device) -> Iterator[Tensor]:
    a, b = (_numbers(torch.empty(shape)).to(device) for shape in ((256, 96), (96, 256)))
    b = b.T * 3.0
    yield torch_passes.gated(9.0 * a, b)
    yield torch_passes.normalise(a, b[0], 1e-6)
    yield rotate(a[:, None], b[:, None, :48], b[:, None, 48:])


def _numbers(like: Tensor) -> Tensor:
    """Return numbers of 13 bits between -1 and 1, the same everywhere."""
    mixed = torch.arange(1, like.numel() + 1) * 2654435761 % 4294967291
    return ((mixed >> 9) % 8193 - 4096).float().reshape(like.shape) / 4096.0
