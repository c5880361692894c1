"""A GGUF file's tokenizer gives the ids of the tokenizer that the file was made from."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from pd_core.errors import ModelError
from pd_core.gguf.keys import Keys
from pd_core.gguf.merges import scored_merges
from pd_core.gguf.split_rules import split_rule
from pd_core.gguf.tokenizer_json import tokenizer_json
from pd_core.gguf.vocabulary import read_vocabulary
from pd_core.text.tokenizer import Tokenizer

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEXTS = [
    "Hello world, it's we're I'LL don't",
    "  two  spaces\n\n\n\ttab \r\n end ",
    "def f(x):\n    return x**2  # 1234567 and 89\n",
    "2024-11-30, \u0661\u0662\u0663 \u00b2 \u00bd \u2167",
    "na\u00efve cafe\u0301 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u05e2\u05d1",
    "\U0001f642\u200d\U0001f467 family",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>",
    "a<|endoftext|>b \u00a0\u3000\u200b $x^2$ http://a.b/c?d=e&f#g",
    " ",
    "",
]
_WORDS = st.text(st.sampled_from("ab 1\u00b2\n\t'sdLe\u0301\u00e9.,<|>_/\u4e2d"), max_size=40)


def made(keys: Mapping[str, Any]) -> Tokenizer:
    named = Keys({f"tokenizer.ggml.{name}": value for name, value in keys.items()})
    return Tokenizer.from_str(tokenizer_json(read_vocabulary(named), named))


def _corpus() -> list[str]:
    folder = Path(__file__).parents[4] / "docs"
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md"))[:12]]


def _split(name: str) -> pre_tokenizers.PreTokenizer:
    pattern = tokenizers.Regex(GGUF_PRE_TOKENIZER_SPLITS[name])
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), letters])


def _original(rule: str) -> tokenizers.Tokenizer:
    """A tokenizer trained here, built as the models' own tokenizer.json are."""
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=rule in ("llama-bpe", "tekken")))
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    elif rule == "gpt-2":
        backend.pre_tokenizer = letters
    else:
        backend.pre_tokenizer = _split(rule)
    if rule == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer)
    return backend


_RULES = ("smollm", "gpt-2", "llama-bpe", "qwen2", "tekken")


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Tokenizer, tokenizers.Tokenizer]]:
    found = {}
    for rule in _RULES:
        original = _original(rule)
        vocab = original.get_vocab()
        tokens = sorted(vocab, key=vocab.__getitem__)
        merges = json.loads(original.to_str())["model"]["merges"]
        ours = made(
            {
                "model": "gpt2",
                "pre": rule,
                "tokens": tokens,
                "token_type": [3 if token in _SPECIAL else 1 for token in tokens],
                "merges": [" ".join(pair) for pair in merges],
                "bos_token_id": 1,
                "eos_token_id": 2,
            }
        )
        found[rule] = ours, original
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", _RULES)
@settings(max_examples=80, deadline=None)
@given(drawn=_WORDS)
def test_ids_are_the_original_s(
    rule: str, drawn: str, pairs: dict[str, tuple[Tokenizer, tokenizers.Tokenizer]]
) -> None:
    ours, original = pairs[rule]
    for text in [drawn, *_TEXTS]:
        ids = ours.encode(text)
        assert ids == original.encode(text, add_special_tokens=False).ids, text
        if rule != "qwen2":  # which composes letters
            assert ours.decode(ids, skip_special_tokens=False) == text


def test_rules_that_cut_digits_differ(
    pairs: dict[str, tuple[Tokenizer, tokenizers.Tokenizer]],
) -> None:
    lengths = {rule: len(pairs[rule][0].encode("8192 16384 65536")) for rule in _RULES}
    assert lengths["smollm"] == 16
    assert lengths["gpt-2"] < lengths["smollm"]


@pytest.mark.parametrize("name", sorted({"llama-bpe", "tekken", "qwen2", "dbrx", "megrez"}))
def test_patterns_are_those_of_transformers(name: str) -> None:
    assert split_rule(name).patterns == (GGUF_PRE_TOKENIZER_SPLITS[name],)


_PIECES: list[tuple[str, float, int]] = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
    *((piece, -float(rank), 1) for rank, piece in enumerate(("ab", "\u2581a", "bb", "abb", "ba"))),
    *((letter, -100.0 - i, 1) for i, letter in enumerate("\u2581ab1")),
    ("<tool>", -1000.0, 4),
]


def _sentencepiece_keys(**changes: Any) -> dict[str, Any]:
    return {
        "model": "llama",
        "tokens": [piece for piece, _, _ in _PIECES],
        "scores": [score for _, score, _ in _PIECES],
        "token_type": [kind for _, _, kind in _PIECES],
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }


def _plain_sentencepiece(text: str) -> list[int]:
    """Merge the best-scored neighbours, the leftmost first, until none is a piece."""
    ids = {piece: i for i, (piece, _, _) in enumerate(_PIECES)}
    parts = list("\u2581" + text.replace(" ", "\u2581"))
    while True:
        scored = [
            (-_PIECES[ids[left + right]][1], at)
            for at, (left, right) in enumerate(pairwise(parts))
            if left + right in ids
        ]
        if not scored:
            break
        _, at = min(scored)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    found = []
    for part in parts:
        found += [ids[part]] if part in ids else [3 + byte for byte in part.encode()]
    return found


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("aabb 1\u00e9"), min_size=1, max_size=24))
def test_sentencepiece_ids_are_those_of_its_plain_definition(text: str) -> None:
    tokenizer = made(_sentencepiece_keys())
    ids = tokenizer.encode(text)
    assert ids == _plain_sentencepiece(text)
    assert tokenizer.decode(ids) == text


def test_sentencepiece_has_its_beginning_its_tools_and_its_spaces() -> None:
    tokenizer = made(_sentencepiece_keys())
    assert tokenizer.prefix_ids == (1,)
    assert made(_sentencepiece_keys(add_bos_token=False)).prefix_ids == ()
    tool = len(_PIECES) - 1
    assert tool in tokenizer.encode("a<tool>b")
    assert tokenizer.decode(tokenizer.encode("a</s>"), skip_special_tokens=True) == "a"
    bare = made(_sentencepiece_keys(add_space_prefix=False))
    assert bare.encode("ab") == tokenizer.encode("ab")[-1:]


def test_byte_level_beginnings_are_what_the_file_or_its_rule_says() -> None:
    keys: dict[str, Any] = {"model": "gpt2", "tokens": ["<b>", "a"], "token_type": [3, 1]}
    keys |= {"merges": [], "bos_token_id": 0}
    assert made({**keys, "pre": "llama-bpe"}).prefix_ids == (0,)
    assert made({**keys, "pre": "llama-bpe", "add_bos_token": False}).prefix_ids == ()
    assert made({**keys, "pre": "gpt-2"}).prefix_ids == ()
    assert made({**keys, "pre": "gpt-2", "add_bos_token": True}).prefix_ids == (0,)


def test_unused_tokens_at_the_end_have_no_ids_and_ends_are_found() -> None:
    keys = Keys(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": ["a", "<|im_end|>", "<|endoftext|>", "[PAD3]", "[PAD4]"],
            "tokenizer.ggml.token_type": [1, 3, 3, 5, 5],
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 4,
        }
    )
    vocabulary = read_vocabulary(keys)
    assert (len(vocabulary.tokens), vocabulary.num_ids) == (3, 5)
    assert vocabulary.end_ids == (1, 2)
    assert vocabulary.special == {"eos_token": 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "bert"}, "of the kind 'bert'.*supported are gpt2"),
        ({"model": 3}, "model is 3; it must be text"),
        ({"tokens": [1, 2]}, "tokens is .* must be a list of texts"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "tokens 0 and 2 are both 'a'"),
        ({"token_type": [1]}, "token_type has 1 items for 2 tokens"),
        ({"token_type": [1, 9]}, "token_type: 9 is not a valid TokenKind"),
        ({"eos_token_id": 7}, "eos_token_id is 7, and there are only 2 tokens"),
        ({"eos_token_id": "a"}, "eos_token_id is 'a'; it must be a whole number"),
        ({"pre": "jais-3"}, "rule 'jais-3', which is not known; known are default"),
        ({"merges": ["ab"]}, "merge 0 is 'ab'"),
        ({"merges": ["a b c"]}, "merge 0 is 'a b c'"),
        ({"merges": ["a z"]}, "not a tokenizer.json"),
        ({"model": "llama"}, "the key tokenizer.ggml.scores is missing"),
        ({"model": "llama", "scores": [0.0]}, "scores has 1 items for 2 tokens"),
        ({"model": "llama", "scores": [0.0, float("nan")]}, "NaN or infinite"),
        (
            {"model": "llama", "scores": [0.0, 1.0], "precompiled_charsmap": [1]},
            "precompiled_charsmap",
        ),
        ({"add_bos_token": 1}, "add_bos_token is 1; it must be true or false"),
    ],
)
def test_a_broken_vocabulary_is_refused(changes: dict[str, Any], said: str) -> None:
    keys = {"model": "gpt2", "tokens": ["a", "b"], "token_type": [1, 1], "merges": []}
    with pytest.raises(ModelError, match=said):
        made({**keys, **changes})


def test_tokens_that_would_take_long_to_compare_are_refused() -> None:
    with pytest.raises(ModelError, match="the longest 600"):
        scored_merges(["a" * 600], [0.0])
    with pytest.raises(ModelError, match="have 9437184 letters"):
        scored_merges([f"{i:0512d}" for i in range(18432)], [0.0] * 18432)
