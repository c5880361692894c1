"""Special tokens beyond the usual ones: those that a model names itself, and those without a name.

A model names tokens of its own, such as "image_token", in an object `extra_special_tokens`, or by
keys that end in "_token". Tokens without a name are in a list of that name, or in its older form
`additional_special_tokens`. All are read as `transformers` does.
"""

from typing import Any

from pd_core.errors import ModelError

__all__ = ["USUAL_NAMES", "nameless_tokens", "own_names", "token_text"]

USUAL_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""The names that every model may use."""

_EXTRA = "extra_special_tokens"
_LISTS = (_EXTRA, "additional_special_tokens")


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
    return tuple(text for text in texts if text)


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
