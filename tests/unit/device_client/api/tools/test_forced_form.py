"""The form of an answer that must be a call: what fits it are calls, and nothing else."""

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from pd_core.constraint import (
    Constraint,
    ConstraintKind,
    json_object_constraint,
    json_schema_constraint,
)
from pd_core.grammar.compiled import compiled
from pd_core.grammar.grammars import Grammars
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.tools.forced_form import MOST_FORCED_CALLS, answer_form
from pd_device_client.api.tools.functions import Function, NamedChoice, Offer, Tool, offered
from tests.api_server import EOS, TOKENIZER

CITY = Function(
    name="get_weather",
    parameters={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"city": {"$ref": "#/$defs/City"}, "next": {"$ref": "#"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"City": {"enum": ["Paris", "Rome"]}},
    },
)
NOW = Function(name="now.is-it")
ANSWER = Function(name="answer", parameters={"properties": {"City": {"const": 1}}})
OFFER = Offer((CITY, NOW, ANSWER), required=True)


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


PARIS = call("get_weather", {"city": "Paris", "next": {"city": "Rome"}})
GOOD = [
    [PARIS],
    [call("now.is-it", {}), PARIS, call("answer", {"City": 1})],
    [PARIS] * MOST_FORCED_CALLS,
]
BAD = [
    [],
    PARIS,
    [call("get_weather", {"city": "Oslo"})],
    [call("get_weather", {})],
    [call("now.is-it", {"x": 1})],
    [call("other", {})],
    [{"name": "now.is-it"}],
    [{**PARIS, "x": 1}],
    [PARIS] * (MOST_FORCED_CALLS + 1),
]


def fits(constraint: Constraint | None, value: Any) -> bool:
    """Whether a value is of a form: by a validator, and by what compiles forms here."""
    assert constraint is not None
    assert constraint.kind is ConstraintKind.JSON_SCHEMA
    valid = jsonschema_rs.is_valid(json.loads(constraint.source), value)
    assert _accepted(constraint, json.dumps(value)) == valid
    return valid


@cache
def _grammars() -> Grammars:
    return Grammars(TOKENIZER, TOKENIZER.vocab_size, [EOS])


def _accepted(constraint: Constraint, text: str) -> bool:
    matcher = compiled(constraint, _grammars()._read()).deep_copy()
    ids = TOKENIZER.encode(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize("value", GOOD)
def test_calls_that_fit(value: Any) -> None:
    assert fits(answer_form(OFFER, None), value)


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_call_does_not_fit(value: Any) -> None:
    assert not fits(answer_form(OFFER, None), value)


def test_one_call_alone_where_calls_are_not_parallel() -> None:
    form = answer_form(Offer(OFFER.functions, required=True, parallel=False), None)
    assert fits(form, [PARIS])
    assert not fits(form, [PARIS, PARIS])


def test_a_named_function_leaves_only_its_arguments() -> None:
    form = answer_form(Offer(OFFER.functions, named=CITY), None)
    assert fits(form, PARIS["arguments"])
    assert not fits(form, [PARIS])
    assert fits(answer_form(Offer((NOW,), named=NOW), None), {})
    assert not fits(answer_form(Offer((NOW,), named=NOW), None), {"x": 1})


def test_calls_beside_a_form_of_the_answer() -> None:
    """An agent that ends with an answer of a schema may call first."""
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/y"}},
        "required": ["x"],
        "$defs": {"y": {"type": "integer"}},
    }
    form = answer_form(Offer(OFFER.functions), json_schema_constraint(schema))
    assert fits(form, {"x": 3})
    assert fits(form, [PARIS])
    assert not fits(form, {"x": "3"})
    assert not fits(form, [])
    assert fits(answer_form(Offer((NOW,)), json_object_constraint()), {"a": []})


def test_what_is_asked_stays_where_no_call_is_asked_for() -> None:
    form = json_object_constraint()
    assert answer_form(None, form) is form
    assert answer_form(None, None) is None
    assert answer_form(Offer((NOW,)), None) is None
    regex = Constraint(ConstraintKind.REGEX, "a+")
    assert answer_form(Offer((NOW,)), regex) is regex


def test_two_forms_of_one_answer_are_refused() -> None:
    for offer in (OFFER, Offer((NOW,), named=NOW)):
        with pytest.raises(Refusal, match="tool_choice"):
            answer_form(offer, json_object_constraint())


def test_schemas_that_are_too_large_are_refused() -> None:
    parameters = {"properties": {"x": {"enum": ["y" * 70_000]}}}
    with pytest.raises(Refusal, match=r"tools: .* at most"):
        answer_form(Offer((Function(name="f", parameters=parameters),), required=True), None)


def test_what_is_offered() -> None:
    tools = [Tool(type="function", function=function) for function in (CITY, NOW)]
    named = NamedChoice.model_validate({"type": "function", "function": {"name": "now.is-it"}})
    assert offered(None, None, None) is None
    assert offered(tools, "none", None) is None
    assert offered(tools, None, None) == Offer((CITY, NOW))
    assert offered(tools, "required", False) == Offer((CITY, NOW), required=True, parallel=False)
    assert offered(tools, named, None) == Offer((CITY, NOW), named=NOW)


def test_arguments_that_nobody_named_are_none() -> None:
    """A schema that does not close its objects would let a small model write on for ever."""
    inner = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    parameters = {
        "properties": {
            "list": {"type": "array", "items": inner},
            "open": {"type": "object"},
            "said": {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
            "all": {"allOf": [inner, {"properties": {"b": {"type": "null"}}}], "properties": {}},
        },
        "required": ["list"],
    }
    function = Function(name="f", parameters=parameters)
    form = answer_form(Offer((function,), named=function), None)
    assert form is not None
    for fitting in (
        {"list": [{"a": 1}]},
        {"list": [], "open": {"x": 1}, "said": {"b": "x"}, "all": {"a": 1, "b": None}},
    ):
        assert jsonschema_rs.is_valid(json.loads(form.source), fitting)
        assert jsonschema_rs.is_valid(parameters, fitting)
    for other in (
        {"list": [], "x": 1},
        {"list": [{"a": 1, "b": 2}]},
        {"list": [], "said": {"b": 1}},
    ):
        assert not jsonschema_rs.is_valid(json.loads(form.source), other)
