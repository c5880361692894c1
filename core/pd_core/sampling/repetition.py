"""What tokens of the answer cost when they come again: presence, frequency, and DRY.

Presence and frequency costs are OpenAI's: presence_penalty for a token that stands in the response,
and frequency_penalty for each time that it does.

DRY ("don't repeat yourself") is for small models, which fall into loops. As in llama.cpp it
subtracts dry_multiplier * dry_base ** (n - dry_allowed_length) from the logit of a token that would
extend a repetition of n tokens; repetitions shorter than dry_allowed_length are free. Here no token
breaks a repetition, and only the response counts, never the prompt.

A cost depends only on the tokens before the position, so both sides compute the same.
"""

from collections.abc import Sequence

from pd_core.sampling.history import History
from pd_core.sampling_params import SamplingParams

__all__ = ["DRY_TOKENS", "dry_costs", "repeated_lengths", "repetition_costs"]

DRY_TOKENS = 512  # of the response, before the position
_LONGEST = 64  # longer stretches cost no more


def repetition_costs(history: History, params: SamplingParams) -> dict[int, float]:
    """Return what to subtract from the logits of tokens that came before, by token id."""
    costs = dict[int, float]()
    if params.presence_penalty or params.frequency_penalty:
        presence, frequency = params.presence_penalty, params.frequency_penalty
        costs = {t: presence + frequency * count for t, count in history.counts().items()}
    if params.dry_multiplier:
        for token_id, cost in dry_costs(history.response_end(DRY_TOKENS), params).items():
            costs[token_id] = costs.get(token_id, 0.0) + cost
    return costs


def dry_costs(response: Sequence[int], params: SamplingParams) -> dict[int, float]:
    """Return DRY's costs, by token id.

    Args:
        response: the response before the position, or its last DRY_TOKENS at least.
        params: with dry_multiplier above 0.
    """
    allowed = params.dry_allowed_length
    costs = [params.dry_multiplier]
    while len(costs) <= _LONGEST:  # by products: the last bit of a power depends on the library
        costs.append(costs[-1] * params.dry_base)
    return {
        token_id: costs[min(length - allowed, _LONGEST)]
        for token_id, length in repeated_lengths(response[-DRY_TOKENS:]).items()
        if length >= allowed
    }


def repeated_lengths(history: Sequence[int]) -> dict[int, int]:
    """Return, for each token that would repeat, the length of the repetition it would extend.

    That is the longest suffix of the history that also occurs earlier, followed by that token. Uses
    the Z-algorithm on the reversed history, linear in its length.
    """
    backwards = list(reversed(history))
    num_tokens = len(backwards)
    lengths = [0] * num_tokens  # length of the common prefix of backwards[i:] and backwards
    found: dict[int, int] = {}
    left = right = 0  # the match that reaches furthest
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
