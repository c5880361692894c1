"""The form of an answer that must be a call, or may be one beside a form that is asked for."""

import json
from collections.abc import Mapping
from typing import Any

from pd_core.constraint import Constraint, ConstraintKind, json_schema_constraint
from pd_core.errors import InvalidConstraint
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.tools.closed_schema import closed
from pd_device_client.api.tools.functions import Function, Offer
from pd_device_client.api.tools.schema_references import check_references, moved

__all__ = ["MOST_FORCED_CALLS", "answer_form"]

MOST_FORCED_CALLS = 16
"""A model that may only write calls could go on for ever."""

_ANSWER = "#/$defs/answer"


def answer_form(offer: Offer | None, asked: Constraint | None) -> Constraint | None:
    """Return the form of an answer.

    One named function: its arguments alone. Any function that must be called: an array of calls.
    A JSON form beside functions that may be called: a value of that form, or an array of calls.

    Args:
        offer: the functions; None: no call is possible.
        asked: the form that the request asks for by itself; None: any.

    Raises:
        Refusal: a schema cannot be used, or the request asks for a call and another form.
    """
    if offer is None or not (offer.required or offer.named or asked):
        return asked
    if asked is None:
        try:
            return json_schema_constraint(_forced(offer))
        except InvalidConstraint as error:
            raise Refusal(f"tools: {error}", "tools", code="invalid_constraint") from error
    if offer.required or offer.named:
        raise Refusal(
            "tool_choice asks for a call, and the request for another form of the answer; leave "
            "one out",
            "tool_choice",
        )
    return _beside(offer, asked)


def _forced(offer: Offer) -> Mapping[str, Any]:
    if offer.named is None:
        return _calls(offer)
    arguments: Mapping[str, Any] = closed(offer.named.arguments)
    return arguments


def _beside(offer: Offer, asked: Constraint) -> Constraint:
    """Return the form of a call or of what is asked; a form that is no JSON stays alone."""
    match asked.kind:
        case ConstraintKind.JSON_OBJECT:
            schema: Any = {"type": "object"}
        case ConstraintKind.JSON_SCHEMA:
            try:
                schema = json.loads(asked.source)
            except (ValueError, RecursionError):
                return asked  # whoever compiles it says what is wrong
        case _:
            return asked
    if not isinstance(schema, dict):
        return asked
    try:
        check_references(schema)
        calls = _calls(offer)
        own = moved(schema, _ANSWER)
    except ValueError:
        return asked
    definitions = {**calls.pop("$defs"), "answer": own}
    return json_schema_constraint({"anyOf": [{"$ref": _ANSWER}, calls], "$defs": definitions})


def _calls(offer: Offer) -> dict[str, Any]:
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_FORCED_CALLS if offer.parallel else 1,
        "items": {"anyOf": [_call(function) for function in offer.functions]},
        "$defs": {
            f"tool.{function.name}": moved(closed(function.arguments), _place(function))
            for function in offer.functions
        },
    }


def _call(function: Function) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function.name},
            "arguments": {"$ref": _place(function)},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _place(function: Function) -> str:
    return f"#/$defs/tool.{function.name}"
