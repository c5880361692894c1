"""A constraint compiled for one vocabulary: what all requests of one form begin from."""

import json
from typing import TYPE_CHECKING

from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.grammar.library import JSON_OPTIONS, library, limits

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["compiled", "reason"]

_MOST_WORDS = 300  # of the library's errors
_NOTHING_FITS = "NoExtensionBias"  # its word for a mask that allows no token


def compiled(constraint: Constraint, vocabulary: "LLTokenizer") -> "LLMatcher":
    """Return a matcher at the beginning of an answer; requests copy it, none changes it.

    Raises:
        InvalidConstraint: the source has no meaning, no answer fits it, or it is too complex.
    """
    matcher: LLMatcher = library().LLMatcher(
        vocabulary, _grammar(constraint), log_level=0, limits=limits()
    )
    first = matcher if matcher.is_error() else matcher.deep_copy()
    if not first.is_error():
        first.compute_bitmask()  # finds out that no answer fits, and warms the caches
    if first.is_error():
        raise InvalidConstraint(f"the {constraint.kind} cannot be used: {reason(first)}")
    return matcher


def _grammar(constraint: Constraint) -> str:
    kind, source, of = constraint.kind, constraint.source, library().LLMatcher
    try:
        match kind:
            case ConstraintKind.JSON_OBJECT:
                made = of.grammar_from_json_schema('{"type":"object"}', overrides=JSON_OPTIONS)
            case ConstraintKind.JSON_SCHEMA:
                json.loads(source)  # so that what is no JSON cannot reach the grammar's own text
                made = of.grammar_from_json_schema(source, overrides=JSON_OPTIONS)
            case ConstraintKind.REGEX:
                made = of.grammar_from_regex(source)
            case ConstraintKind.LARK:
                made = of.grammar_from_lark(source)
    except (ValueError, RecursionError) as error:
        raise InvalidConstraint(f"the {kind} cannot be used: {_short(str(error))}") from error
    return str(made)


def reason(matcher: "LLMatcher") -> str:
    """Return why a matcher failed, in one short line."""
    told = matcher.get_error()
    if _NOTHING_FITS in told:
        return "no finished answer fits it; take out what contradicts itself or never ends"
    return _short(told)


def _short(told: str) -> str:
    line = " ".join(told.split("<state>")[0].split())
    return line if len(line) <= _MOST_WORDS else f"{line[: _MOST_WORDS - 3]}..."
