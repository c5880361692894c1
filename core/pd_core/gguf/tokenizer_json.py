"""A GGUF file's tokenizer as the content of a tokenizer.json, with the original's ids.

The content is made here and not by the `tokenizers` library, so that its digest is the same under
every version of it.
"""

import json
from typing import Any

from pd_core.errors import ModelError
from pd_core.gguf.keys import Keys
from pd_core.gguf.merges import listed_merges, scored_merges
from pd_core.gguf.split_rules import split_rule
from pd_core.gguf.vocabulary import TokenKind, Vocabulary

__all__ = ["tokenizer_json"]

_ADDED = (TokenKind.CONTROL, TokenKind.USER_DEFINED)
_SPACE = "\u2581"  # sentencepiece's sign for one


def tokenizer_json(vocabulary: Vocabulary, keys: Keys) -> str:
    """Return the content of a tokenizer.json.

    Args:
        vocabulary: the file's tokens.
        keys: the header's, for what is put before a text.

    Raises:
        ModelError: the tokenizer is of a kind that is not supported.
    """
    parts = _sentencepiece(vocabulary, keys) if vocabulary.model == "llama" else _bytes(vocabulary)
    adds_bos = vocabulary.model == "llama" or split_rule(vocabulary.split_rule).adds_bos
    bos = vocabulary.special.get("bos_token")
    if not keys.flag("tokenizer.ggml.add_bos_token", adds_bos):
        bos = None
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocabulary, i) for i in _added_ids(vocabulary)],
        **parts,
        "post_processor": None if bos is None else _begins_with(vocabulary.tokens[bos], bos),
    }
    return json.dumps(content, ensure_ascii=False)


def _bytes(vocabulary: Vocabulary) -> dict[str, Any]:
    rule = split_rule(vocabulary.split_rule)
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in rule.patterns
    ]
    letters = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": {"type": "NFC"} if rule.composed else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*splits, {"type": "ByteLevel", **letters}],
        },
        "decoder": {"type": "ByteLevel", **letters},
        "model": _bpe(vocabulary, listed_merges(vocabulary.merges), ignore_merges=rule.whole_words),
    }


def _sentencepiece(vocabulary: Vocabulary, keys: Keys) -> dict[str, Any]:
    if "tokenizer.ggml.precompiled_charsmap" in keys:
        raise ModelError(
            "its tokenizer rewrites texts by a table (precompiled_charsmap), which is not "
            "supported; use the Hugging Face directory that the file was made from"
        )
    begins_with_space = keys.flag("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = {"type": "Prepend", "prepend": _SPACE}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if begins_with_space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = _unknown(vocabulary)
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [prepend, spaces] if begins_with_space else [spaces],
        },
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(
            vocabulary,
            scored_merges(vocabulary.tokens, vocabulary.scores),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _bpe(vocabulary: Vocabulary, merges: list[tuple[str, str]], **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": {text: i for i, text in enumerate(vocabulary.tokens)},
        "merges": merges,
    }


def _unknown(vocabulary: Vocabulary) -> int | None:
    """Return the id of the token for what no token can say."""
    if (named := vocabulary.special.get("unk_token")) is not None:
        return named
    return next((i for i, k in enumerate(vocabulary.kinds) if k is TokenKind.UNKNOWN), None)


def _added_ids(vocabulary: Vocabulary) -> list[int]:
    """Return the ids of tokens that are found in a text before it is cut into words."""
    ids = {i for i, kind in enumerate(vocabulary.kinds) if kind in _ADDED}
    if vocabulary.model == "llama" and (unknown := _unknown(vocabulary)) is not None:
        ids.add(unknown)
    return sorted(i for i in ids if vocabulary.tokens[i])


def _added(vocabulary: Vocabulary, token_id: int) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": vocabulary.tokens[token_id],
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": vocabulary.kinds[token_id] is not TokenKind.USER_DEFINED,
    }


def _begins_with(text: str, token_id: int) -> dict[str, Any]:
    begin = {"SpecialToken": {"id": text, "type_id": 0}}
    first, second = (
        {"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")
    )
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {text: {"id": text, "ids": [token_id], "tokens": [text]}},
    }
