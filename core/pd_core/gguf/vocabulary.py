"""The tokens of a GGUF file, checked: texts, kinds, scores, and which of them begin and end."""

import math
from dataclasses import dataclass
from enum import IntEnum
from reprlib import repr as _short  # a file may hold a token of megabytes

from pd_core.errors import ModelError
from pd_core.gguf.keys import Keys

__all__ = ["TokenKind", "Vocabulary", "read_vocabulary"]

_HERE = "tokenizer.ggml."
_SPECIAL_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# As in llama.cpp: models that are told only one of these stop at the others too.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>")


class TokenKind(IntEnum):
    """What a token is for, by the numbers of the format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A file's tokens.

    Attributes:
        model: "gpt2" (bytes as letters, ranked merges) or "llama" (sentencepiece's BPE).
        split_rule: the name of the rule that cuts a text into words; "default" where none is named.
        tokens: their texts by id.
        kinds: what each is for.
        scores: "llama": the higher, the earlier a token is merged; empty otherwise.
        merges: "gpt2": pairs of texts, the first merged first; empty otherwise.
        special: ids of "bos_token", "eos_token", "unk_token" and "pad_token", as far as defined.
        end_ids: ids that end a sequence, sorted.
        num_ids: how many ids there are with the unused ones at the end, which the lists leave out.
    """

    model: str
    split_rule: str
    tokens: list[str]
    kinds: list[TokenKind]
    scores: list[float]
    merges: list[str]
    special: dict[str, int]
    end_ids: tuple[int, ...]
    num_ids: int


def read_vocabulary(keys: Keys) -> Vocabulary:
    """Read the tokens. Unused ones at the end, which only pad the embedding, are left out.

    Raises:
        ModelError: they are missing or do not fit together.
    """
    model = keys.text(f"{_HERE}model")
    if model not in ("gpt2", "llama"):
        raise ModelError(
            f"its tokenizer is of the kind {_short(model)}, which is not supported; supported are "
            "gpt2 (byte-level BPE) and llama (sentencepiece's BPE)"
        )
    tokens = keys.texts(f"{_HERE}tokens")
    kinds = _kinds(keys, len(tokens))
    _check_texts(tokens)
    special = {name: _id(keys, key, len(tokens)) for name, key in _SPECIAL_KEYS.items()}
    ends = [
        special["eos_token"],
        *(_id(keys, f"{k}_token_id", len(tokens)) for k in ("eot", "eom")),
    ]
    ends += [
        i
        for i, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind is TokenKind.CONTROL and text in _ENDS
    ]
    used = len(tokens)
    while used and kinds[used - 1] is TokenKind.UNUSED:
        used -= 1
    return Vocabulary(
        model=model,
        split_rule=keys.text(f"{_HERE}pre", "default"),
        tokens=tokens[:used],
        kinds=kinds[:used],
        scores=_scores(keys, len(tokens))[:used] if model == "llama" else [],
        merges=keys.texts(f"{_HERE}merges") if model == "gpt2" else [],
        special={name: i for name, i in special.items() if i is not None and i < used},
        end_ids=tuple(sorted({i for i in ends if i is not None and i < used})),
        num_ids=len(tokens),
    )


def _id(keys: Keys, key: str, count: int) -> int | None:
    full = _HERE + key
    if full not in keys:
        return None
    token_id = keys.whole(full)
    if not 0 <= token_id < count:
        raise ModelError(f"the key {full} is {token_id}, and there are only {count} tokens")
    return token_id


def _check_texts(tokens: list[str]) -> None:
    known: dict[str, int] = {}
    for i, text in enumerate(tokens):
        if known.setdefault(text, i) != i:
            raise ModelError(f"the tokens {known[text]} and {i} are both {_short(text)}")


def _kinds(keys: Keys, count: int) -> list[TokenKind]:
    name = f"{_HERE}token_type"
    if name not in keys:
        return [TokenKind.NORMAL] * count
    numbers = keys.numbers(name)
    if len(numbers) != count:
        raise ModelError(f"the key {name} has {len(numbers)} items for {count} tokens")
    try:
        return [TokenKind(int(number)) for number in numbers]
    except (ValueError, OverflowError) as error:  # NaN and infinity are no whole numbers
        raise ModelError(f"the key {name}: {error}") from error


def _scores(keys: Keys, count: int) -> list[float]:
    name = f"{_HERE}scores"
    scores = keys.numbers(name)
    if len(scores) != count:
        raise ModelError(f"the key {name} has {len(scores)} items for {count} tokens")
    if not all(map(math.isfinite, scores)):
        raise ModelError(f"the key {name} has NaN or infinite items")
    return scores
