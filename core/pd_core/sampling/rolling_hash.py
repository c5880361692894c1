"""A labelled stand-in for a model's sampler: token i is a hash of everything before it.

In a fleet measurement many devices are emulated without a model, while the cloud runs real forward
passes. With this sampler on both sides (`sampler: rolling-hash` in every result) the tokens of
cloud and devices agree exactly if no token is lost, duplicated or moved, so a replay still checks
the handoff. It says nothing about text quality.
"""

from collections.abc import Iterable, Sequence

from pd_core.generation import TokenLogprobs
from pd_core.sampling.splitmix import MASK, finalised
from pd_core.sampling_params import SamplingParams

__all__ = ["RollingHash"]

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3


class RollingHash:
    """The state after a prefix of tokens; one step per token (FNV-1a over token ids).

    Args:
        vocab_size: token ids are below this.
        eos_token_ids: ids that end a sequence; only `forced_length` makes one.
        token_ids: the prefix to start from.
    """

    __slots__ = ("_eos_token_ids", "_last", "_num_ordinary", "_state")

    def __init__(
        self, vocab_size: int, eos_token_ids: Sequence[int], token_ids: Iterable[int] = ()
    ) -> None:
        self._eos_token_ids = tuple(sorted(set(eos_token_ids)))
        self._num_ordinary = vocab_size - len(self._eos_token_ids)
        self._state = _OFFSET
        self._last = 0
        self.extend(token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens to the prefix."""
        state = self._state
        for token_id in token_ids:
            state = ((state ^ token_id) * _PRIME) & MASK
            self._last = token_id
        self._state = state

    def next_token(self, position: int, sampling: SamplingParams) -> int:
        """Return the token at response position `position`, given the prefix so far."""
        if sampling.forced_length is not None and position >= sampling.forced_length - 1:
            return self._eos_token_ids[0]
        key = finalised(self._state ^ finalised(sampling.seed ^ (position + 1)))
        token_id = key % self._num_ordinary
        for eos_token_id in self._eos_token_ids:  # in rising order: each skipped id shifts the rest
            token_id += token_id >= eos_token_id
        return token_id

    def logprobs(self, count: int) -> TokenLogprobs:
        """Return a stand-in for what a model would say of the prefix's last token.

        The figures are a hash too, so a test sees whether each came to its own position. The token
        counts as the most likely one; the ids that follow it come next.
        """
        vocab_size = self._num_ordinary + len(self._eos_token_ids)
        logprob = -(finalised(self._state) >> 48) / 2**12  # few bits: float32 holds all below
        ids = tuple((self._last + i) % vocab_size for i in range(min(count, vocab_size)))
        return TokenLogprobs(logprob, ids, tuple(logprob - 32.0 * i for i in range(len(ids))))
