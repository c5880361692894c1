"""The prompts of a request as token ids, and whose fault it is when there is none."""

from functools import partial

from pd_core.errors import (
    ContradictoryPromises,
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_device_client.api.completions.messages import turns
from pd_device_client.api.completions.parameters import ChatParameters, CompletionParameters
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.tools.prompt import ChatPrompt
from pd_device_client.device.device import Device
from pd_device_client.device.prompt import text_token_ids

__all__ = ["blamed", "chat_prompt", "plain_messages", "prompt_name", "prompts_of"]


async def prompts_of(
    device: Device, asked: ChatParameters | CompletionParameters
) -> list[tuple[int, ...]]:
    """Return the token ids of each prompt of a request.

    Raises:
        Refusal: a prompt is wrong, or far too long.
    """
    if isinstance(asked, ChatParameters):
        longest = device.client.max_context_tokens
        chat = ChatPrompt(
            turns(asked.messages),
            asked.offer,
            asked.template_values,
            formed=asked.constraint is not None,
        )
        return [await chat_prompt(device, chat, asked.add_special_tokens, longest)]
    prompt, special = asked.prompt, asked.add_special_tokens is not False
    if isinstance(prompt, str):
        return [await _text_prompt(device, prompt, "prompt", special=special)]
    if isinstance(prompt[0], int):
        return [tuple(token_id for token_id in prompt if isinstance(token_id, int))]
    prompts = list[tuple[int, ...]]()
    for i, part in enumerate(prompt):
        if isinstance(part, str):
            prompts.append(await _text_prompt(device, part, f"prompt[{i}]", special=special))
        elif isinstance(part, list):
            prompts.append(tuple(part))
    return prompts


def plain_messages(asked: ChatParameters) -> tuple[dict[str, str], ...]:
    """Return a chat as a cloud that takes text wants it; empty where it is more than plain text.

    Functions, and whatever else this device's template writes into a prompt, would be lost there.
    """
    said = turns(asked.messages)
    if asked.offer is not None or asked.template_values:
        return ()
    if any(turn.text is None or turn.calls or turn.answers for turn in said):
        return ()
    return tuple({"role": turn.role, "content": turn.text or ""} for turn in said)


async def chat_prompt(
    device: Device,
    chat: ChatPrompt,
    special: bool | None = None,
    max_context_tokens: int | None = None,
) -> tuple[int, ...]:
    """Return a chat's token ids; the template may take seconds, so it runs in a worker thread.

    Args:
        device: its model's template is used.
        chat: the chat.
        special: add the tokenizer's special tokens; None: only without a template.
        max_context_tokens: a text that cannot fit so many is refused early; None: none is.

    Raises:
        Refusal: the template refuses the chat, or it cannot fit.
    """
    try:
        return await device.encoded(
            chat.num_characters,
            partial(
                chat.token_ids,
                device.loaded,
                special=special,
                max_context_tokens=max_context_tokens,
            ),
            renders=device.loaded.chat_template is not None,
        )
    except (InvalidRequest, PromptTooLong) as error:
        raise blamed(error, "messages") from error


async def _text_prompt(device: Device, text: str, where: str, *, special: bool) -> tuple[int, ...]:
    encode = partial(
        text_token_ids,
        device.loaded,
        text,
        special=special,
        max_context_tokens=device.client.max_context_tokens,
    )
    try:
        return await device.encoded(len(text), encode)
    except (InvalidRequest, PromptTooLong) as error:
        raise blamed(error, where) from error


def prompt_name(asked: ChatParameters | CompletionParameters) -> str:
    """Return the parameter that holds the prompt."""
    return "messages" if isinstance(asked, ChatParameters) else "prompt"


def blamed(error: PdError, where: str, limit_name: str = "max_tokens") -> PdError:
    """Return an error of a lower layer as a refusal that names the parameter at fault.

    Args:
        error: the error.
        where: the prompt's parameter.
        limit_name: the token limit's parameter.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, PromptTooLong):
        return Refusal(str(error), where, code="context_length_exceeded")
    if isinstance(error, TokenLimitTooHigh):
        return Refusal(f"{limit_name}: {error}", limit_name, code="context_length_exceeded")
    if isinstance(error, ContradictoryPromises):
        return Refusal(str(error), "pd")
    if isinstance(error, TokenOutOfVocabulary) or type(error) is InvalidRequest:
        return Refusal(str(error), where)
    return error
