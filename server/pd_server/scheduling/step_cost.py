"""What a step costs, from a short measurement: how much prefill fits beside the decodes.

A step's seconds are taken as base + sequence * sequences + token * tokens + key * (keys that the
tokens look at, summed). That holds well enough on CPUs and GPUs alike to keep a decode's gap within
bounds; it predicts nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

__all__ = ["StepCost", "StepSample"]

# With prefill beside it a decode step may take so many times what it takes alone.
_STRETCH = 1.6
_MOST_TOKENS = 1 << 20
# A step of prefill alone takes about so long: a cancel and a newcomer wait for it.
_STEP_S = 0.1
_STEP_TOKENS = range(64, 2048 + 1, 64)
_STEP_POSITION = 1024  # the middle of a prompt that is worth cutting


@dataclass(frozen=True, slots=True)
class StepSample:
    """A measured step.

    Attributes:
        sequences: of which tokens were computed.
        tokens: of all of them.
        keys: that the tokens looked at, summed.
        seconds: it took.
    """

    sequences: int
    tokens: int
    keys: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step.

    Attributes:
        base_s: of any step.
        sequence_s: of each sequence, be it one token of it or many.
        token_s: of each token.
        key_s: of each key that a token looks at.
    """

    base_s: float
    sequence_s: float
    token_s: float
    key_s: float

    @classmethod
    def fitted(cls, samples: Sequence[StepSample]) -> Self:
        """Fit non-negative costs to measured steps, by least squares of the relative errors."""
        weights = np.array([1 / max(sample.seconds, 1e-9) for sample in samples])
        columns = np.array([[1.0, s.sequences, s.tokens, s.keys] for s in samples])
        columns *= weights[:, None]
        kept = [0, 1, 2, 3]
        while True:
            found = np.linalg.lstsq(columns[:, kept], np.ones(len(samples)), rcond=None)[0]
            if (found >= 0).all():
                break
            kept.pop(int(found.argmin()))
        cost = np.zeros(4)
        cost[kept] = found
        return cls(*(float(value) for value in cost))

    def seconds(self, sequences: int, tokens: int, keys: int) -> float:
        """Return what a step is expected to take."""
        of_sequences = self.base_s + self.sequence_s * sequences
        return of_sequences + self.token_s * tokens + self.key_s * keys

    def step_tokens(self, max_num_seqs: int) -> int:
        """Return a step's token budget: what a tenth of a second prefills, in steps of 64.

        However slow the machine is it leaves room for prefill beside decodes in every slot.
        """
        within = [n for n in _STEP_TOKENS if self.seconds(1, n, n * _STEP_POSITION) <= _STEP_S]
        least = -(-2 * max_num_seqs // _STEP_TOKENS.step) * _STEP_TOKENS.step
        return max([least, *within[-1:]])

    def spare_tokens(self, num_decodes: int, position: int) -> int:
        """Return how many tokens, from a position on, may be prefilled beside these decodes."""
        alone_s = self.seconds(num_decodes, num_decodes, num_decodes * position)
        spare_s = max(0.0, (_STRETCH - 1) * alone_s - self.sequence_s)
        one_s = self.token_s + self.key_s * position
        if one_s <= 0:
            return _MOST_TOKENS
        return min(_MOST_TOKENS, int(spare_s / one_s))
