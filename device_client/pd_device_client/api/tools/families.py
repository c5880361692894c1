"""How families of models write calls of functions in their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["FAMILIES", "Family", "FamilyName", "family_of"]


class FamilyName(StrEnum):
    """The families that are known."""

    HERMES = "hermes"
    LLAMA3 = "llama3"
    MISTRAL = "mistral"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Family:
    """One way to write calls.

    Attributes:
        brackets: what opens calls, and what closes them; "": nothing does, or need not.
        bare: an object at the beginning of a line may be a call too.
        headed: a call may be a function's name followed by its arguments.
        hidden: what special tokens write, which have no text otherwise.
        nine_letters: a call's id has exactly nine letters and digits.
    """

    brackets: Mapping[str, str]
    bare: bool = False
    headed: bool = False
    hidden: tuple[str, ...] = ()
    nine_letters: bool = False


_TAGS = {"<tool_call>": "</tool_call>"}
_MISTRAL_MARKS = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

FAMILIES: Mapping[FamilyName, Family] = {
    FamilyName.HERMES: Family(_TAGS, hidden=("<tool_call>", "</tool_call>")),
    FamilyName.LLAMA3: Family({"<|python_tag|>": ""}, bare=True, hidden=("<|python_tag|>",)),
    FamilyName.MISTRAL: Family(
        {"[TOOL_CALLS]": ""}, headed=True, hidden=_MISTRAL_MARKS, nine_letters=True
    ),
    FamilyName.JSON: Family({**_TAGS, "```json": "```", "```\n": "```"}, bare=True),
}
"""Hermes and Qwen: `<tool_call>{...}</tool_call>`. Llama 3: an object, perhaps behind
`<|python_tag|>`. Mistral: `[TOOL_CALLS]` and an array, or names with arguments. JSON: what small
models make of a call: objects or an array, bare, between tags, or in a fence."""

# What a template contains that teaches the format; the first that is found counts.
_TAUGHT = (
    ("[TOOL_CALLS]", FamilyName.MISTRAL),
    ("<tool_call>", FamilyName.HERMES),
    ("<|python_tag|>", FamilyName.LLAMA3),
    ('"parameters": dictionary of argument name', FamilyName.LLAMA3),
)


def family_of(template: str) -> FamilyName:
    """Return the family whose format a chat template teaches; JSON if none is known."""
    return next((name for mark, name in _TAUGHT if mark in template), FamilyName.JSON)
