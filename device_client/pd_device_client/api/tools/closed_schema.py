"""A JSON schema of arguments without arguments that nobody named."""

from collections.abc import Mapping
from typing import Any

__all__ = ["closed"]

# Beside these a schema's properties may not be all that there are.
_OTHERS = frozenset(
    {
        *("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"),
        *("patternProperties", "propertyNames", "additionalProperties", "unevaluatedProperties"),
    }
)
_MOST_DEPTH = 64


def closed(schema: Any, depth: int = _MOST_DEPTH) -> Any:
    """Return a schema whose objects have no other properties than those it names.

    JSON schemas let an object have any others, and a small model makes use of that for ever. What
    fits the closed schema fits the given one. Only objects that plainly list their properties are
    closed; the schemas behind references and alternatives stay as they are.

    Args:
        schema: a schema, or anything in its place.
        depth: how many levels are looked at.
    """
    if not isinstance(schema, Mapping) or depth < 0:
        return schema
    made = dict(schema)
    properties = made.get("properties")
    if isinstance(properties, Mapping):
        made["properties"] = {name: closed(each, depth - 1) for name, each in properties.items()}
        if not _OTHERS & made.keys():
            made["additionalProperties"] = False
    if isinstance(made.get("items"), Mapping):
        made["items"] = closed(made["items"], depth - 1)
    return made
