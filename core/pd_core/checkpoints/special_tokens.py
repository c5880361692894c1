"""Special tokens beyond the usual ones: those that a model names itself, and those without a name.

A model names tokens of its own, such as "image_token", in an object `extra_special_tokens`, or by
keys that end in "_token". Tokens without a name are in a list of that name, or in its older form
`additional_special_tokens`, or among all that were added, `added_tokens_decoder`, by their ids. All
are read as `transformers` does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pd_core.errors import ModelError
from pd_core.text.token_rules import TokenRules

__all__ = ["USUAL_NAMES", "nameless_tokens", "own_names", "token_rules", "token_text"]

USUAL_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""The names that every model may use."""

_EXTRA = "extra_special_tokens"
_LISTS = (_EXTRA, "additional_special_tokens")
_ADDED = "added_tokens_decoder"


def own_names(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the texts of the tokens that have names of the model's own.

    Args:
        files: the content of the files by their names; the first that names a token decides.

    Raises:
        ModelError: a token of `extra_special_tokens` is no text.
    """
    found: dict[str, str] = {}
    for file, content in reversed(files.items()):
        for name, value in content.items():
            own = name.endswith("_token") and name not in USUAL_NAMES
            if own and isinstance(value, str | dict):
                found[name] = token_text(file, name, value)
    for file, content in reversed(files.items()):
        extra = content.get(_EXTRA)
        if isinstance(extra, dict):
            found |= {name: token_text(file, name, value) for name, value in extra.items()}
    return found


def nameless_tokens(files: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return the texts of the further special tokens.

    Raises:
        ModelError: one is no text.
    """
    texts = dict[str, None]()
    for file, content in files.items():
        for key in _LISTS:
            value = content.get(key)
            if isinstance(value, list):
                texts |= dict.fromkeys(token_text(file, key, each) for each in value)
        texts |= {
            token_text(file, _ADDED, each): None
            for each in _added(file, content)
            if each.get("special") is True
        }
    return tuple(text for text in texts if text)


def token_rules(files: Mapping[str, Mapping[str, Any]]) -> dict[str, TokenRules]:
    """Return how tokens are found, by their texts, as far as the files say so.

    What `added_tokens_decoder` says of a token goes first, and then the first file.

    Raises:
        ModelError: a rule is neither true nor false, or a token no text.
    """
    found = dict[str, TokenRules]()
    for file, content in files.items():
        for each in (*_added(file, content), *_objects(content)):
            if text := token_text(file, _ADDED, each):
                found.setdefault(text, _rules(file, text, each))
    return {text: rules for text, rules in found.items() if rules != TokenRules()}


def _added(file: str, content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a file says of the tokens that were added."""
    value = content.get(_ADDED) or {}
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise ModelError(f"{file}: {_ADDED} must hold an object for each id")
    return list(value.values())


def _objects(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tokens that a file names or lists as objects, and not as texts."""
    extra = content.get(_EXTRA)
    values = [value for name, value in content.items() if name.endswith("_token")]
    values += extra.values() if isinstance(extra, dict) else ()
    for key in _LISTS:
        listed = content.get(key)
        values += listed if isinstance(listed, list) else ()
    yield from (value for value in values if isinstance(value, dict))


def _rules(file: str, text: str, token: Mapping[str, Any]) -> TokenRules:
    said = {each.name: token.get(each.name, False) for each in fields(TokenRules)}
    if wrong := [name for name, value in said.items() if not isinstance(value, bool)]:
        raise ModelError(
            f"{file}: {wrong[0]} of {text!r} is {said[wrong[0]]!r}; it must be true or false"
        )
    return TokenRules(**said)


def token_text(file: str, name: str, value: object) -> str:
    """Return a token's text, which is stored as a string or as an object with `content`.

    Raises:
        ModelError: it is neither.
    """
    text = value.get("content") if isinstance(value, dict) else value
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ModelError(f"{file}: {name} is {value!r}; it must be text")
    return text
