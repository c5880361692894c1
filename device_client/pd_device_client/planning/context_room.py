"""Whether a side can take a request: its context, its limits, its version."""

from pd_core.errors import InvalidSamplingParams, PdError, PromptTooLong, TokenLimitTooHigh
from pd_core.generation import ServerInfo, needed_api_version
from pd_device_client.contract.ask import Ask

__all__ = ["cloud_problem", "context_problem"]


def context_problem(whose: str, max_context_tokens: int, ask: Ask) -> PdError | None:
    """Return why the request does not fit, or None when it does.

    Args:
        whose: the side, for the message.
        max_context_tokens: limit of prompt and response together.
        ask: the request.
    """
    num_prompt = len(ask.prompt_token_ids)
    if num_prompt + ask.max_tokens <= max_context_tokens:
        return None
    prompt, context = f"the prompt's {num_prompt} tokens", f"{whose}'s context of"
    if num_prompt >= max_context_tokens:  # no limit would help
        return PromptTooLong(
            f"{prompt} do not fit {context} {max_context_tokens}, which must hold the answer too; "
            "shorten the prompt"
        )
    return PromptTooLong(
        f"{prompt} and an answer of {ask.max_tokens} do not fit {context} "
        f"{max_context_tokens}; shorten the prompt or ask for fewer tokens"
    )


def cloud_problem(cloud: ServerInfo, ask: Ask) -> PdError | None:
    """Return why a cloud cannot take a request, or None."""
    if cloud.api_version < needed_api_version(ask.sampling):
        return InvalidSamplingParams(
            "the cloud is of an older version, which has neither min_p nor penalties; update it, "
            "or leave them out"
        )
    if ask.max_tokens > cloud.limits.max_output_tokens:
        return TokenLimitTooHigh(
            f"an answer of {ask.max_tokens} tokens is asked for, and the cloud makes at most "
            f"{cloud.limits.max_output_tokens}; ask for fewer"
        )
    return context_problem("the cloud", cloud.model.max_context_tokens, ask)
