"""The tokens of a sequence at a local engine, whatever computes it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pd_core.errors import EngineError, PromptTooLong
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams

__all__ = ["SequenceTokens"]

logger = logging.getLogger(__name__)


class SequenceTokens:
    """The tokens in a sequence's cache, in order, and what is chosen to follow them.

    Args:
        sampling: how tokens are chosen.
        eos_token_ids: that end an answer.
        most: tokens that fit the model's context.
        kept: the tokens whose keys and values were kept from an earlier answer.

    Attributes:
        num_tokens: that are in the cache; later passes go on behind them.
        ids: those tokens and, after a pass, guesses that were right, or tokens of a pass that
            failed; `feed` drops both.
        held: tokens surely in the cache: a pass whose caller was cancelled does not count.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        eos_token_ids: Sequence[int],
        most: int,
        kept: Sequence[int],
    ) -> None:
        self._sampling = sampling
        self._eos_token_ids = eos_token_ids
        self._most = most
        self._history: History | None = None
        self.num_tokens = len(kept)
        self.ids = list(kept)
        self.held = list(kept)

    def room_for(self, count: int) -> int:
        """Return how many tokens fit behind `count` more.

        Raises:
            PromptTooLong: not even those fit.
        """
        end = self.num_tokens + count
        if end > self._most:
            raise PromptTooLong(
                f"{end} tokens do not fit the local model's context of {self._most}"
            )
        return self._most - end

    @contextmanager
    def computing(self, count: int) -> Iterator[None]:
        """Make what fails in a pass over `count` tokens one error, and log its cause.

        Raises:
            EngineError: the pass failed.
        """
        try:
            yield
        except Exception as error:
            logger.exception("the local engine failed in a pass of %d tokens", count)
            raise EngineError(
                f"the local engine failed: {type(error).__name__}; see the log for the cause"
            ) from error

    def feed(self, token_ids: Sequence[int]) -> None:
        """Note what a pass computes behind the tokens in the cache."""
        if len(self.ids) > self.num_tokens:
            del self.ids[self.num_tokens :]
            self._history = None
        self.ids += token_ids

    def sample(self, logits: torch.Tensor, position: int) -> int:
        """Choose the answer's token at a position.

        Args:
            logits: (1, vocabulary), behind `ids`.
            position: counted from the answer's beginning.
        """
        if self._sampling.looks_back and self._history is None:
            self._history = History(self.ids, len(self.ids) - position)
        params, history = [self._sampling], [self._history]
        return sample(logits, params, [position], self._eos_token_ids, history)[0]
