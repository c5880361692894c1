"""Texts that cannot fit are refused early, and no text that fits is."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pd_core.checkpoints.loading import LoadedModel
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import InvalidRequest, PromptTooLong
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.device.prompt import conversation_token_ids, text_token_ids
from pd_device_client.device.prompt_length import check_length
from tests.api_server import TOKENIZER, loaded_model

WORDS = "The quick brown fox, x = [1, 2]; Übergröße 😀 and naïve text.\n\n"


class Counted(Tokenizer):
    """Counts the characters that were made into tokens."""

    encoded = 0

    def encode(self, text: str) -> list[int]:
        self.encoded += len(text)
        return super().encode(text)


def counted() -> Counted:
    tokenizer = Counted.from_str(random_tiny_tokenizer().to_str())
    tokenizer.encoded = 0
    return tokenizer


@pytest.mark.parametrize(
    "text", [WORDS, "a", " ", "😀", "\n"], ids=["words", "a", "space", "é", "n"]
)
def test_a_far_too_long_text_is_refused_after_a_small_part_of_it(text: str) -> None:
    tokenizer = counted()
    long = text * (4_000_000 // len(text))
    with pytest.raises(PromptTooLong, match=r"characters do not fit a context of 64 tokens"):
        check_length(tokenizer, long, 64)
    assert tokenizer.encoded < len(long) // 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [WORDS, "a", " ", "ab ", "\n"], ids=["words", "a", "space", "ab", "n"]
)
def test_what_fits_is_never_refused(text: str) -> None:
    long = text * (200_000 // len(text))
    num_tokens = len(TOKENIZER.encode(long))
    tokenizer = counted()
    check_length(tokenizer, long, num_tokens)
    check_length(tokenizer, long, num_tokens - 1)  # too long, but only the whole one shows it
    with pytest.raises(PromptTooLong):
        check_length(tokenizer, long, num_tokens // 8)


def test_a_tokenizer_that_makes_one_token_of_a_whole_text_is_no_trap() -> None:
    content: dict[str, Any] = json.loads(random_tiny_tokenizer().to_str())
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "x+"}, "content": "x"}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    text = "x" * 1_000_000
    assert len(tokenizer.encode(text)) == 1
    check_length(tokenizer, text, 8)


def test_short_texts_and_unknown_contexts_cost_nothing() -> None:
    tokenizer = counted()
    check_length(tokenizer, "a " * 1000, 64)
    check_length(tokenizer, "a " * 1_000_000, None)
    assert tokenizer.encoded == 0


def test_a_text_that_is_no_utf_8_is_refused_as_such_wherever_it_is_broken() -> None:
    loaded = loaded_model()
    for text in ("\ud800" + "a" * 500_000, "a " * 50_000 + "\ud800"):
        with pytest.raises(InvalidRequest, match=f"character {text.index(chr(0xD800))}"):
            text_token_ids(loaded, text, max_context_tokens=1 << 20)


@pytest.mark.parametrize("template", [None, "{% for m in messages %}<{{ m.content }}>{% endfor %}"])
def test_chats_are_refused_by_the_length_of_their_text(template: str | None) -> None:
    made = None if template is None else ChatTemplate(template)
    loaded: LoadedModel = replace(loaded_model(made), tokenizer=counted())
    messages = [{"role": "user", "content": WORDS * 1000}] * 20
    with pytest.raises(PromptTooLong):
        conversation_token_ids(loaded, messages, max_context_tokens=4096)
    assert isinstance(loaded.tokenizer, Counted)
    assert loaded.tokenizer.encoded < 200_000
