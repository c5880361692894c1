"""The bytes that each token stands for, also where they are only part of a character."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

__all__ = ["TokenBytes"]

_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """What a tokenizer's decoder makes of each token by itself.

    The bytes of an answer's tokens, one after another, are the answer's text, but for a space at
    its beginning that some decoders take away.

    Args:
        backend: the tokenizer; tokens that it gets later are unknown here.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._added = {
            token_id: token.content
            for token_id, token in backend.get_added_tokens_decoder().items()
        }
        steps = list(_steps(backend.decoder))
        kinds = {step["type"] for step in steps}
        self._letters = _byte_letters() if "ByteLevel" in kinds else None
        self._bytes_as_tokens = "ByteFallback" in kinds
        self._prefixes = [step["prefix"] for step in steps if step["type"] == "WordPiece"]
        self._replaced = [pair for step in steps for pair in _replacement(step)]

    def of(self, token_id: int) -> bytes:
        """Return a token's bytes; of special tokens their text, of no token none."""
        if (content := self._added.get(token_id)) is not None:
            return content.encode()
        piece = self._backend.id_to_token(token_id) or ""
        if self._letters is not None:
            letters = self._letters
            return b"".join([letters.get(letter) or letter.encode() for letter in piece])
        if self._bytes_as_tokens and (one := _ONE_BYTE.fullmatch(piece)):
            return bytes.fromhex(one[1])
        for prefix in self._prefixes:
            piece = piece[len(prefix) :] if piece.startswith(prefix) else f" {piece}"
        for old, new in self._replaced:
            piece = piece.replace(old, new)
        return piece.encode()


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """Yield the steps of a decoder, which may be nested sequences of some."""
    told = json.loads(decoder.__getstate__()) if decoder is not None else None
    left = [] if told is None else [told]
    while left:
        step = left.pop(0)
        if step["type"] == "Sequence":
            left = [*step["decoders"], *left]
        else:
            yield step


def _replacement(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if step["type"] == "Metaspace":
        yield step["replacement"], " "
    elif step["type"] == "Replace" and "String" in step["pattern"]:
        yield step["pattern"]["String"], step["content"]


def _byte_letters() -> dict[str, bytes]:
    """Return the letters by which byte-level tokenizers write the 256 bytes, as GPT-2 did first.

    Printable bytes are their own letters; the others come, in order, from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(0x100 + i): bytes([byte]) for i, byte in enumerate(others)}
