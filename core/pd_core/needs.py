"""What a request may need of a server that not every server has."""

from enum import StrEnum

from pd_core.sampling_params import SamplingParams

__all__ = ["Need", "sampling_needs"]


class Need(StrEnum):
    """One thing that a request needs; the value names it to a user."""

    FORM = "an answer of a given form"
    LOGPROBS = "logprobs"
    BIAS = "logit_bias"
    MIN_TOKENS = "min_tokens"
    DRY = "DRY"
    PROMPT = "a prompt, or functions, calls or values for the chat template"


def sampling_needs(sampling: SamplingParams) -> frozenset[Need]:
    """Return what these parameters need of whoever chooses tokens by them."""
    asked = {
        Need.FORM: sampling.constraint is not None,
        Need.LOGPROBS: sampling.logprobs is not None,
        Need.BIAS: bool(sampling.logit_bias),
        Need.MIN_TOKENS: bool(sampling.min_tokens),
        Need.DRY: sampling.dry_multiplier != 0.0,
    }
    return frozenset(need for need, there in asked.items() if there)
