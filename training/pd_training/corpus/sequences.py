"""Packed sequences in a seeded order that can be resumed at any step.

The documents, one after another, are cut into windows of `context_tokens` without gaps; each
window comes with the token after it, so that every token except the first is a target once.
Window i of the run is a pure function of (seed, i), so resuming needs no stored state.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pd_core.errors import ConfigError

__all__ = ["PackedSequences"]


class PackedSequences:
    """Windows over one side of a corpus.

    Args:
        tokens: ids, (num_tokens,).
        context_tokens: inputs per window.
        seed: seed of the order; None keeps the corpus order.

    Attributes:
        num_windows: windows per epoch.

    Raises:
        ConfigError: the corpus is shorter than one window.
    """

    def __init__(
        self, tokens: npt.NDArray[np.unsignedinteger], context_tokens: int, seed: int | None
    ) -> None:
        self.num_windows = max(len(tokens) - 1, 0) // context_tokens
        if not self.num_windows:
            raise ConfigError(
                f"{len(tokens)} tokens are too few for one sequence of {context_tokens}; give "
                "more text (or hold out more of it), or a shorter --context"
            )
        self._tokens = tokens
        self._context_tokens = context_tokens
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def window(self, index: int) -> npt.NDArray[np.int64]:
        """Return window `index` of an endless run: (context_tokens + 1,) ids.

        Every epoch visits every window once, in its own order.
        """
        epoch, place = divmod(index, self.num_windows)
        if self._seed is not None:
            if epoch != self._epoch:
                generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
                # Sorting random integers gives an order that depends on the bit generator alone.
                keys = generator.bit_generator.random_raw(self.num_windows)
                self._order, self._epoch = np.argsort(keys, kind="stable"), epoch
            place = int(self._order[place])
        start = place * self._context_tokens
        return self._tokens[start : start + self._context_tokens + 1].astype(np.int64)

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of windows [first, first + count): (count, T) int64 each."""
        rows = torch.from_numpy(np.stack([self.window(i) for i in range(first, first + count)]))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
