"""A request of another API in the words of a chat, and a chat's refusal in that API's words.

Both other APIs are thin over chats: what a chat takes and refuses, they take and refuse too, and a
refusal names the parameter as its client wrote it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pd_core.errors import PdError
from pd_device_client.api.completions.parameters import ChatParameters, read_parameters
from pd_device_client.api.http.errors import Refusal

__all__ = ["PASSED_ON", "Translated"]

PASSED_ON = (
    *("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "stop_token_ids"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "skip_special_tokens"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "ignore_eos", "pd"),
)
"""Parameters that mean the same in every API, some of them as extensions."""

_MESSAGE = re.compile(r"messages\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Translated:
    """A request as a chat.

    Attributes:
        body: the chat's body.
        sources: for each message the path of what it was made of.
        messages_name: the parameter that holds the messages.
        names: other parameters of a chat, and how the client calls them.
    """

    body: dict[str, Any]
    sources: Sequence[str]
    messages_name: str
    names: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> ChatParameters:
        """Return the chat's parameters.

        Raises:
            Refusal: one is wrong or not supported, in the client's words.
        """
        try:
            return read_parameters(ChatParameters, self.body)
        except PdError as error:
            raise self.blamed(error) from error

    def blamed(self, error: PdError) -> PdError:
        """Return an error with its parameter named as the client knows it."""
        if not isinstance(error, Refusal) or error.param is None:
            return error
        name = self._name(error.param)
        # Only where it stands as a word: "messages" is also a word of the sentence.
        words = str(error)
        if words.startswith(error.param):
            words = name + words[len(error.param) :]
        return Refusal(words, name, status=error.status, code=error.code)

    def _name(self, param: str) -> str:
        if found := _MESSAGE.match(param):
            return self.sources[int(found[1])] + param[found.end() :]
        if param == "messages":
            return self.messages_name
        for name, own in self.names.items():
            if param == name or param.startswith((f"{name}.", f"{name}[")):
                return own + param[len(name) :]
        return param
