"""A request of another API in the words of a chat, and a chat's refusal in that API's words.

Both other APIs are thin over chats: what a chat takes and refuses, they take and refuse too, and a
refusal names the parameter as its client wrote it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pd_core.errors import PdError
from pd_device_client.api.completions.parameters import ChatParameters, read_parameters
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import Parameters

__all__ = ["Translated", "passed_on"]

_MESSAGE = re.compile(r"messages\[(\d+)\]")
# A chat's own words for what the other APIs say otherwise, or do not have.
_CHAT_ONLY = frozenset(
    {
        "messages",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "prompt_logprobs",
    }
)


def passed_on(raw: Mapping[str, Any], own: type[Parameters]) -> dict[str, Any]:
    """Return what a chat may read as it is: the parameters of sampling, and extensions.

    Args:
        raw: a body of another API.
        own: what that API reads itself; of it only what means the same in every API is passed on.
    """
    kept = {"model", "stream", "temperature", "top_p", "top_k"}
    theirs = {*own.model_fields, *_CHAT_ONLY} - kept
    return {name: value for name, value in raw.items() if name not in theirs}


@dataclass(frozen=True, slots=True)
class Translated:
    """A request as a chat.

    Attributes:
        body: the chat's body.
        sources: for each message the path of what it was made of.
        messages_name: the parameter that holds the messages.
        names: patterns of other parameters' names, and of what stands behind a message's path, and
            how the client calls them.
    """

    body: dict[str, Any]
    sources: Sequence[str]
    messages_name: str
    names: Sequence[tuple[str, str]] = ()

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
            return self.sources[int(found[1])] + self._own(param[found.end() :])
        return self.messages_name if param == "messages" else self._own(param)

    def _own(self, param: str) -> str:
        for pattern, own in self.names:
            named, changed = re.subn(rf"^{pattern}(?=$|[.\[])", own, param)
            if changed:
                return named
        return param
