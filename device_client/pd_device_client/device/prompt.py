"""From a user's words to a prompt's token ids: by the model's chat template, or as they are."""

from collections.abc import Mapping, Sequence

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import InvalidRequest

__all__ = ["conversation_token_ids", "knows_roles", "prompt_token_ids", "text_token_ids"]


def prompt_token_ids(loaded: LoadedModel, text: str, *, raw: bool) -> tuple[int, ...]:
    """Return the ids of a prompt: a user's message by the model's chat template, or plain text.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8, or the template refuses it.
    """
    if raw:
        return text_token_ids(loaded, text)
    return conversation_token_ids(loaded, [{"role": "user", "content": text}])


def text_token_ids(loaded: LoadedModel, text: str, *, special: bool = True) -> tuple[int, ...]:
    """Return the ids of a plain text.

    Args:
        loaded: the model.
        text: the text.
        special: with what the tokenizer puts before a text.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8.
    """
    encode = loaded.tokenizer.encode_prompt if special else loaded.tokenizer.encode
    ids = tuple(encode(text)) if text else ()
    if not ids:  # a normaliser may leave nothing of a text
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    return ids


def conversation_token_ids(
    loaded: LoadedModel, messages: Sequence[Mapping[str, str]], *, special: bool | None = None
) -> tuple[int, ...]:
    """Return the ids of a conversation that an answer is to follow.

    A template writes the beginning of the sequence itself where the model wants one. For a model
    without a template the messages' texts follow one another, a blank line between two, after
    what the tokenizer puts before a text.

    Args:
        loaded: the model.
        messages: each with "role" and "content", both text.
        special: with what the tokenizer puts before a text; None: where there is no template.

    Raises:
        InvalidRequest: there is no text, it is not valid UTF-8, or the template refuses it.
    """
    if not any(message["content"] for message in messages):
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    if loaded.chat_template is None:
        text = "\n\n".join(message["content"] for message in messages)
        return text_token_ids(loaded, text, special=special is not False)
    return text_token_ids(loaded, loaded.chat_template.render(messages), special=bool(special))


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
