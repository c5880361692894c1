"""What can be compiled, what is refused and why, and that one compiling serves all."""

import json
import random
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from llguidance import LLParserLimits

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.constraint import Constraint, ConstraintKind, choice_constraint, json_schema_constraint
from pd_core.errors import InvalidConstraint
from pd_core.grammar import grammars as module
from pd_core.grammar import library
from pd_core.grammar.compiled import compiled
from pd_core.grammar.grammars import MOST_FORMS, Grammars
from pd_core.grammar.matcher import Matcher
from tests.forms import FORMS
from tests.tokenizer_kinds import byte_fallback, byte_level, metaspace, word_piece

TOKENIZER = random_tiny_tokenizer()


def made(**more: Any) -> Grammars:
    return Grammars(TOKENIZER, TOKENIZER.vocab_size, [1], **more)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return made()


def schema(text: str) -> Constraint:
    return Constraint(ConstraintKind.JSON_SCHEMA, text)


WRONG = {
    "no JSON": schema('{"a":'),
    "text after JSON": schema('{"type":"object"} , "x": 1'),
    "no type": schema('{"type":"thing"}'),
    "no schema": schema('["a"]'),
    "contradiction": schema('{"type":"integer","minimum":5,"maximum":3}'),
    "nothing fits": schema("false"),
    "only itself": schema('{"$ref":"#"}'),
    "unknown reference": schema('{"$ref":"#/$defs/none"}'),
    "elsewhere": schema('{"$ref":"https://example.com/schema.json"}'),
    "not done": schema('{"not":{"type":"string"}}'),
    "made lenient": schema('{"not":{"type":"string"},"x-guidance":{"lenient":true}}'),
    "deep": schema('{"type":"array","items":' * 500 + "{}" + "}" * 500),
    "product": json_schema_constraint(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(4)]}
                for i in range(8)
            ]
        }
    ),
    "regex": Constraint(ConstraintKind.REGEX, "(a"),
    "never": Constraint(ConstraintKind.REGEX, r"[^\s\S]"),
    "look-around": Constraint(ConstraintKind.REGEX, "a(?=b)"),
    "lark": Constraint(ConstraintKind.LARK, "start: nothing"),
    "no start": Constraint(ConstraintKind.LARK, 'begin: "a"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_cannot_be_used_is_refused_in_one_short_line(
    name: str, grammars: Grammars
) -> None:
    for _ in range(2):  # the second time from what is kept
        with pytest.raises(InvalidConstraint) as raised:
            grammars.matcher(WRONG[name]).mask([])
        assert "\n" not in str(raised.value)
        assert "Bias" not in str(raised.value)  # a word that only the library's authors know
        assert len(str(raised.value)) < 400


HEAVY = {
    "many properties": json_schema_constraint(
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1000)}}
    ),
    "doubling": json_schema_constraint(
        {
            "$defs": {
                "a40": {"type": "string"},
                **{
                    f"a{i}": {
                        "type": "object",
                        "properties": {k: {"$ref": f"#/$defs/a{i + 1}"} for k in "xy"},
                    }
                    for i in range(40)
                },
            },
            "$ref": "#/$defs/a0",
        }
    ),
    "long": json_schema_constraint({"type": "array", "items": {}, "maxItems": 1_000_000}),
    "counted": Constraint(ConstraintKind.REGEX, "(a{1,1000}){1,1000}"),
    "guessing": Constraint(ConstraintKind.REGEX, "(a|b)*a(a|b){200}"),
    "both": Constraint(ConstraintKind.REGEX, ".*a.{25}&.*b.{25}"),
    "nested": Constraint(ConstraintKind.REGEX, "((a+)+)+"),
    "ambiguous": Constraint(ConstraintKind.LARK, 'start: s\ns: s s | "a" |'),
    "enum": json_schema_constraint({"enum": [f"value {i} of many" for i in range(3000)]}),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_form_is_compiled_or_refused_and_goes_on_or_is_refused(
    name: str, grammars: Grammars
) -> None:
    matcher, ids, reason = grammars.matcher(HEAVY[name]), list[int](), "nothing was too much"
    try:
        for letter in "abab" * 10:
            matcher.mask(ids)
            following = TOKENIZER.encode(letter)
            if matcher.num_fitting(ids, following) < len(following):
                break
            ids += following
    except InvalidConstraint as error:
        reason = str(error)
    assert "too" in reason  # large or complex


def test_a_recursive_schema_is_used(grammars: Grammars) -> None:
    tree = {
        "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}},
        "$ref": "#/$defs/n",
    }
    ids = TOKENIZER.encode(json.dumps({"n": {"n": {"n": {}}}}))
    assert grammars.matcher(json_schema_constraint(tree)).num_fitting([], [*ids, 1]) == len(ids) + 1


def test_a_choice_is_taken_as_it_is_whatever_its_characters_mean(grammars: Grammars) -> None:
    choices = ['a"b\n', "x/y\\z", "é\u2028\x7f", "[x", ".*", "yes"]
    matcher = grammars.matcher(choice_constraint(choices))
    for choice in choices:
        ids = TOKENIZER.encode(choice)
        assert matcher.num_fitting([], [*ids, 1]) == len(ids) + 1
    assert matcher.num_fitting([], TOKENIZER.encode("no")) == 0


def test_a_form_is_compiled_once_and_the_oldest_is_forgotten(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of = list[Constraint]()

    def counting(constraint: Constraint, vocabulary: Any) -> Any:
        made_of.append(constraint)
        return compiled(constraint, vocabulary)

    monkeypatch.setattr(module, "compiled", counting)
    fresh = made()
    forms = [Constraint(ConstraintKind.REGEX, f"a{{{i + 1}}}") for i in range(MOST_FORMS + 1)]
    for form in [*forms, forms[-1], forms[0]]:
        fresh.matcher(form).mask([])
    assert made_of == [*forms, forms[0]]


def test_a_form_that_does_not_get_ready_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    matcher = Matcher(Future(), lambda form: form, 10, [1])
    assert not matcher.ready
    now[0] = 3.0
    assert matcher.ready
    with pytest.raises(InvalidConstraint, match="takes longer than 2 s"):
        matcher.mask([])


def test_asking_for_a_matcher_does_not_wait_for_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def held(constraint: Constraint, vocabulary: Any) -> Any:
        assert go_on.wait(20)
        return compiled(constraint, vocabulary)

    monkeypatch.setattr(module, "compiled", held)
    matcher = made().matcher(FORMS["person"])
    assert not matcher.ready
    go_on.set()
    matcher.mask([])
    assert matcher.ready


def test_a_model_without_an_end_cannot_be_held_to_a_form() -> None:
    endless = Grammars(TOKENIZER, TOKENIZER.vocab_size, [])
    assert endless.library == ""
    endless.prepare()
    with pytest.raises(InvalidConstraint, match="no end-of-sequence token"):
        endless.matcher(FORMS["person"]).mask([])


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(InvalidConstraint, match="pip install"):
        library.library()


def test_the_id_has_name_and_version(grammars: Grammars) -> None:
    assert grammars.library == library.library_id()
    assert library.library_id().startswith("llguidance-1.")


@pytest.mark.parametrize("kind", [byte_level, byte_fallback, metaspace, word_piece])
def test_every_kind_of_tokenizer_is_used_or_refused_by_name(kind: Any) -> None:
    tokenizer = kind()
    matcher = Grammars(tokenizer, tokenizer.vocab_size, [0]).matcher(
        Constraint(ConstraintKind.REGEX, "[a-z]{2}")
    )
    if kind in (metaspace, word_piece):  # the library does not know how these make text
        with pytest.raises(InvalidConstraint, match="with this model's tokenizer"):
            matcher.mask([])
    else:
        assert matcher.mask([]).any()


def test_a_form_that_grew_too_large_over_many_answers_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the library finds out about a form is shared, and its limit counts all answers."""
    made_of = list[Constraint]()

    def counting(constraint: Constraint, vocabulary: Any) -> Any:
        made_of.append(constraint)
        return compiled(constraint, vocabulary)

    small = LLParserLimits(max_lexer_states=600, verbose_errors=False)
    monkeypatch.setattr(module, "compiled", counting)
    monkeypatch.setattr("pd_core.grammar.compiled.limits", lambda: small)
    form = Constraint(ConstraintKind.REGEX, "(a|b)*a(a|b){14}c")
    fresh, chance = made(), random.Random(0)
    for _ in range(60):
        matcher, ids = fresh.matcher(form), list[int]()
        for _ in range(16):
            bits = np.unpackbits(matcher.mask(ids).view(np.uint8), bitorder="little")
            ids.append(int(chance.choice(np.flatnonzero(bits).tolist())))
            if ids[-1] == 1:
                break
    assert len(made_of) > 2


def test_a_form_too_large_for_one_answer_ends_it_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = LLParserLimits(max_lexer_states=40, verbose_errors=False)
    monkeypatch.setattr("pd_core.grammar.compiled.limits", lambda: tiny)
    matcher, ids = (
        made().matcher(Constraint(ConstraintKind.REGEX, "(a|b)*a(a|b){14}c")),
        list[int](),
    )

    def through() -> None:
        for letter in "abbabaabbbababbabaaabbab" * 4:
            matcher.mask(ids)
            ids.extend(TOKENIZER.encode(letter))

    with pytest.raises(InvalidConstraint, match="too complex"):
        through()
