"""Constraints as plain values: what is refused before anything is compiled."""

from typing import Any

import pytest

from pd_core.constraint import (
    MOST_SOURCE_BYTES,
    Constraint,
    ConstraintKind,
    choice_constraint,
    json_object_constraint,
    json_schema_constraint,
)
from pd_core.errors import InvalidConstraint, InvalidSamplingParams
from pd_core.sampling_params import SamplingParams


def test_a_schema_keeps_the_order_of_its_properties() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {}, "ü": {}}}
    source = json_schema_constraint(schema).source
    assert source == '{"type":"object","properties":{"z":{},"a":{},"ü":{}}}'


def deep(levels: int) -> Any:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": float("nan")},
        {"const": {1, 2}},
        {"const": "\ud800"},
        deep(100_000),
        {"enum": ["x" * 100] * 1000},
    ],
)
def test_what_is_no_json_or_too_large_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidConstraint):
        json_schema_constraint(schema)


def test_the_bound_is_in_bytes() -> None:
    Constraint(ConstraintKind.REGEX, "a" * MOST_SOURCE_BYTES)
    with pytest.raises(InvalidConstraint, match="at most 65536"):
        Constraint(ConstraintKind.REGEX, "é" * (MOST_SOURCE_BYTES // 2 + 1))


def test_only_a_json_object_has_no_source() -> None:
    assert json_object_constraint().source == ""
    with pytest.raises(InvalidConstraint):
        Constraint(ConstraintKind.JSON_OBJECT, "{}")
    with pytest.raises(InvalidConstraint):
        Constraint(ConstraintKind.REGEX)


@pytest.mark.parametrize("choices", [[], ["a", ""]])
def test_a_choice_has_texts(choices: list[str]) -> None:
    with pytest.raises(InvalidConstraint):
        choice_constraint(choices)


def test_a_digest_tells_kind_and_source_apart() -> None:
    digests = {
        Constraint(kind, source).digest
        for kind in (ConstraintKind.REGEX, ConstraintKind.LARK, ConstraintKind.JSON_SCHEMA)
        for source in ("a", "b")
    }
    assert len(digests) == 6


@pytest.mark.parametrize("more", [{"ignore_eos": True}, {"forced_length": 5}, {"min_tokens": 3}])
def test_an_answer_of_a_form_ends_where_the_form_does(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidSamplingParams, match="ends where the form is complete"):
        SamplingParams(constraint=json_object_constraint(), **more)
