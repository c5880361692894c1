"""The rolling-hash sampler: each token comes from a hash of all tokens before it (labelled so)."""

from collections.abc import Sequence

from pd_core.generation import TokenLogprobs
from pd_core.sampling.rolling_hash import RollingHash
from pd_server.engine.live_request import LiveRequest

__all__ = ["HashedTokens"]


class HashedTokens:
    """Chooses tokens in the model's place.

    Args:
        vocab_size: token ids are below this.
        eos_token_ids: ids that end a sequence.
    """

    def __init__(self, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(eos_token_ids)

    def next_token(self, request: LiveRequest) -> int:
        """Return the token to append to a request; call once per token."""
        state = request.rolling_hash
        if state is None:
            state = RollingHash(self._vocab_size, self._eos_token_ids, request.token_ids)
            request.rolling_hash = state
        token_id = state.next_token(request.next_position, request.sampling)
        state.extend((token_id,))
        return token_id

    def logprobs(self, request: LiveRequest) -> tuple[TokenLogprobs, ...]:
        """Return what is told of the token that `next_token` has just returned; none: nothing."""
        count, state = request.sampling.logprobs, request.rolling_hash
        return () if count is None or state is None else (state.logprobs(count),)
