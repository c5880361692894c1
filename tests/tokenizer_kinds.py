"""Tokenizers of the kinds that models come with, small enough to read."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from pd_core.text.tokenizer import Tokenizer

__all__ = ["SPECIAL", "byte_fallback", "byte_level", "ids", "metaspace", "word_piece"]

SPECIAL = ("<s>", "</s>", "<|im_end|>")
_WORDS = ("it", "is", "Paris", "a", "b", "in", "France", ".", "!")


def byte_level() -> Tokenizer:
    """Bytes as letters, with tokens that end within a character or join two halves."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {token: i for i, token in enumerate(sorted(alphabet))}
    devanagari_ra, half = _letters("\u0930"), _letters("\u0930")[:2]
    for token in (half, devanagari_ra[2:] + half, "\u0120it", "\u0120is", "\u0120Paris"):
        vocab[token] = len(vocab)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _made(backend)


def byte_fallback() -> Tokenizer:
    """As converted from sentencepiece: one decoded text, its first space taken; bytes as tokens."""
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=_pieces([f"<0x{byte:02X}>" for byte in range(256)]),
            merges=[],
            byte_fallback=True,
        )
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _made(backend)


def metaspace() -> Tokenizer:
    """The other form of sentencepiece, which takes the first space too."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=_pieces([]), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _made(backend)


def word_piece() -> Tokenizer:
    """Spaces between words, none before a piece with ##."""
    words = [*_WORDS, *(f"##{word}" for word in _WORDS)]
    vocab = {word: i for i, word in enumerate(["[UNK]", *words])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    return _made(backend)


def ids(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    """Return the ids of tokens that must be there."""
    found = [tokenizer.token_id(token) for token in tokens]
    assert None not in found, tokens
    return [token_id for token_id in found if token_id is not None]


def _pieces(more: list[str]) -> dict[str, int]:
    spaced = [f"\u2581{word}" for word in _WORDS]
    tokens = ["\u2581", "\u2581\u2581", *_WORDS, *spaced, "\u4f60", *more]
    return {token: i for i, token in enumerate(tokens)}


def _letters(text: str) -> str:
    return "".join(piece for piece, _ in pre_tokenizers.ByteLevel(False).pre_tokenize_str(text))


def _made(backend: tokenizers.Tokenizer) -> Tokenizer:
    backend.add_special_tokens(list(SPECIAL))
    return Tokenizer.from_str(backend.to_str())
