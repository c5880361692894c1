"""What the parameters of one request must be to each other and to the model."""

from pd_device_client.api.completions.parameters import ChatParameters, CompletionParameters
from pd_device_client.api.http.errors import Refusal

__all__ = ["check_ids", "check_together"]


def check_ids(asked: ChatParameters | CompletionParameters, num_token_ids: int) -> None:
    """Refuse a token that no answer can have, because it would silently have no effect.

    Raises:
        Refusal: names it.
    """
    named = {
        f"stop_token_ids[{index}]": token_id
        for index, token_id in enumerate(asked.stop_token_ids or ())
    }
    named |= {f"logit_bias.{token_id}": token_id for token_id, _ in asked.biases}
    for name, token_id in named.items():
        if token_id >= num_token_ids:
            raise Refusal(
                f"{name} is {token_id}; ids of this model lie below {num_token_ids}", name
            )


def check_together(asked: ChatParameters | CompletionParameters) -> None:
    """Refuse parameters that contradict each other.

    Raises:
        Refusal: names one of them.
    """
    limit, limit_name = asked.limit
    if limit is not None and (asked.min_tokens or 0) > limit:
        raise Refusal(
            f"min_tokens is {asked.min_tokens}, and {limit_name} {limit} lies below it; raise "
            f"{limit_name}, or lower min_tokens",
            "min_tokens",
        )
    if asked.min_tokens and asked.stops:
        raise Refusal(
            "min_tokens does not hold back stop strings; leave out one of them, or give "
            "stop_token_ids, which it does hold back",
            "min_tokens",
        )
    if asked.min_tokens and asked.constraint is not None:
        raise Refusal(
            "min_tokens does not go with a form: the answer ends where the form is complete; leave "
            "out one of them",
            "min_tokens",
        )
    if isinstance(asked, ChatParameters) and asked.top_logprobs and not asked.logprobs:
        raise Refusal("top_logprobs needs logprobs: true", "top_logprobs")
    if asked.prompt_logprobs is not None and asked.stream:
        raise Refusal(
            "prompt_logprobs are told of complete answers only; leave out stream, or ask for "
            "echo with logprobs in a completion",
            "prompt_logprobs",
        )
