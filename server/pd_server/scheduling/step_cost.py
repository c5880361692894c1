"""The cost of a step, fitted to a short measurement: how much prefill fits beside the decodes.

The model is seconds = base + sequence * sequences + token * tokens + key * (keys that the tokens
attend to, summed). On CPUs and GPUs alike it is good enough to keep a decode's gap within bounds;
it is meant for nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

__all__ = ["StepCost", "StepSample"]

# With prefill beside it, a decode step may take this many times as long as alone.
_STRETCH = 1.6
_MOST_TOKENS = 1 << 20
# Target seconds of a step that only prefills: a cancel or a new request waits for it.
_STEP_S = 0.1
_STEP_TOKENS = range(64, 2048 + 1, 64)
_STEP_POSITION = 1024  # the middle of a prompt long enough to be cut into chunks


@dataclass(frozen=True, slots=True)
class StepSample:
    """A measured step.

    Attributes:
        sequences: sequences computed.
        tokens: tokens computed, over all sequences.
        keys: keys attended to, summed over the tokens.
        seconds: duration.
    """

    sequences: int
    tokens: int
    keys: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepCost:
    """The cost of a step, in seconds.

    Attributes:
        base_s: cost of any step.
        sequence_s: cost of each sequence, whatever its number of tokens.
        token_s: cost of each token.
        key_s: cost of each key that a token attends to.
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
        """Return the expected seconds of a step."""
        of_sequences = self.base_s + self.sequence_s * sequences
        return of_sequences + self.token_s * tokens + self.key_s * keys

    def step_tokens(self, max_num_seqs: int) -> int:
        """Return a step's token budget: what a tenth of a second prefills, a multiple of 64.

        On any machine it leaves room for prefill beside decodes in every slot.
        """
        within = [n for n in _STEP_TOKENS if self.seconds(1, n, n * _STEP_POSITION) <= _STEP_S]
        least = -(-2 * max_num_seqs // _STEP_TOKENS.step) * _STEP_TOKENS.step
        return max([least, *within[-1:]])

    def spare_tokens(self, num_decodes: int, position: int, decode_gap_s: float = 0.0) -> int:
        """Return how many tokens, from a position on, may be prefilled beside these decodes.

        Args:
            num_decodes: streams that get a token in the step.
            position: of the first token of the prefill.
            decode_gap_s: the step may take this long, even where that stretches it by more.
        """
        alone_s = self.seconds(num_decodes, num_decodes, num_decodes * position)
        longest_s = max(_STRETCH * alone_s, decode_gap_s)
        spare_s = max(0.0, longest_s - alone_s - self.sequence_s)
        one_s = self.token_s + self.key_s * position
        if one_s <= 0:
            return _MOST_TOKENS
        return min(_MOST_TOKENS, int(spare_s / one_s))
