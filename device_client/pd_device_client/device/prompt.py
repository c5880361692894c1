"""From text to a prompt's token ids, with or without the model's chat template."""

from collections.abc import Mapping, Sequence

from pd_core.errors import EngineError, InvalidRequest
from pd_device_client.device.prompt_length import check_length
from pd_device_client.engine.served_model import ServedModel

__all__ = ["conversation_token_ids", "knows_roles", "prompt_token_ids", "text_token_ids"]


def prompt_token_ids(
    loaded: ServedModel, text: str, *, raw: bool, max_context_tokens: int | None = None
) -> tuple[int, ...]:
    """Return the ids of a prompt: a user message in the model's chat template, or plain text.

    Args:
        loaded: the model.
        text: the prompt.
        raw: without the template.
        max_context_tokens: a text that cannot fit so many is refused early; None: none is.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8, or the template refuses it.
        PromptTooLong: it cannot fit.
    """
    if raw:
        return text_token_ids(loaded, text, max_context_tokens=max_context_tokens)
    return conversation_token_ids(
        loaded, [{"role": "user", "content": text}], max_context_tokens=max_context_tokens
    )


def text_token_ids(
    loaded: ServedModel,
    text: str,
    *,
    special: bool = True,
    max_context_tokens: int | None = None,
) -> tuple[int, ...]:
    """Return the ids of a plain text.

    Args:
        loaded: the model.
        text: the text.
        special: add the special tokens that the tokenizer puts before a text.
        max_context_tokens: a text that cannot fit so many is refused early; None: none is.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8.
        PromptTooLong: it cannot fit.
    """
    check_length(loaded.tokenizer, text, max_context_tokens)
    encode = loaded.tokenizer.encode_prompt if special else loaded.tokenizer.encode
    ids = tuple(encode(text)) if text else ()
    if not ids:  # a normaliser may remove the whole text
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    return ids


def conversation_token_ids(
    loaded: ServedModel,
    messages: Sequence[Mapping[str, str]],
    *,
    special: bool | None = None,
    max_context_tokens: int | None = None,
) -> tuple[int, ...]:
    """Return the ids of a conversation, ready for the next answer.

    A template writes the beginning-of-sequence token itself. For a model without a template the
    messages' texts are joined by blank lines, after the tokenizer's special tokens.

    Args:
        loaded: the model.
        messages: each with "role" and "content", both text.
        special: add the tokenizer's special tokens; None: only without a template.
        max_context_tokens: a text that cannot fit so many is refused early; None: none is.

    Raises:
        InvalidRequest: there is no text at all, not even the template's; it is not valid UTF-8; or
            the template refuses it.
        PromptTooLong: it cannot fit.
    """
    if loaded.chat_template is None:
        if not any(message["content"] for message in messages):
            raise InvalidRequest("the prompt is empty; it needs at least one token")
        text = "\n\n".join(message["content"] for message in messages)
        special = special is not False
    else:
        text = loaded.chat_template.render(messages)
    return text_token_ids(
        loaded, text, special=bool(special), max_context_tokens=max_context_tokens
    )


def knows_roles(loaded: ServedModel) -> bool:
    """Return whether the model's template distinguishes roles; a base model only continues text.

    A base model may have a template too, one that only joins the messages' texts.
    """
    if loaded.chat_template is None:
        return False
    texts = set()
    for role in ("user", "assistant"):
        try:
            texts.add(loaded.chat_template.render([{"role": role, "content": "x"}]))
        except (InvalidRequest, EngineError):
            return True  # it refuses a role, so it knows them; or it cannot be asked
    return len(texts) > 1
