"""What a chat template may use: what `transformers` gives it, so that it makes the same text.

A template is a program from a stranger. jinja2's immutable sandbox keeps it from Python's insides,
from files and from imports. It bounds neither time nor memory, so only a child process that can be
killed (`walled_process`) uses this module.
"""

import datetime
import json
from typing import Any

import jinja2.debug  # it is imported late otherwise, when no file can be opened any more
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

__all__ = ["TemplateSandbox"]


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment that chat templates are compiled and run in.

    It refuses by raising jinja2's SecurityError.
    """

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        self.filters["tojson"] = _json_text
        self.globals["raise_exception"] = _raise
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    def render(
        self, template: jinja2.Template, values: dict[str, Any], most_characters: int
    ) -> str:
        """Return the text of a template.

        Args:
            template: a template of this environment.
            values: its variables; "now" is the ISO 8601 time of `strftime_now`.
            most_characters: a longer text is a ValueError.
        """
        now = datetime.datetime.fromisoformat(values.pop("now"))
        values["strftime_now"] = lambda layout: now.strftime(layout)
        parts, size = [], 0
        for part in template.generate(values):
            parts.append(part)
            size += len(part)
            if size > most_characters:
                raise ValueError(f"it makes more than {most_characters} characters")
        return "".join(parts)


class _Generation(Extension):
    """`{% generation %}` marks training targets; we only render its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        # A scope of its own, as in transformers: what is set inside ends with it.
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Dict:
    """The global `dict`, without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """The global `namespace`, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        values = dict(*given, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not use the name {name[:40]!r} in a namespace")


def _raise(message: object) -> None:
    """Refuse the messages; templates call this."""
    raise TemplateError(str(message))


def _json_text(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as `transformers` writes it in chat templates: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
