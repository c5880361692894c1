"""DRY ("don't repeat yourself"): a token that carries an earlier stretch of the answer on costs.

Small models fall into loops. DRY, as llama.cpp has it, takes dry_multiplier * dry_base ** (n -
dry_allowed_length) from the logit of a token that would make a stretch of n tokens, already
written once before, one token longer; what repeats by less than dry_allowed_length is free. Here
nothing breaks a stretch, and only the response counts, never the prompt. The cost follows from the
tokens before the position alone, so both sides find the same.
"""

from collections.abc import Sequence

from pd_core.sampling_params import SamplingParams

__all__ = ["HISTORY_TOKENS", "repeated_lengths", "repetition_costs"]

HISTORY_TOKENS = 512  # of the response, before the position
_LONGEST = 64  # longer stretches cost no more


def repetition_costs(history: Sequence[int], params: SamplingParams) -> dict[int, float]:
    """Return what to take from the logits of the tokens that would repeat, by token id.

    Args:
        history: the response before the position, or its last HISTORY_TOKENS at least.
        params: with dry_multiplier above 0.
    """
    allowed = params.dry_allowed_length
    costs = [params.dry_multiplier]
    while len(costs) <= _LONGEST:  # by products alone: a power's last bit is the library's choice
        costs.append(costs[-1] * params.dry_base)
    return {
        token_id: costs[min(length - allowed, _LONGEST)]
        for token_id, length in repeated_lengths(history[-HISTORY_TOKENS:]).items()
        if length >= allowed
    }


def repeated_lengths(history: Sequence[int]) -> dict[int, int]:
    """Return, by the token that came after it, the longest end of the history found earlier in it.

    The Z-algorithm over the reversed history: linear in its length.
    """
    backwards = list(reversed(history))
    num_tokens = len(backwards)
    lengths = [0] * num_tokens  # how far backwards[i:] agrees with backwards
    found: dict[int, int] = {}
    left = right = 0  # the agreeing stretch that reaches furthest
    for i in range(1, num_tokens):
        n = min(right - i, lengths[i - left]) if i < right else 0
        while i + n < num_tokens and backwards[n] == backwards[i + n]:
            n += 1
        lengths[i] = n
        if i + n > right:
            left, right = i, i + n
        following = backwards[i - 1]
        if n > found.get(following, 0):
            found[following] = n
    return found
