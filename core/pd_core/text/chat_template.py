"""Turns messages into the text of a prompt, by the checkpoint's own template."""

import datetime
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pd_core.errors import EngineError, InvalidRequest, ModelError
from pd_core.identity.fingerprint import text_digest
from pd_core.process.walled_process import WalledProcess
from pd_core.text.template_bounds import MAX_CHARACTERS, MAX_TEMPLATE_CHARACTERS
from pd_core.text.tool_style import ToolStyle, find_tool_style

__all__ = ["ChatTemplate"]

_PROGRAM = "pd_core.text.template_program"
_TIME_LIMIT_S = 2.0
_MAX_REPLY_BYTES = 12 * MAX_CHARACTERS + 4096  # JSON writes a rare character as twelve bytes


class ChatTemplate:
    """A jinja2 template, rendered by a child process with limits on time and memory.

    Its text contains the special tokens, including the beginning of sequence if the model wants
    one, so it is encoded as it is (`Tokenizer.encode`), without a prefix. The process starts when
    it is first needed, and is kept for the next rendering.

    Args:
        text: the template.
        special_tokens: names such as "bos_token" and their text, which templates refer to.
        time_limit_s: most seconds for one rendering.

    Attributes:
        digest: hex sha256 of the template's text.

    Raises:
        ModelError: the template is too long.
    """

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str] | None = None,
        *,
        time_limit_s: float = _TIME_LIMIT_S,
    ) -> None:
        if len(text) > MAX_TEMPLATE_CHARACTERS:
            raise ModelError(
                f"the chat template has {len(text)} characters; more than "
                f"{MAX_TEMPLATE_CHARACTERS} are refused"
            )
        self.text = text
        self.digest = text_digest(text)
        self._special_tokens = dict(special_tokens or {})
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()  # one rendering at a time
        self._process: WalledProcess | None = None
        self._compiled = False
        self._tool_style: ToolStyle | None = None

    def check(self) -> None:
        """Compile the template.

        Raises:
            ModelError: it is broken.
            EngineError: no process of its own can be started.
        """
        reply = self._ask(None)
        if "failed" in reply:
            raise _broken(reply["failed"])

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        values: Mapping[str, object] | None = None,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> str:
        """Return the prompt's text.

        Args:
            messages: JSON objects, each with "role" and "content".
            add_generation_prompt: end with the text that precedes an answer.
            tools: JSON objects that describe functions, for templates that support them.
            values: further variables of the template; JSON.
            now: returns the time, for templates that write the date.

        Raises:
            InvalidRequest: the template refuses the messages, fails on them, or needs too much time
                or space.
            ModelError: the template is broken.
            EngineError: no process of its own can be started.
        """
        variables = {
            **(values or {}),
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "now": now().isoformat(),
        }
        reply = self._ask(variables)
        if "refused" in reply:
            raise InvalidRequest(f"the chat template refuses the messages: {reply['refused']}")
        if "failed" in reply:
            raise InvalidRequest(f"the chat template fails on the messages: {reply['failed']}")
        return str(reply["text"])

    def tool_style(self) -> ToolStyle:
        """Return how functions and calls are given to the template; found out once.

        Raises:
            ModelError: the template is broken.
            EngineError: no process of its own can be started.
        """
        if self._tool_style is None:
            self._tool_style = find_tool_style(self.render)
        return self._tool_style

    def _ask(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the process's reply; if it came to none, the reply says why.

        Raises:
            ModelError: the template is broken.
            EngineError: no process of its own can be started.
        """
        with self._lock:
            try:
                process = self._begun()
                request: dict[str, Any] = {} if self._compiled else {"template": self.text}
                if values is not None:
                    request["values"] = values
                reply = process.ask(request, self._time_limit_s)
            except (TimeoutError, ConnectionError) as error:
                reply = {"failed": str(error), "last": True}
            except EngineError as error:
                self._end()
                raise EngineError(
                    f"a chat template needs a process of its own: {error}; prompts without the "
                    "template need none"
                ) from error
            self._compiled = "broken" not in reply
            if reply.get("last"):
                self._end()
        if "broken" in reply:
            raise _broken(reply["broken"])
        return reply

    def _begun(self) -> WalledProcess:
        if self._process is not None and not self._process.alive:
            self._end()
        if self._process is None:
            self._process = WalledProcess(_PROGRAM, "main", _MAX_REPLY_BYTES)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
        self._process, self._compiled = None, False


def _broken(why: str) -> ModelError:
    return ModelError(f"the chat template is broken: {why}; mend or remove it")
