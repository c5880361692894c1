"""Byte-level BPE: training a tokenizer, and encoding a corpus with one."""

import itertools
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pd_core.errors import ConfigError

__all__ = ["EOS_TOKEN", "CorpusEncoder", "train_tokenizer"]

EOS_TOKEN = "<eos>"
_NUM_BYTES = 256


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> str:
    """Train a byte-level BPE tokenizer; every text can be encoded and decodes to itself.

    Args:
        texts: the corpus's documents.
        vocab_size: number of ids, including the end-of-sequence token; a small corpus gives fewer.

    Returns:
        The content of a tokenizer.json.

    Raises:
        ConfigError: vocab_size has no room for the bytes, or there is no text.
    """
    if vocab_size <= _NUM_BYTES:
        raise ConfigError(
            f"a vocabulary of {vocab_size} has no room for the {_NUM_BYTES} bytes and "
            f"{EOS_TOKEN}; ask for {_NUM_BYTES + 1} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(EOS_TOKEN, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rest = iter(texts)
    first = next(rest, None)
    if first is None:
        raise ConfigError("the corpus is empty: no document with text; give more")
    tokenizer.train_from_iterator(itertools.chain([first], rest), trainer)
    content: str = tokenizer.to_str(pretty=True)
    return content


class CorpusEncoder:
    """Encodes documents, each followed by the end-of-sequence token.

    In a document that contains the text "<eos>", it is encoded as letters, not as the token.

    Attributes:
        eos_token_id: the token between documents.
        vocab_size: ids are below this.

    Raises:
        ConfigError: the content is no tokenizer, or has no token of that name.
    """

    def __init__(self, tokenizer: str, eos_token: str = EOS_TOKEN) -> None:
        try:
            self._backend = Tokenizer.from_str(tokenizer)
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"the tokenizer cannot be read: {error}") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        if eos_token not in vocabulary:
            raise ConfigError(
                f"the tokenizer has no token {eos_token!r} to put between documents; name the one "
                "it has with --eos-token"
            )
        self.eos_token_id: int = vocabulary[eos_token]
        self.vocab_size: int = max(vocabulary.values()) + 1

    def encode(self, text: str) -> list[int]:
        """Return a document's ids and the end-of-sequence id."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [*ids, self.eos_token_id]
