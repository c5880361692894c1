"""A conversation as token ids: each turn begins with exactly the ids of the turns before it."""

from dataclasses import dataclass

from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.prompt import conversation_token_ids, knows_roles, text_token_ids
from pd_device_client.engine.served_model import ServedModel

__all__ = ["Conversation", "Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one turn.

    Attributes:
        said: the user's new message.
        text: the whole prompt, conversation included.
        token_ids: its token ids.
        messages: the conversation up to the new message; empty for a plain text.
    """

    said: str
    text: str
    token_ids: tuple[int, ...]
    messages: tuple[dict[str, str], ...] = ()


class Conversation:
    """The messages so far.

    Encoding an answer's text again may give different ids than those the model made, which would
    miss the KV cache. So the ids are kept and only new text is encoded, unless the template changes
    the earlier text; then everything is encoded again.

    For a model without roles the conversation is one growing text: the prompt, its continuation, a
    blank line, the next prompt.
    """

    def __init__(self, loaded: ServedModel) -> None:
        self._loaded = loaded
        self._roles = knows_roles(loaded)
        self._messages: list[dict[str, str]] = []
        self._text = ""
        self._token_ids: tuple[int, ...] = ()

    def turn(self, said: str) -> Prompt:
        """Return the prompt for the user's next message; `answered` then adds both.

        Raises:
            InvalidRequest: it is empty or not valid UTF-8, or the template refuses it.
        """
        messages = [*self._messages, {"role": "user", "content": said}]
        text = self._rendered(messages)
        if self._token_ids and text.startswith(self._text):
            new = self._loaded.tokenizer.encode(text[len(self._text) :])
            return Prompt(said, text, (*self._token_ids, *new), tuple(messages))
        if self._roles or not self._messages:
            ids = conversation_token_ids(self._loaded, messages)
        else:
            ids = text_token_ids(self._loaded, text)
        return Prompt(said, text, ids, tuple(messages))

    def answered(self, turn: Prompt, outcome: Outcome) -> None:
        """Add a turn and its answer, even a stopped one."""
        self._messages += [
            {"role": "user", "content": turn.said},
            {"role": "assistant", "content": outcome.text},
        ]
        self._text = turn.text + outcome.text
        made, tokenizer = outcome.token_ids, self._loaded.tokenizer
        ends = {*self._loaded.eos_token_ids, *tokenizer.special_tokens}
        while made and made[-1] in ends:
            made.pop()  # the template adds it
        # The ids do not match the text if a stop string or half a character was not shown.
        behind = () if self._roles else turn.token_ids
        faithful = tokenizer.continuation(made, behind) == outcome.text
        self._token_ids = (*turn.token_ids, *made) if faithful else ()

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        if self._roles and self._loaded.chat_template is not None:
            return self._loaded.chat_template.render(messages)
        said = messages[-1]["content"]
        return f"{self._text}\n\n{said}" if self._text else said
