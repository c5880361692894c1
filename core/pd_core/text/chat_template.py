"""Turns messages into the text of a prompt, by the checkpoint's own template."""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence

from jinja2.exceptions import TemplateError

from pd_core.errors import InvalidRequest, ModelError
from pd_core.identity.fingerprint import text_digest
from pd_core.text.template_sandbox import MAX_CHARACTERS, TemplateSandbox, time_limit

__all__ = ["ChatTemplate"]

_MAX_TEMPLATE_CHARACTERS = 262_144
_TIME_LIMIT_S = 2.0


class ChatTemplate:
    """A jinja2 template, run in a sandbox with limits on time and size.

    Its text contains the special tokens, including the beginning of sequence if the model wants
    one, so it is encoded as it is (`Tokenizer.encode`), without a prefix.

    Args:
        text: the template.
        special_tokens: names such as "bos_token" and their text, which templates refer to.
        time_limit_s: most seconds for one rendering.

    Attributes:
        digest: hex sha256 of the template's text.

    Raises:
        ModelError: the template is too long or broken.
    """

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str] | None = None,
        *,
        time_limit_s: float = _TIME_LIMIT_S,
    ) -> None:
        if len(text) > _MAX_TEMPLATE_CHARACTERS:
            raise ModelError(
                f"the chat template has {len(text)} characters; more than "
                f"{_MAX_TEMPLATE_CHARACTERS} are refused"
            )
        self.text = text
        self.digest = text_digest(text)
        self._special_tokens = dict(special_tokens or {})
        self._time_limit_s = time_limit_s
        try:
            with time_limit(time_limit_s):
                self._template = TemplateSandbox().from_string(text)
        except (TemplateError, TimeoutError, ValueError, RecursionError, SyntaxError) as error:
            raise ModelError(f"the chat template is broken: {error}; mend or remove it") from error

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> str:
        """Return the prompt's text.

        Args:
            messages: JSON objects, each with "role" and "content".
            add_generation_prompt: end with the text that precedes an answer.
            tools: JSON objects that describe functions, for templates that support them.
            now: returns the time, for templates that write the date.

        Raises:
            InvalidRequest: the template refuses the messages, fails on them, or needs too much time
                or space.
        """
        values = {
            **self._special_tokens,
            "messages": [dict(m) for m in messages],
            "tools": None if tools is None else [dict(t) for t in tools],
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": lambda layout: _date(now(), layout),
        }
        try:
            with time_limit(self._time_limit_s):
                return self._bounded(values)
        except TemplateError as error:
            raise InvalidRequest(f"the chat template refuses the messages: {error}") from error
        except Exception as error:  # a template is a program, so it may cause any error
            raise InvalidRequest(f"the chat template fails on the messages: {error}") from error

    def _bounded(self, values: Mapping[str, object]) -> str:
        parts, size = [], 0
        for part in self._template.generate(values):
            parts.append(part)
            size += len(part)
            if size > MAX_CHARACTERS:
                raise ValueError(f"it makes more than {MAX_CHARACTERS} characters")
        return "".join(parts)


def _date(now: datetime.datetime, layout: str) -> str:
    # A width in a directive, as in %999999Y, would pad the output to that length.
    if len(layout) > 100 or re.search(r"%[^A-Za-z%-]", layout):
        raise TemplateError("it asks for a date in a layout that is refused")
    return now.strftime(layout)
