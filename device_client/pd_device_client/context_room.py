"""Whether a request fits a side's context."""

from pd_core.errors import PdError, PromptTooLong, TokenLimitTooHigh
from pd_core.generation import Limits
from pd_device_client.outcome import GenerationRequest

__all__ = ["cloud_problem", "context_problem"]


def context_problem(
    whose: str, max_context_tokens: int, request: GenerationRequest
) -> PdError | None:
    """Return why the request does not fit, or None when it does.

    Args:
        whose: the side, for the message.
        max_context_tokens: prompt and response together.
        request: the request.
    """
    num_prompt = len(request.prompt_token_ids)
    if num_prompt + request.max_tokens <= max_context_tokens:
        return None
    return PromptTooLong(
        f"the prompt's {num_prompt} tokens and max_tokens of {request.max_tokens} do not fit "
        f"{whose}'s context of {max_context_tokens}; shorten the prompt or lower max_tokens"
    )


def cloud_problem(limits: Limits, request: GenerationRequest) -> PdError | None:
    """Return why a cloud cannot take a request, or None."""
    if request.max_tokens > limits.max_output_tokens:
        return TokenLimitTooHigh(
            f"max_tokens is {request.max_tokens}; the cloud allows {limits.max_output_tokens}: "
            "ask for fewer"
        )
    return context_problem("the cloud", limits.max_context_tokens, request)
