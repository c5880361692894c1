"""The files beside tokenizer.json: special tokens by name, and the chat template."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pd_core.checkpoints.special_tokens import (
    USUAL_NAMES,
    nameless_tokens,
    own_names,
    token_rules,
    token_text,
)
from pd_core.errors import ModelError
from pd_core.store.json_file import read_json, read_text
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.token_rules import TokenRules

__all__ = ["TokenizerConfig"]

_TEMPLATE = "chat_template.jinja"
_SETTINGS = "tokenizer_config.json"
_OLDER_SETTINGS = "special_tokens_map.json"
_MOST_TEMPLATE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """The parts of tokenizer_config.json, special_tokens_map.json and chat_template.jinja we use.

    Attributes:
        special_tokens: text of "bos_token", "eos_token", ..., as far as they are defined, and of
            those that the model gives names of its own.
        chat_template: the template's text; "" when there is none.
        nameless_tokens: texts of further special tokens.
        rules: how tokens are found in a text, by their texts, where that is not the usual way.
    """

    special_tokens: Mapping[str, str] = field(default_factory=dict)
    chat_template: str = ""
    nameless_tokens: tuple[str, ...] = ()
    rules: Mapping[str, TokenRules] = field(default_factory=dict)

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
        special = {name: _token_text(name, files) for name in USUAL_NAMES}
        special |= own_names(files)
        named = {name: text for name, text in special.items() if text}
        nameless = nameless_tokens(files)
        rules = {t: r for t, r in token_rules(files).items() if t in {*named.values(), *nameless}}
        template = _template_text(directory, raw.get("chat_template"))
        return cls(named, template, nameless, rules)

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
        named = {name: self._written(text) for name, text in self.special_tokens.items()}
        content: dict[str, Any] = {n: t for n, t in named.items() if n in USUAL_NAMES}
        if own := {n: t for n, t in named.items() if n not in USUAL_NAMES}:
            content["extra_special_tokens"] = own
        if self.nameless_tokens:
            content["additional_special_tokens"] = [self._written(t) for t in self.nameless_tokens]
        if content:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (directory / _SETTINGS).write_text(text, encoding="utf-8")
        if self.chat_template:
            (directory / _TEMPLATE).write_text(self.chat_template, encoding="utf-8")

    def _written(self, text: str) -> str | dict[str, object]:
        """Return a token as a text, or as `transformers` writes one with rules of its own."""
        rules = self.rules.get(text)
        if rules is None:
            return text
        return {"__type": "AddedToken", "content": text, "special": True, **asdict(rules)}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _token_text(name: str, files: dict[str, dict[str, Any]]) -> str:
    """Return a token's text from the first file that names it; "" if none does."""
    file = next((file for file, content in files.items() if name in content), "")
    return token_text(file, name, files[file][name]) if file else ""


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
