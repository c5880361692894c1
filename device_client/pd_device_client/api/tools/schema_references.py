"""References inside a JSON schema: whether they lead somewhere, and where to after a move."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = ["check_references", "moved"]

_MOST_DEPTH = 64
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_PLAIN = frozenset({"const", "enum", "default", "examples"})  # values, no schemas
_OF_A_DOCUMENT = frozenset({"$id", "$schema"})


def check_references(schema: Mapping[str, Any]) -> None:
    """Check that every reference leads to a place of the same schema.

    Raises:
        ValueError: one does not, or the schema is nested too deeply.
    """

    def check(reference: str) -> str:
        if not reference.startswith("#"):
            raise ValueError(f"$ref {reference[:80]!a} is another document; only # is followed")
        if not _leads(schema, reference):
            raise ValueError(f"$ref {reference[:80]!a} leads nowhere in the schema")
        return reference

    _copied(schema, check, _MOST_DEPTH)


def moved(schema: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return a schema as a part of a larger one.

    Args:
        schema: whose references all begin with "#".
        place: where it will stand, such as "#/$defs/name".

    Raises:
        ValueError: the schema is nested too deeply.
    """
    whole = {name: value for name, value in schema.items() if name not in _OF_A_DOCUMENT}
    made = _copied(whole, lambda reference: place + reference.removeprefix("#"), _MOST_DEPTH)
    assert isinstance(made, dict)
    return made


def _leads(schema: Mapping[str, Any], reference: str) -> bool:
    place: Any = schema
    _, *steps = unquote(reference).split("/")
    if reference != "#" and not reference.startswith("#/"):
        return False  # a name; no model's tool uses those
    for step in steps:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and step in place:
            place = place[step]
        elif isinstance(place, list) and step.isdecimal() and int(step[:9]) < len(place):
            place = place[int(step[:9])]
        else:
            return False
    return isinstance(place, dict | bool)


def _copied(node: Any, of: Callable[[str], str], depth: int) -> Any:
    """Return a copy of a schema, or a list of them, with each reference changed by `of`."""
    if depth < 0:
        raise ValueError(f"the schema is nested more than {_MOST_DEPTH} levels deep")
    if isinstance(node, list):
        return [_copied(item, of, depth - 1) for item in node]
    if not isinstance(node, Mapping):
        return node
    made = dict[str, Any]()
    for name, value in node.items():
        if name == "$ref" and isinstance(value, str):
            made[name] = of(value)
        elif name in _NAMED and isinstance(value, Mapping):
            made[name] = {key: _copied(each, of, depth - 2) for key, each in value.items()}
        elif name in _PLAIN:
            made[name] = value
        else:
            made[name] = _copied(value, of, depth - 1)
    return made
