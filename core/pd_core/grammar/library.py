"""Which library compiles forms here, and within which limits: both sides must use the same.

A form is compiled on each side by itself. Another version of the library might allow other tokens
for the same source, so an answer is carried by two sides only where these ids are equal.
"""

import importlib.metadata
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from pd_core.errors import InvalidConstraint

if TYPE_CHECKING:
    from llguidance import LLParserLimits

__all__ = ["JSON_OPTIONS", "library", "library_id", "limits"]

_NAME = "llguidance"
# Raise it with every change below, or elsewhere in this room, that could change which tokens fit.
_RULES = 1

# A value may be followed by a space, or by a line's end with an indent: models write JSON in both
# ways, and one that only ever wrote spaces would not end. No schema changes these by `x-guidance`.
JSON_OPTIONS = {
    "whitespace_pattern": r"[\x20]?|\n[\x20]{0,24}",
    "whitespace_flexible": True,
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}


@cache
def library_id() -> str:
    """Return the name and version of what compiles forms here; "" where it is not installed."""
    try:
        return f"{_NAME}-{importlib.metadata.version(_NAME)}/{_RULES}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def library() -> ModuleType:
    """Return the library, loaded with the first form only.

    Raises:
        InvalidConstraint: it is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise InvalidConstraint(
            f"answers of a given form need {_NAME}, which is not installed here; "
            "mend: pip install 'pd-device[server,device]'"
        ) from error
    return llguidance


def limits() -> "LLParserLimits":
    """Return what a form may cost: about 100 ms to compile, 10 ms a token, and 30 MB.

    They count steps, not seconds, so that both sides come to the same end.
    """
    made: LLParserLimits = library().LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=100_000,
        step_max_items=25_000,
        max_lexer_states=16_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )
    return made
