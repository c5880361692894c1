"""The schemas of `pd-bench schemas`, in the style of those that clients send, and their judge.

Texts, lists and numbers are bounded, so that an answer of a model without sense ends too.
"""

import json
from importlib import resources
from typing import Any

import jsonschema_rs

__all__ = ["read_schemas", "valid"]


def read_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by name."""
    path = resources.files("pd_bench") / "assets" / "schemas.json"
    schemas: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return schemas


def valid(schema: dict[str, Any], text: str) -> bool:
    """Whether a text is a JSON value of a schema, as a library of another origin judges it."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(jsonschema_rs.validator_for(schema).is_valid(value))
