"""GBNF means what its translation allows, and what is wrong in it is said."""

import pytest

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.constraint import MOST_SOURCE_BYTES, Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.grammar.gbnf import grammar_constraint
from pd_core.grammar.grammars import Grammars

TOKENIZER = random_tiny_tokenizer()
GBNF = """
# a list as llama.cpp's examples have them
root ::= item{1,2} end
item ::= "- " [a-z]+ "\\n"
end  ::= "." | "!"
"""


def fits(constraint: Constraint, text: str) -> bool:
    matcher = Grammars(TOKENIZER, TOKENIZER.vocab_size, [1]).matcher(constraint)
    matcher.form.result(60)
    ids = TOKENIZER.encode(text)
    return matcher.num_fitting([], ids) == len(ids)


@pytest.mark.parametrize("text", ["- ab\n.", "- ab\n- c\n!"])
def test_what_the_grammar_has_is_allowed(text: str) -> None:
    assert fits(grammar_constraint(GBNF), text)


@pytest.mark.parametrize("text", ["- AB\n", "!", "- a\n- b\n- c\n"])
def test_what_it_has_not_is_not(text: str) -> None:
    assert not fits(grammar_constraint(GBNF), text)


def test_lark_is_kept_as_it_is_even_where_it_speaks_of_gbnf() -> None:
    lark = 'start: "root ::= " /[a-z]+/'
    assert grammar_constraint(lark) == Constraint(ConstraintKind.LARK, lark)


@pytest.mark.parametrize(
    ("gbnf", "said"),
    [
        ('first ::= "a"', "root"),
        ("root ::= nowhere", "nowhere"),
        ('root ::= "a', "end of input"),
        ("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "nested too deep"),
        ("root ::= " + '"a" ' * MOST_SOURCE_BYTES, "smaller"),
    ],
)
def test_what_is_wrong_is_said(gbnf: str, said: str) -> None:
    with pytest.raises(InvalidConstraint, match=said):
        grammar_constraint(gbnf)
