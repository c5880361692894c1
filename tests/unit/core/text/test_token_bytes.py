"""Each token's bytes: together they are the text, whatever kind of tokenizer it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.text.tokenizer import Tokenizer
from tests.tokenizer_kinds import byte_fallback, byte_level, ids, metaspace, word_piece

BYTE_LEVEL, BYTE_FALLBACK, METASPACE = byte_level(), byte_fallback(), metaspace()


def joined(tokenizer: Tokenizer, token_ids: list[int]) -> bytes:
    known = tokenizer.token_bytes()
    return b"".join(known.of(token_id) for token_id in token_ids)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_the_bytes_of_all_tokens_are_the_texts(text: str) -> None:
    assert joined(BYTE_LEVEL, BYTE_LEVEL.encode(text)) == text.encode()


@given(st.lists(st.integers(0, BYTE_FALLBACK.vocab_size - 1), max_size=12))
@settings(max_examples=200, deadline=None)
def test_with_bytes_as_tokens_they_are_what_the_decoder_writes(token_ids: list[int]) -> None:
    text = BYTE_FALLBACK.decode(token_ids, skip_special_tokens=False)
    if "\ufffd" in text:  # the decoder writes a whole run of bytes as broken
        return
    # It takes one space from the beginning.
    assert joined(BYTE_FALLBACK, token_ids) in (text.encode(), b" " + text.encode())


def test_half_a_character_is_its_bytes() -> None:
    letters = BYTE_LEVEL.encode("\U0001f600")
    assert len(letters) == 4
    known = BYTE_LEVEL.token_bytes()
    assert [known.of(token_id) for token_id in letters] == [b"\xf0", b"\x9f", b"\x98", b"\x80"]
    (byte,) = ids(BYTE_FALLBACK, "<0xF0>")
    assert BYTE_FALLBACK.token_bytes().of(byte) == b"\xf0"


@pytest.mark.parametrize(
    ("tokenizer", "token", "expected"),
    [
        (BYTE_LEVEL, "\u0120Paris", b" Paris"),
        (BYTE_LEVEL, "<|im_end|>", b"<|im_end|>"),
        (BYTE_FALLBACK, "\u2581it", b" it"),
        (METASPACE, "\u2581it", b" it"),
        (METASPACE, "\u4f60", "\u4f60".encode()),
        (word_piece(), "##is", b"is"),
        (word_piece(), "is", b" is"),
    ],
)
def test_one_token(tokenizer: Tokenizer, token: str, expected: bytes) -> None:
    assert tokenizer.token_bytes().of(*ids(tokenizer, token)) == expected


def test_no_token_has_no_bytes() -> None:
    assert BYTE_LEVEL.token_bytes().of(10**6) == b""
