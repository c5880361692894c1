"""What form an answer must have: a plain value, as both sides tell it. `pd_core.grammar` keeps it.

The source is kept as it was given, and bounded: whether it means anything is known only where it is
compiled, for the vocabulary of a model.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pd_core.errors import InvalidConstraint

__all__ = [
    "MOST_SOURCE_BYTES",
    "Constraint",
    "ConstraintKind",
    "choice_constraint",
    "json_object_constraint",
    "json_schema_constraint",
]

MOST_SOURCE_BYTES = 1 << 16


class ConstraintKind(StrEnum):
    """The language of a constraint's source."""

    JSON_OBJECT = "json_object"  # any JSON object; the source is empty
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"  # of the whole answer, without look-around and back references
    LARK = "lark"  # llguidance's form of Lark; the rule `start` is the answer


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form of an answer: only tokens that can lead to such an answer are chosen.

    Attributes:
        kind: the source's language.
        source: the schema, expression or grammar.

    Raises:
        InvalidConstraint: the source is missing, too long, or no valid Unicode.
    """

    kind: ConstraintKind
    source: str = ""

    def __post_init__(self) -> None:
        if (self.source == "") != (self.kind is ConstraintKind.JSON_OBJECT):
            raise InvalidConstraint(
                f"a constraint of kind {self.kind} has {'no' if not self.source else 'a'} source; "
                "all kinds have one but json_object"
            )
        try:
            num_bytes = len(self.source.encode())
        except UnicodeEncodeError as error:
            raise InvalidConstraint(
                f"the {self.kind} is not valid UTF-8 (character {error.start}); check its encoding"
            ) from error
        if num_bytes > MOST_SOURCE_BYTES:
            raise InvalidConstraint(
                f"the {self.kind} has {num_bytes} bytes; at most {MOST_SOURCE_BYTES} are taken: "
                "make it smaller"
            )

    @property
    def digest(self) -> str:
        """Hex sha256 of kind and source."""
        return hashlib.sha256(f"{self.kind}\n{self.source}".encode()).hexdigest()


def json_object_constraint() -> Constraint:
    """Return the constraint of an answer that is any JSON object."""
    return Constraint(ConstraintKind.JSON_OBJECT)


def json_schema_constraint(schema: Mapping[str, Any] | bool) -> Constraint:
    """Return the constraint of an answer that is a JSON value of a schema.

    The order of the schema's properties is kept: an answer has them in that order.

    Raises:
        InvalidConstraint: the schema is no JSON, nested too deep, or too large.
    """
    try:
        source = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConstraint(
            f"the JSON schema is no JSON ({error}); use only objects, lists, texts, finite "
            "numbers, true, false and null, and no deep nesting"
        ) from error
    return Constraint(ConstraintKind.JSON_SCHEMA, source)


def choice_constraint(choices: Sequence[str]) -> Constraint:
    """Return the constraint of an answer that is one of some texts.

    Raises:
        InvalidConstraint: there are none, one is empty, or they are too long together.
    """
    if not choices or not all(choices):
        raise InvalidConstraint("a choice needs at least one text, and none that is empty")
    return Constraint(ConstraintKind.REGEX, "|".join(map(_literal, choices)))


def _literal(text: str) -> str:
    """Return a regular expression of this very text; no character in it means anything else."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
