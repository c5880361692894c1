"""How prompt scores come out of vLLM: from our worker, or from vLLM's own log-probabilities."""

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

INSTEAD = "prompts are scored by self-information instead of attention, which is another measure"
WORKER = "pd_server.vllm_plugin.scoring_worker.ScoringCPUWorker"
TAKE_SCORES = "take_prompt_scores"


def score_kind(config: EngineConfig) -> ScoreKind:
    """Return what prompt scores are to be; our worker is written for vLLM's CPU one.

    Raises:
        ConfigError: the setting is no kind of score.
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
    """Whether the prefix cache could have queries that the scores need.

    Args:
        num_scored: prompt tokens to score.
        num_token_ids: all tokens of the request, the prompt first.
        block_tokens: of the cache, which gives whole blocks, and never the last token.
    """
    most_cached = (num_token_ids - 1) // block_tokens * block_tokens
    return most_cached > num_scored - min(SCORE_WINDOW, num_scored)


def mean_of_ranks(scores: Sequence[Sequence[float] | None]) -> tuple[float, ...] | None:
    """Return the scores over all heads, given each rank's over its own; None: there are none."""
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

    Nothing foretells the first token, so it gets as much as the most unexpected one.

    Args:
        prompt_logprobs: vLLM's: per position the tokens' log-probabilities; None for the first.
        token_ids: the request's tokens.
        num_scored: of them, those of the prompt.
    """
    surprises = [
        0.0 if found is None else max(0.0, -float(found[token_id].logprob))
        for found, token_id in zip(prompt_logprobs, token_ids[:num_scored], strict=False)
    ]
    surprises[0] = max(surprises)
    total = sum(surprises)
    if total == 0.0:  # each was certain
        return (1.0 / num_scored,) * num_scored
    return tuple(s / total for s in surprises)
