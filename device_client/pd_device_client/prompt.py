"""From a user's words to a prompt's token ids: by the model's chat template, or as they are."""

from collections.abc import Mapping, Sequence

from pd_core.errors import InvalidRequest
from pd_core.models import LoadedModel

__all__ = ["conversation_token_ids", "knows_roles", "prompt_token_ids", "text_token_ids"]


def prompt_token_ids(loaded: LoadedModel, text: str, *, raw: bool) -> tuple[int, ...]:
    """Return the ids of a prompt: a user's message by the model's chat template, or plain text.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8, or the template refuses it.
    """
    if raw:
        return text_token_ids(loaded, text)
    return conversation_token_ids(loaded, [{"role": "user", "content": text}])


def text_token_ids(loaded: LoadedModel, text: str) -> tuple[int, ...]:
    """Return the ids of a plain text, with what the tokenizer puts before it.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8.
    """
    if not text:
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    return tuple(loaded.tokenizer.encode_prompt(text))


def conversation_token_ids(
    loaded: LoadedModel, messages: Sequence[Mapping[str, str]]
) -> tuple[int, ...]:
    """Return the ids of a conversation that an answer is to follow.

    A template writes the beginning of the sequence itself where the model wants one. For a model
    without a template the messages' texts follow one another, a blank line between two, after
    what the tokenizer puts before a text.

    Args:
        loaded: the model.
        messages: each with "role" and "content", both text.

    Raises:
        InvalidRequest: there is no text, it is not valid UTF-8, or the template refuses it.
    """
    if not any(message["content"] for message in messages):
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    if loaded.chat_template is None:
        return text_token_ids(loaded, "\n\n".join(message["content"] for message in messages))
    return tuple(loaded.tokenizer.encode(loaded.chat_template.render(messages)))


def knows_roles(loaded: LoadedModel) -> bool:
    """Say whether a model answers messages; a base model goes on with a text, whoever wrote it.

    A template may be there all the same, and only put the messages' texts one after another.
    """
    if loaded.chat_template is None:
        return False
    texts = set()
    for role in ("user", "assistant"):
        try:
            texts.add(loaded.chat_template.render([{"role": role, "content": "x"}]))
        except InvalidRequest:
            return True  # it minds who speaks
    return len(texts) > 1
