"""The files beside tokenizer.json: special tokens by name, and the chat template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pd_core.errors import ModelError
from pd_core.store.json_file import read_json, read_text
from pd_core.text.chat_template import ChatTemplate

__all__ = ["TokenizerConfig"]

_SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_TEMPLATE = "chat_template.jinja"
_SETTINGS = "tokenizer_config.json"
_OLDER_SETTINGS = "special_tokens_map.json"
_MOST_TEMPLATE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """The parts of tokenizer_config.json, special_tokens_map.json and chat_template.jinja we use.

    Attributes:
        special_tokens: text of "bos_token", "eos_token", ..., as far as they are defined.
        chat_template: the template's text; "" when there is none.
    """

    special_tokens: Mapping[str, str] = field(default_factory=dict)
    chat_template: str = ""

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read the files; each may be missing. chat_template.jinja takes precedence.

        As in `transformers`, a special_tokens_map.json takes precedence over a
        tokenizer_config.json of its time. One that lists the added tokens is newer, and then only
        what it does not name comes from the older file.

        Raises:
            ModelError: one cannot be read, or asks to run code.
        """
        raw = _read(directory / _SETTINGS)
        if raw.get("auto_map"):
            raise ModelError(
                f"{_SETTINGS}: auto_map asks to run the checkpoint's own code, which is never "
                "done; remove the key if tokenizer.json is all the model needs"
            )
        files = {_OLDER_SETTINGS: _read(directory / _OLDER_SETTINGS), _SETTINGS: raw}
        if "added_tokens_decoder" in raw:
            files = {_SETTINGS: raw, **files}
        special = {name: _token_text(name, files) for name in _SPECIAL}
        return cls(
            {name: text for name, text in special.items() if text},
            _template_text(directory, raw.get("chat_template")),
        )

    def template(self) -> ChatTemplate | None:
        """Return the chat template, if there is one; `ChatTemplate.check` compiles it.

        Raises:
            ModelError: it is too long.
        """
        if not self.chat_template:
            return None
        return ChatTemplate(self.chat_template, self.special_tokens)

    def write(self, directory: Path) -> None:
        """Write the files that have content."""
        if self.special_tokens:
            content = json.dumps(dict(self.special_tokens), indent=2, ensure_ascii=False) + "\n"
            (directory / _SETTINGS).write_text(content, encoding="utf-8")
        if self.chat_template:
            (directory / _TEMPLATE).write_text(self.chat_template, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _token_text(name: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a token's text from the first file that names it; "" if none does.

    It is stored as a string or as an object with `content`.
    """
    file = next((file for file, content in files.items() if name in content), None)
    value = None if file is None else files[file][name]
    text = value.get("content") if isinstance(value, dict) else value
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ModelError(f"{file}: {name} is {value!r}; it must be text")
    return text


def _template_text(directory: Path, value: object) -> str:
    file = directory / _TEMPLATE
    if file.exists():
        try:
            return read_text(file, _MOST_TEMPLATE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{file} cannot be read: {error}") from error
    if isinstance(value, list):  # several by name
        named = [t for t in value if isinstance(t, dict) and t.get("name") == "default"]
        value = named[-1].get("template") if named else None
    if value is not None and not isinstance(value, str):
        raise ModelError(f"{_SETTINGS}: chat_template is a {type(value).__name__}; not text")
    return value or ""
