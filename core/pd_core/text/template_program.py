"""The child process that renders one chat template; `ChatTemplate` is its parent.

A request has the template's text the first time, {"template": ...}, and its variables unless it is
only to be compiled, {"values": ...}. A reply is {"text": ...}, or the reason why there is none:
{"broken": ...}, {"refused": ...} by the template itself, or {"failed": ...}.
"""

from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError

from pd_core.process.behind_wall import serve_behind_wall
from pd_core.text.template_bounds import KEPT_BYTES, MAX_CHARACTERS, MEMORY_BYTES
from pd_core.text.template_sandbox import TemplateSandbox

__all__ = ["main"]

_MAX_REASON = 1000  # characters
_ORPHAN_S = 20.0  # without a parent that ends it, a rendering may go on for so long
# jinja2 and Python import some modules only when they are needed: behind the wall that is too late.
_NEEDS_ALL_IMPORTS = (
    "{{ ['a\\n'] | pprint | wordwrap | striptags }}{{ lipsum(n=1) }}{{ '\\N{BULLET}' }}"
)


def main() -> None:
    """Answer requests until the parent is gone."""
    serve_behind_wall(
        _Renderer().answer,
        memory_bytes=MEMORY_BYTES,
        within_s=_ORPHAN_S,
        most_kept_bytes=KEPT_BYTES,
    )


class _Renderer:
    def __init__(self) -> None:
        self._sandbox = TemplateSandbox()
        self._sandbox.from_string(_NEEDS_ALL_IMPORTS).render()
        self._template: Template | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, str]:
        try:
            if "template" in request:
                self._template = self._sandbox.from_string(request["template"])
        except Exception as error:  # not only jinja2's: it compiles by Python's compiler
            return {"broken": _reason(error)}
        try:
            return {"text": self._text(request.get("values"))}
        except TemplateError as error:
            return {"refused": _reason(error)}
        except Exception as error:  # a template is a program, so it may cause any error
            return {"failed": _reason(error)}

    def _text(self, values: dict[str, Any] | None) -> str:
        if self._template is None or values is None:
            return ""
        return self._sandbox.render(self._template, values, MAX_CHARACTERS)


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES >> 20} MiB of memory"
    if isinstance(error, OSError):  # such as a module that Python loads late
        return (
            "it needs a part of Python that chat templates do not have, such as a rare encoding of "
            "text"
        )
    return str(error)[:_MAX_REASON] or type(error).__name__
