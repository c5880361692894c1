"""A conversation as token ids: each turn begins with the very ids of the turns before it."""

from dataclasses import dataclass

from pd_core.checkpoints.loading import LoadedModel
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.prompt import conversation_token_ids, knows_roles, text_token_ids

__all__ = ["Conversation", "Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an answer of a conversation is to follow.

    Attributes:
        said: the user's words.
        text: the whole prompt.
        token_ids: the same as ids.
    """

    said: str
    text: str
    token_ids: tuple[int, ...]


class Conversation:
    """What was said so far.

    An answer's text, encoded anew, may come to other ids than those the model made, and what is
    cached for them would be lost. So the ids are kept, and only what is new is encoded; where the
    template does not leave the text before as it was, all of it is.

    With a model that knows no roles the conversation is one text that grows: the prompt, its
    continuation, a blank line, the next prompt.

    Args:
        loaded: the model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._roles = knows_roles(loaded)
        self._messages: list[dict[str, str]] = []
        self._text = ""
        self._token_ids: tuple[int, ...] = ()

    def turn(self, said: str) -> Prompt:
        """Return the prompt for the user's next words; nothing changes until it is answered.

        Raises:
            InvalidRequest: there are none, they are not valid UTF-8, or the template refuses them.
        """
        messages = [*self._messages, {"role": "user", "content": said}]
        text = self._rendered(messages)
        if self._token_ids and text.startswith(self._text):
            new = self._loaded.tokenizer.encode(text[len(self._text) :])
            return Prompt(said, text, (*self._token_ids, *new))
        if self._roles or not self._messages:
            return Prompt(said, text, conversation_token_ids(self._loaded, messages))
        return Prompt(said, text, text_token_ids(self._loaded, text))

    def answered(self, turn: Prompt, outcome: Outcome) -> None:
        """Take an answer in, a stopped one too."""
        self._messages += [
            {"role": "user", "content": turn.said},
            {"role": "assistant", "content": outcome.text},
        ]
        self._text = turn.text + outcome.text
        made = outcome.token_ids
        while made and made[-1] in self._loaded.eos_token_ids:
            made.pop()  # the template writes it
        # A stop string, or half a character at the end, was made but not shown.
        faithful = self._loaded.tokenizer.decode(made) == outcome.text
        self._token_ids = (*turn.token_ids, *made) if faithful else ()

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        if self._roles and self._loaded.chat_template is not None:
            return self._loaded.chat_template.render(messages)
        said = messages[-1]["content"]
        return f"{self._text}\n\n{said}" if self._text else said
