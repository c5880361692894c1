"""llama.cpp's form of a grammar, GBNF, as llguidance's Lark."""

import re

from pd_core.constraint import MOST_SOURCE_BYTES, Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.grammar.library import library

__all__ = ["grammar_constraint"]

_RULE = re.compile(r"^[ \t]*[A-Za-z][\w-]*[ \t]*::=", re.MULTILINE)  # no line of Lark begins so


def grammar_constraint(grammar: str) -> Constraint:
    """Return the constraint of an answer that a grammar allows.

    Lark is kept as it is. GBNF is translated here and now, so that both sides are told the same.

    Args:
        grammar: Lark with a rule `start`, or GBNF with a rule `root`.

    Raises:
        InvalidConstraint: it is GBNF that is wrong or too long, or the library is missing.
    """
    if _RULE.search(grammar) is None:
        return Constraint(ConstraintKind.LARK, grammar)
    if len(grammar.encode(errors="replace")) > MOST_SOURCE_BYTES:
        raise InvalidConstraint(
            f"the GBNF grammar has more than {MOST_SOURCE_BYTES} bytes: make it smaller"
        )
    library()  # says so where it is missing
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        translated: str = gbnf_to_lark(grammar)
    except RecursionError as error:
        raise InvalidConstraint("the GBNF grammar is nested too deep") from error
    except Exception as error:  # the library raises this very class
        raise InvalidConstraint(f"the GBNF grammar is wrong: {error}") from error
    return Constraint(ConstraintKind.LARK, translated)
