"""The form that a request asks its answer to have: OpenAI's `response_format`, vLLM's extension."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from pd_core.constraint import (
    Constraint,
    ConstraintKind,
    choice_constraint,
    json_object_constraint,
    json_schema_constraint,
)
from pd_core.errors import InvalidConstraint
from pd_core.grammar.gbnf import grammar_constraint
from pd_core.grammar.matcher import Matcher
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import Parameters
from pd_device_client.client.form_check import compiled_within

__all__ = ["ResponseFormat", "StructuredOutputs", "asked_constraint", "check_form", "refused_form"]

_MOST_CHOICES = 1024
_SOON_S = 0.005  # most forms are compiled in less, and an answer should not wait longer


class JsonSchema(Parameters):
    """A schema with its name, which has no effect here; `strict` has none either: it always is."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    json_schema: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None


class ResponseFormat(Parameters):
    """OpenAI's parameter: any text, a JSON object, or a JSON value of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Parameters):
    """vLLM's parameter: exactly one of these forms.

    Attributes:
        json_schema: under the key `json`: a schema, or its text.
        regex: an expression that the whole answer fits.
        choice: the answer is one of these.
        grammar: in llguidance's Lark, with a rule `start`, or in GBNF, with a rule `root`.
        json_object: true: any JSON object.
    """

    json_schema: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=_MOST_CHOICES)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = None
    json_object: bool | None = None
    disable_any_whitespace: Literal[False] = False
    disable_additional_properties: Literal[False] = False
    whitespace_pattern: None = None
    structural_tag: None = None


def asked_constraint(
    response_format: ResponseFormat | None, structured_outputs: StructuredOutputs | None
) -> Constraint | None:
    """Return the form that a request asks for; None: any text.

    Raises:
        Refusal: it cannot be used, by the name of its parameter; or there are two.
    """
    formed = _of_format(response_format)
    structured = None if structured_outputs is None else _of_structured(structured_outputs)
    if formed is not None and structured is not None:
        raise Refusal(
            "response_format and structured_outputs are two forms of one answer; give one",
            "structured_outputs",
        )
    return formed or structured


async def check_form(form: Matcher, where: str) -> None:
    """Refuse a form that cannot be used, if that is known soon; else its answer fails.

    Args:
        form: a new answer's place in it; it is being compiled.
        where: the parameter that asked for it.

    Raises:
        Refusal: it cannot be used; the message says why.
    """
    await compiled_within(form, _SOON_S)
    error = form.form.exception() if form.form.done() else None
    if isinstance(error, InvalidConstraint):
        raise refused_form(where, error)


def _of_format(asked: ResponseFormat | None) -> Constraint | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return json_object_constraint()
    where = "response_format.json_schema"
    if asked.json_schema is None or asked.json_schema.json_schema is None:
        raise Refusal(f"{where}.schema is missing; the answer needs its schema", where)
    schema = asked.json_schema.json_schema
    return _made(where, lambda: json_schema_constraint(schema))


def _of_structured(asked: StructuredOutputs) -> Constraint:
    where, forms = "structured_outputs", list[tuple[str, Callable[[], Constraint]]]()
    if (schema := asked.json_schema) is not None:
        forms.append(("json", lambda: _of_schema(schema)))
    if (regex := asked.regex) is not None:
        forms.append(("regex", lambda: Constraint(ConstraintKind.REGEX, regex)))
    if (choice := asked.choice) is not None:
        forms.append(("choice", lambda: choice_constraint(choice)))
    if (grammar := asked.grammar) is not None:
        forms.append(("grammar", lambda: grammar_constraint(grammar)))
    if asked.json_object:
        forms.append(("json_object", json_object_constraint))
    if len(forms) != 1:
        raise Refusal(
            f"{where} has {len(forms)} forms; give exactly one of json, regex, choice, grammar and "
            "json_object",
            where,
        )
    name, make = forms[0]
    return _made(f"{where}.{name}", make)


def _of_schema(schema: dict[str, Any] | str) -> Constraint:
    if isinstance(schema, str):
        return Constraint(ConstraintKind.JSON_SCHEMA, schema)
    return json_schema_constraint(schema)


def _made(where: str, make: Callable[[], Constraint]) -> Constraint:
    try:
        return make()
    except InvalidConstraint as error:
        raise refused_form(where, error) from error


def refused_form(where: str, error: InvalidConstraint) -> Refusal:
    """Return the refusal of a form, by the name of its parameter."""
    return Refusal(f"{where}: {error}", where, code="invalid_constraint")
