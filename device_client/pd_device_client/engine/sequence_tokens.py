"""The tokens of a sequence at a local engine, whatever computes it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pd_core.errors import EngineError, InvalidConstraint, PromptTooLong
from pd_core.generation import TokenLogprobs
from pd_core.grammar.matcher import Matcher
from pd_core.sampling.history import History
from pd_core.sampling.logprobs import asked_logprobs
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
        prompt: all of the prompt, of which some may be left out.
        form: the answer's place in the form asked for; None: any form will do.

    Attributes:
        num_tokens: that are in the cache; later passes go on behind them.
        num_left_out: of the prompt before them, that are not in the cache.
        ids: the tokens in the cache and those left out, so that sampling looks back at the same
            text as the cloud's; after a pass also guesses that were right, or tokens of a pass
            that failed; `feed` drops both.
        held: tokens surely in the cache: a pass whose caller was cancelled does not count, nor
            does what is computed behind tokens left out.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        eos_token_ids: Sequence[int],
        most: int,
        kept: Sequence[int],
        prompt: Sequence[int] = (),
        form: Matcher | None = None,
    ) -> None:
        self._form = form
        self._sampling = sampling
        self._eos_token_ids = eos_token_ids
        self._most = most
        self._history: History | None = None
        self._prompt = prompt
        self.num_left_out = 0
        self.num_tokens = len(kept)
        self.ids = list(kept)
        self.held = list(kept)

    @property
    def next_position(self) -> int:
        """The position of the next token, if none is left out before it."""
        return self.num_tokens + self.num_left_out

    def room_for(self, count: int) -> int:
        """Return how many tokens fit behind `count` more, those left out included.

        Raises:
            PromptTooLong: not even those fit.
        """
        end = self.next_position + count
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
            InvalidConstraint: the form asked for cannot be used.
        """
        try:
            yield
        except InvalidConstraint:
            raise
        except Exception as error:
            logger.exception("the local engine failed in a pass of %d tokens", count)
            raise EngineError(
                f"the local engine failed: {type(error).__name__}; see the log for the cause"
            ) from error

    def feed(self, token_ids: Sequence[int], positions: Sequence[int] | None = None) -> None:
        """Note what a pass computes behind the tokens in the cache; None: at the next positions."""
        if len(self.ids) > self.next_position:
            del self.ids[self.next_position :]
            self._history = None
        if positions is None:
            self.ids += token_ids
            return
        for token_id, position in zip(token_ids, positions, strict=True):
            self.ids += self._prompt[len(self.ids) : position]
            self.ids.append(token_id)
        assert len(self.ids) == positions[-1] + 1, "only the prompt's are left out"

    def passed(self, positions: Sequence[int]) -> None:
        """Count the tokens at these positions as being in the cache."""
        self.num_tokens += len(positions)
        self.num_left_out = positions[-1] + 1 - self.num_tokens

    def hold(self, token_ids: Sequence[int]) -> None:
        """Count tokens as surely there; not behind some left out, as those differ."""
        if not self.num_left_out:
            self.held += token_ids

    def sample(self, logits: torch.Tensor, position: int) -> tuple[int, TokenLogprobs | None]:
        """Choose the answer's token at a position, and say how likely it was if that is asked.

        Args:
            logits: (1, vocabulary), behind `ids`.
            position: counted from the answer's beginning.
        """
        if self._sampling.looks_back and self._history is None:
            self._history = History(self.ids, len(self.ids) - position)
        params, history, masks = [self._sampling], [self._history], None
        if self._form is not None:
            masks = [self._form.mask(self.ids[len(self.ids) - position :])]
        tokens = sample(logits, params, [position], self._eos_token_ids, history, masks)
        return tokens[0], asked_logprobs(logits, params, tokens)[0]
