"""A jinja2 sandbox in which a template can neither reach Python nor run or grow without bound.

A chat template is text from a checkpoint, so it is run as an untrusted program. jinja2's immutable
sandbox keeps it from attributes, files and imports. In addition there is a time limit, checked at
every line of Python the template causes, and size limits on everything that multiplies text.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["MAX_CHARACTERS", "TemplateSandbox", "time_limit"]

MAX_CHARACTERS = 4_000_000  # in any one text; a million tokens
_MAX_BITS = 64
_MAX_INDENT = 16
# fmt: off
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "reverse", "safe", "select", "selectattr", "sort", "title", "trim", "unique", "upper",
)
# The methods of str whose result is no longer than the text, and two whose result is measured.
_TEXT_METHODS = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha",
    "isdigit", "islower", "isnumeric", "isspace", "isupper", "join", "lower", "lstrip",
    "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
))
# fmt: on


class _Measured(CodeGenerator):
    """Compiles `a ~ b` to a call that checks the length first."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenated((")
        for arg in node.nodes:
            self.visit(arg, frame)
            self.write(", ")
        self.write("))")


class _Generation(Extension):
    """`{% generation %}` marks training targets; we only render its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment that chat templates are compiled and run in.

    It refuses by raising jinja2's SecurityError.
    """

    code_generator_class = _Measured
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=printable,
            extensions=[loopcontrols, _Generation],
        )
        self.filters = {name: FILTERS[name] for name in _FILTERS}
        self.filters |= {
            "join": joined,
            "replace": replaced,
            "tojson": json_text,
            "string": lambda value: str(printable(value)),
            "indent": indented,
        }
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise

    def concatenated(self, values: Iterable[object]) -> str:
        """Return the result of `a ~ b`."""
        return joined([printable(v) for v in values])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow only those methods of text that cannot multiply it."""
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse str.format, because the width of a field is unbounded."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("a chat template may not use str.format; join texts with ~")
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute left operator right if the result is small."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"a chat template may not use the operator {operator!r} this way")
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(times, int):
                    _check_size(len(many) * times)
            if isinstance(left, int) and isinstance(right, int):
                _check_bits(left.bit_length() + right.bit_length())
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call obj; the results of joining and replacing are measured first."""
        text = getattr(obj, "__self__", None)
        if isinstance(text, str):
            name = getattr(obj, "__name__", "")
            if name == "join":
                return joined(args[0], text)
            if name == "replace":
                return replaced(text, *args)
        return super().call(context, obj, *args, **kwargs)


def printable(value: object) -> object:
    """Return the value if it may be printed: text, a number, true, false, none or undefined.

    Lists and objects would be printed in Python's notation, which no model was trained on, and one
    that contains itself many times over would be unboundedly long.
    """
    if value is None or isinstance(value, str | int | float | Undefined):
        return value
    if hasattr(value, "__html__"):
        return str(value)
    raise SecurityError(
        f"a chat template printed a {type(value).__name__}; it may print text and numbers "
        "(use tojson for lists and objects)"
    )


def joined(values: Iterable[object], d: str = "", attribute: str | None = None) -> str:
    """Join values, or one key of each, with d between them."""
    size, parts = 0, []
    for value in values:
        if attribute is not None:
            value = value.get(attribute, "") if isinstance(value, dict) else ""
        parts.append(str(printable(value)))
        size += len(parts[-1]) + len(d)
        _check_size(size)
    return d.join(parts)


def replaced(text: object, old: str, new: str, count: int = -1) -> str:
    """Replace old by new in a text."""
    text = str(printable(text))
    _check_size(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def indented(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Indent the lines of a text; the first and blank ones only if asked."""
    space = width if isinstance(width, str) else " " * min(width, _MAX_INDENT)
    _check_size(len(text) + (text.count("\n") + 1) * len(space))
    lines = text.split("\n")
    rest = [space + line if line or blank else line for line in lines[1:]]
    return "\n".join([(space if first else "") + lines[0], *rest])


def json_text(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as `transformers` writes it in chat templates: not escaped for HTML."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else min(indent, _MAX_INDENT),
        separators=separators,
        sort_keys=sort_keys,
    )
    # Piece by piece, so that both limits also hold for a list that contains itself many times over.
    return joined(encoder.iterencode(value))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread at the first line of Python after `seconds`.

    It uses a trace function, which slows Python down meanwhile and replaces a debugger's.
    """
    end = time.perf_counter() + seconds

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        nonlocal end
        if time.perf_counter() > end:
            end += seconds  # let the error propagate; raise again later if it was swallowed
            raise TimeoutError(f"it took more than {seconds:g} s")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _raise(message: object) -> None:
    """Refuse the messages; templates call this."""
    raise TemplateError(str(printable(message)))


def _check_size(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise SecurityError(f"a chat template made a text of more than {MAX_CHARACTERS} characters")


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise SecurityError(f"a chat template made a number of more than {_MAX_BITS} bits")
