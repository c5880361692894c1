"""Where vLLM's prompt scores come from: our worker, or vLLM's own log-probabilities."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pd_core.errors import ConfigError
from pd_core.models.prompt_scores import SCORE_WINDOW
from pd_server.config import EngineConfig
from pd_server.engine.contract import ScoreKind

__all__ = [
    "INSTEAD",
    "TAKE_SCORES",
    "WORKER",
    "mean_of_ranks",
    "score_kind",
    "self_information",
    "window_may_be_cached",
]

logger = logging.getLogger(__name__)

INSTEAD = "prompts are scored by self-information instead of attention, a different measure"
WORKER = "pd_server.vllm_plugin.scoring_worker.ScoringCPUWorker"
TAKE_SCORES = "take_prompt_scores"


def score_kind(config: EngineConfig) -> ScoreKind:
    """Return the kind of prompt scores; our worker, for attention, extends vLLM's CPU worker.

    Raises:
        ConfigError: the setting names no kind of score.
    """
    if config.vllm.prompt_scores not in tuple(ScoreKind):
        raise ConfigError(
            f"prompt_scores is {config.vllm.prompt_scores!r}; it must be one of "
            f"{', '.join(ScoreKind)}"
        )
    from vllm.platforms import current_platform

    wanted = ScoreKind(config.vllm.prompt_scores)
    if wanted is ScoreKind.ATTENTION and not current_platform.is_cpu():
        logger.warning("prompt scores from attention are for vLLM on a CPU; %s", INSTEAD)
        return ScoreKind.SELF_INFORMATION
    return wanted


def window_may_be_cached(num_scored: int, num_token_ids: int, block_tokens: int) -> bool:
    """Whether prefix caching could skip tokens whose queries the scores need.

    Args:
        num_scored: prompt tokens to score.
        num_token_ids: all tokens of the request, the prompt first.
        block_tokens: tokens of a cache block; hits are whole blocks, never with the last token.
    """
    most_cached = (num_token_ids - 1) // block_tokens * block_tokens
    return most_cached > num_scored - min(SCORE_WINDOW, num_scored)


def mean_of_ranks(scores: Sequence[Sequence[float] | None]) -> tuple[float, ...] | None:
    """Return the mean of each rank's scores, over all heads; None unless every rank has scores."""
    known = [ranks for ranks in scores if ranks is not None]
    if not known or len(known) < len(scores):
        return None
    return tuple(sum(column) / len(known) for column in zip(*known, strict=True))


def self_information(
    prompt_logprobs: Sequence[Mapping[int, Any] | None],
    token_ids: Sequence[int],
    num_scored: int,
) -> tuple[float, ...]:
    """Return how unexpected each prompt token was, as shares that add up to 1.

    The first token has no probability, so it gets as much as the most unexpected one.

    Args:
        prompt_logprobs: vLLM's log-probabilities of the tokens by position; None for the first.
        token_ids: the request's tokens.
        num_scored: number of prompt tokens among them.
    """
    surprises = [
        0.0 if found is None else max(0.0, -float(found[token_id].logprob))
        for found, token_id in zip(prompt_logprobs, token_ids[:num_scored], strict=False)
    ]
    surprises[0] = max(surprises)
    total = sum(surprises)
    if total == 0.0:  # every token was certain
        return (1.0 / num_scored,) * num_scored
    return tuple(s / total for s in surprises)
