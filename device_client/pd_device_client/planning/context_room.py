"""Whether a side can take a request: its context, its limits, its version, what it lacks."""

from collections.abc import Collection

from pd_core.errors import (
    InvalidConstraint,
    InvalidRequest,
    InvalidSamplingParams,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
)
from pd_core.generation import ModelCard, ServerInfo, needed_api_version
from pd_core.needs import Need, sampling_needs
from pd_device_client.contract.ask import Ask

__all__ = ["cloud_problem", "context_problem", "device_problem"]


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


def device_problem(engine: ModelCard, ask: Ask) -> PdError | None:
    """Return why the local engine cannot take a request, or None."""
    if ask.sampling.constraint is not None and not engine.grammar_library:
        return InvalidConstraint(
            f"the local engine ({engine.name}) holds no answer to a form; leave the form out, or "
            "install llguidance: pip install 'pd-device[device]'"
        )
    return _engine_problem("the local model", engine, ask)


def cloud_problem(cloud: ServerInfo, ask: Ask, engine: ModelCard | None = None) -> PdError | None:
    """Return why a cloud cannot take a request, or None; `engine`: the local one, if there is."""
    if lacking := _needs(ask) & cloud.lacks:
        return InvalidRequest(
            f"the cloud ({cloud.model.engine}) is not asked for {_listed(lacking)}; leave that out "
            "to use it, or use a pd-server as the cloud"
        )
    if ask.sampling.constraint is not None:
        ours = "" if engine is None else engine.grammar_library
        if (problem := _form_problem(cloud.model.grammar_library, ours)) is not None:
            return problem
    if cloud.api_version < needed_api_version(ask.sampling):
        return InvalidSamplingParams(
            "the cloud is of an older version, which lacks some of min_p, penalties, logit_bias, "
            "min_tokens and logprobs; update it, or leave them out"
        )
    if ask.max_tokens > cloud.limits.max_output_tokens:
        return TokenLimitTooHigh(
            f"an answer of {ask.max_tokens} tokens is asked for, and the cloud makes at most "
            f"{cloud.limits.max_output_tokens}; ask for fewer"
        )
    return _engine_problem("the cloud", cloud.model, ask)


def _needs(ask: Ask) -> frozenset[Need]:
    """Return what a request needs that not every cloud has."""
    return sampling_needs(ask.sampling) | ({Need.PROMPT} if not ask.messages else frozenset())


def _listed(needs: Collection[Need]) -> str:
    return ", ".join(need for need in Need if need in needs)


def _engine_problem(whose: str, model: ModelCard, ask: Ask) -> PdError | None:
    if ask.sampling.logprobs is not None and not model.logprobs:
        return InvalidRequest(
            f"logprobs are asked for, and {whose}'s engine ({model.engine}) gives none; leave them "
            "out"
        )
    return context_problem(whose, model.max_context_tokens, ask)


def _form_problem(theirs: str, ours: str) -> InvalidConstraint | None:
    if not theirs:
        return InvalidConstraint(
            "the cloud holds no answer to a form; update it, use its torch engine, or leave the "
            "form out"
        )
    if ours and ours != theirs:
        return InvalidConstraint(
            f"the cloud compiles forms with {theirs}, this device with {ours}, which may differ in "
            "what they allow; install the same version of llguidance on both sides"
        )
    return None
