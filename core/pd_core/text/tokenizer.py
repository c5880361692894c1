"""Text to token ids and back, and streams of ids to text, with stop strings."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import tokenizers

from pd_core.errors import InvalidRequest, ModelError
from pd_core.text.text_stream import TextStream

__all__ = ["TextStream", "Tokenizer"]


class Tokenizer:
    """A tokenizer.json, read by the `tokenizers` library.

    Attributes:
        digest: hex sha256 of the file's content.
        vocab_size: ids are below this, added tokens included.
        prefix_ids: ids the tokenizer puts before a text, such as the beginning of sequence.
    """

    def __init__(self, backend: tokenizers.Tokenizer, content: str) -> None:
        self._backend = backend
        self._content = content
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.prefix_ids = self._find_prefix()

    @classmethod
    def from_str(cls, content: str) -> Self:
        """Read the content of a tokenizer.json.

        Raises:
            ModelError: it is not a tokenizer.json.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing narrower
            raise ModelError(f"not a tokenizer.json: {error}") from error
        # A file may ask for truncation or padding, which must never happen to a prompt silently.
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, content)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a tokenizer.json.

        Raises:
            ModelError: there is none, or it is broken.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} does not exist, and no other form of tokenizer is read; `transformers` "
                "writes one by save_pretrained of its fast tokenizer"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        try:
            return cls.from_str(content)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_str(self) -> str:
        """Return the content it was read from."""
        return self._content

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added around it.

        Raises:
            InvalidRequest: the text contains a lone surrogate, so it was not valid UTF-8.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"the text is not valid UTF-8 (character {error.start}); check its encoding"
            ) from error
        # Only the library's batch methods let other threads run meanwhile.
        return list(self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a plain text as a whole prompt, with the tokenizer's prefix.

        A text that already begins with the prefix, because a chat template wrote it, does not get
        it twice. The tokenizer's suffix is left out, because an answer follows.
        """
        ids = self.encode(text)
        prefix = list(self.prefix_ids)
        return ids if ids[: len(prefix)] == prefix else prefix + ids

    def _find_prefix(self) -> tuple[int, ...]:
        bare = self.encode("a")
        full = list(self._backend.encode("a", add_special_tokens=True).ids)
        starts = range(len(full) - len(bare) + 1)
        return tuple(next((full[:i] for i in starts if full[i : i + len(bare)] == bare), []))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids; special tokens have none, broken UTF-8 becomes U+FFFD."""
        return self._backend.decode(list(token_ids), skip_special_tokens=True)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token such as "<eos>", or None."""
        return self._backend.token_to_id(token)

    def stream(self, stop_strings: Sequence[str] = ()) -> TextStream:
        """Return a new stream that turns tokens into text as they come."""
        return TextStream(self.decode, stop_strings)
