"""Forms of answers that tests ask for, small enough that a model without sense ends them."""

import json
from typing import Any

import jsonschema_rs

from pd_core.constraint import Constraint, ConstraintKind, json_schema_constraint

__all__ = ["FORMS", "PERSON", "SCHEMAS", "fits"]

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "Ü", "long tag"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "person": PERSON,
    "union": {
        "anyOf": [
            {"type": "boolean"},
            {"type": "null"},
            {
                "type": "array",
                "items": {"type": "integer", "minimum": -9, "maximum": 9},
                "maxItems": 3,
            },
        ]
    },
    "tree": {
        "$defs": {
            "leaf": {"const": "blatt"},
            "node": {
                "type": "object",
                "properties": {"l": {"$ref": "#/$defs/leaf"}, "größe": {"enum": [1, 2.5, "x"]}},
                "required": ["l", "größe"],
                "additionalProperties": False,
            },
        },
        "type": "array",
        "items": {"$ref": "#/$defs/node"},
        "minItems": 1,
        "maxItems": 2,
    },
}
FORMS: dict[str, Constraint] = {
    **{name: json_schema_constraint(schema) for name, schema in SCHEMAS.items()},
    "regex": Constraint(ConstraintKind.REGEX, "[0-9]{3}-(yes|no|é{1,3})"),
    "lark": Constraint(ConstraintKind.LARK, 'start: "(" start ")" | WORD\nWORD: /[a-z]{1,4}/'),
}


def fits(schema: dict[str, Any], text: str) -> bool:
    """Whether a text is a JSON value of a schema, as another library judges it."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(jsonschema_rs.validator_for(schema).is_valid(value))
