"""Prompts of a trace row's length, as traces have no text: made ids, or pieces of a text."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pd_bench.traces.row import TraceRow
from pd_core.errors import ConfigError
from pd_core.sampling.splitmix import INCREMENT, MASK, mixed_array

__all__ = ["PromptMaker", "Prompts", "TextPieces"]

_ROW, _BLOCK = 1, 2  # the kind of a key, so that row 7 and block 7 differ


class Prompts(Protocol):
    """Where prompts come from."""

    def prompt(self, row: TraceRow, num_tokens: int) -> tuple[int, ...]:
        """Return the row's prompt of `num_tokens` tokens."""
        ...


class PromptMaker:
    """Makes the prompt of a row: the same row (or block hash) and seed give the same tokens.

    Rows with block hashes share the tokens of equal blocks, so that prefix caches see the reuse of
    the traced service; rows without hashes share nothing.

    Args:
        vocab_size: token ids are below this.
        eos_token_ids: never part of a prompt.
        seed: a different seed gives different prompts.

    Raises:
        ConfigError: every token of the vocabulary ends a sequence.
    """

    def __init__(self, vocab_size: int, eos_token_ids: Sequence[int], seed: int) -> None:
        ordinary = np.arange(vocab_size, dtype=np.int64)
        self._ordinary = ordinary[~np.isin(ordinary, np.asarray(eos_token_ids, dtype=np.int64))]
        if not len(self._ordinary):
            raise ConfigError(
                f"a vocabulary of {vocab_size} ids has none that does not end a sequence"
            )
        self._seed = seed

    def prompt(self, row: TraceRow, num_tokens: int) -> tuple[int, ...]:
        """Return the first `num_tokens` tokens of the row's prompt."""
        if row.block_hashes is None:
            ids = self._tokens(_ROW, row.line, num_tokens)
        else:
            num_blocks = -(-num_tokens // row.block_tokens)
            blocks = [
                self._tokens(_BLOCK, block_hash, row.block_tokens)
                for block_hash in row.block_hashes[:num_blocks]
            ]
            ids = np.concatenate(blocks)[:num_tokens]
        assert len(ids) == num_tokens, f"a prompt of {len(ids)} tokens instead of {num_tokens}"
        return tuple(ids.tolist())

    def _tokens(self, kind: int, key: int, num_tokens: int) -> NDArray[np.int64]:
        start = np.zeros(1, np.uint64)
        for part in (self._seed, kind, key):
            start = mixed_array(start ^ np.array([part & MASK], np.uint64))
        state = start + np.uint64(INCREMENT) * np.arange(1, num_tokens + 1, dtype=np.uint64)
        chosen: NDArray[np.int64] = self._ordinary[
            (mixed_array(state) % np.uint64(len(self._ordinary))).astype(np.int64)
        ]
        return chosen


class TextPieces:
    """Prompts that are pieces of one real text; the same row and seed give the same piece.

    Args:
        token_ids: the text's.
        seed: a different seed gives other pieces.
    """

    def __init__(self, token_ids: Sequence[int], seed: int) -> None:
        self._token_ids = tuple(token_ids)
        self._seed = seed

    def prompt(self, row: TraceRow, num_tokens: int) -> tuple[int, ...]:
        """Return `num_tokens` tokens of the text, from somewhere in it.

        Raises:
            ConfigError: the text has fewer tokens.
        """
        spare = len(self._token_ids) - num_tokens
        if spare < 0:
            raise ConfigError(
                f"line {row.line} asks for a prompt of {num_tokens} tokens, and the text has "
                f"{len(self._token_ids)}; give a longer --text, or a --max-prompt-tokens"
            )
        key = np.array([(self._seed ^ (row.line * INCREMENT)) & MASK], np.uint64)
        start = int(mixed_array(key)[0]) % (spare + 1)
        return self._token_ids[start : start + num_tokens]
