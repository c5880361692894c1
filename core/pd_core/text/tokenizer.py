"""Text to token ids and back, and streams of ids to text, with stop strings."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

import tokenizers

from pd_core.errors import EngineError, InvalidRequest, ModelError
from pd_core.process.held_lock import ended_by_the_system
from pd_core.store.json_file import read_text
from pd_core.text.text_stream import TextStream
from pd_core.text.token_bytes import TokenBytes
from pd_core.text.token_rules import TokenRules
from pd_core.text.tokenizer_errors import our_errors
from pd_core.text.tokenizer_trial import try_out

__all__ = ["TextStream", "Tokenizer"]

_MOST_BYTES = 64 << 20  # the largest of ordinary models have 35 MB
_NO_RULES: Mapping[str, TokenRules] = MappingProxyType({})
_MOST_MADE_SPECIAL = 10_000  # the library compares each with each


class Tokenizer:
    """A tokenizer.json, read by the `tokenizers` library.

    Attributes:
        digest: hex sha256 of the file's content.
        vocab_size: ids are below this, added tokens included.
        prefix_ids: ids the tokenizer puts before a text, such as the beginning of sequence.
        special_tokens: the text of every special token by its id.
    """

    def __init__(self, backend: tokenizers.Tokenizer, content: str) -> None:
        self._backend = backend
        self._content = content.encode()  # as a string it may take four times as much
        self.digest = hashlib.sha256(self._content).hexdigest()
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.prefix_ids = self._find_prefix()
        added = backend.get_added_tokens_decoder()
        self.special_tokens: Mapping[int, str] = {
            token_id: token.content for token_id, token in added.items() if token.special
        }

    def make_special(
        self,
        named: Iterable[str],
        nameless: Iterable[str] = (),
        rules: Mapping[str, TokenRules] = _NO_RULES,
    ) -> None:
        """Make tokens special that a file beside tokenizer.json calls so, as `transformers` does.

        Each is then one token wherever a text has it, and has no text in an answer. What is no
        token of the vocabulary stays as it is, since the model knows nothing of it.

        Args:
            named: texts of tokens that have a name.
            nameless: texts of others; what tokenizer.json says of them goes first.
            rules: how those are found that tokenizer.json does not name, by their texts.

        Raises:
            ModelError: there are more than any model has.
        """
        said = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        texts = [*named, *(text for text in nameless if text not in said)]
        known = {"", *self.special_tokens.values()}
        ids = {text: self.token_id(text) for text in texts if text not in known}
        new = {token_id: text for text, token_id in ids.items() if token_id is not None}
        if len(new) > _MOST_MADE_SPECIAL:
            raise ModelError(
                f"the tokenizer's settings make {len(new)} tokens special; more than "
                f"{_MOST_MADE_SPECIAL} are refused"
            )
        if new:
            own = {text: each for text, each in rules.items() if text not in said}
            tokens = [
                tokenizers.AddedToken(text, **asdict(own.get(text, TokenRules())))
                for text in new.values()
            ]
            with our_errors(ModelError, "its special tokens cannot be used"):
                self._backend.add_special_tokens(tokens)
            self.special_tokens = {**self.special_tokens, **new}

    @classmethod
    @ended_by_the_system()  # the library holds the interpreter's lock, for seconds if it is large
    def from_str(cls, content: str) -> Self:
        """Read the content of a tokenizer.json.

        Raises:
            ModelError: it is not a tokenizer.json.
        """
        with our_errors(ModelError, "not a tokenizer.json"):
            backend = tokenizers.Tokenizer.from_str(content)
        # A file may ask for truncation or padding, which must never happen to a prompt silently.
        backend.no_truncation()
        backend.no_padding()
        with our_errors(ModelError, "it cannot read a text as short as 'a'"):
            tokenizer = cls(backend, content)
            tokenizer.decode(tokenizer.encode("a"))
        if not tokenizer.vocab_size:
            raise ModelError("it has no tokens, so it is not a language model's")
        if unknown := [i for i in tokenizer.prefix_ids if i >= tokenizer.vocab_size]:
            raise ModelError(
                f"it puts the id {unknown[0]} before every text, and has only "
                f"{tokenizer.vocab_size} ids; mend its post_processor"
            )
        return tokenizer

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a tokenizer.json.

        Raises:
            ModelError: there is none, or it is broken.
        """
        try:
            content = read_text(path, _MOST_BYTES)
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} does not exist, and no other form of tokenizer is read; `transformers` "
                "writes one by save_pretrained of its fast tokenizer"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        try:
            try_out(content)
            return cls.from_str(content)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_str(self) -> str:
        """Return the content it was read from."""
        return self._content.decode()

    def library_json(self) -> str:
        """Return it as a tokenizer.json that has all that was made special since it was read."""
        return self._backend.to_str()

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
        with our_errors(InvalidRequest, "the model's tokenizer has no tokens for the text"):
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

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ids; broken UTF-8 becomes U+FFFD.

        Args:
            token_ids: the ids.
            skip_special_tokens: give special tokens no text.
        """
        with our_errors(EngineError, "the model's tokenizer has no text for its tokens"):
            return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def continuation(self, token_ids: Sequence[int], behind: Sequence[int]) -> str:
        """Return the text of ids as it continues the text of the ids `behind`.

        Some decoders take the space from the beginning of a text; a continuation keeps it.
        """
        return self.decode([*behind, *token_ids])[len(self.decode(behind)) :]

    def token_id(self, token: str) -> int | None:
        """Return the id of a token such as "<eos>", or None."""
        return self._backend.token_to_id(token)

    def token_bytes(self) -> TokenBytes:
        """Return what says which bytes each token stands for."""
        return TokenBytes(self._backend)

    def stream(
        self,
        stop_strings: Sequence[str] = (),
        *,
        behind: Sequence[int] = (),
        skip_special_tokens: bool = True,
    ) -> TextStream:
        """Return a new stream that turns tokens into text as they come.

        Args:
            stop_strings: the text ends before the first of these; they may name special tokens.
            behind: the tokens whose text this one continues; none for a text of its own.
            skip_special_tokens: give special tokens no text.
        """
        decode = partial(self.decode, skip_special_tokens=skip_special_tokens)
        hidden = self.special_tokens if skip_special_tokens else {}
        return TextStream(decode, stop_strings, behind=behind, hidden=hidden)
