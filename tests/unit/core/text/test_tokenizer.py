"""Text to ids and back, and the stream that holds back what is not final."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import InvalidRequest, ModelError
from pd_core.text.tokenizer import TextStream, Tokenizer

TOKENIZER = random_tiny_tokenizer()
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40)
LIVELY = st.text(alphabet="ab \u00e9\u4f60\U0001f642\n", max_size=30)


def pieces(stream: TextStream, ids: list[int]) -> list[tuple[int, str]]:
    out: list[tuple[int, str]] = []
    for token_id in ids:
        out += stream.push(token_id)
        if stream.stopped:
            return out
    return out + stream.flush()


@pytest.mark.slow
@given(st.text(max_size=60))
@settings(deadline=None)
def test_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(IDS)
@settings(max_examples=200, deadline=None)
def test_streamed_text_is_the_decoded_text(ids: list[int]) -> None:
    out = pieces(TOKENIZER.stream(), ids)
    assert [i for i, _ in out] == list(range(len(ids))), "each token once and in order"
    assert "".join(t for _, t in out) == TOKENIZER.decode(ids)


@given(LIVELY)
@settings(deadline=None)
def test_no_half_character_is_shown(text: str) -> None:
    stream = TOKENIZER.stream()
    shown = ""
    for token_id in TOKENIZER.encode(text):
        shown += "".join(t for _, t in stream.push(token_id))
        assert text.startswith(shown)


@pytest.mark.slow
@given(LIVELY, st.lists(st.text(alphabet="ab \u00e9", min_size=1, max_size=4), max_size=3))
@settings(max_examples=300, deadline=None)
def test_text_is_cut_exactly_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    ids = TOKENIZER.encode(text)
    stream = TOKENIZER.stream(stops)
    out = pieces(stream, ids)
    found = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stream.stopped == bool(found)
    assert "".join(t for _, t in out) == (text[: min(found)[1]] if found else text)
    assert [i for i, _ in out] == list(range(len(out)))


def test_a_possible_stop_string_is_held_back_and_released() -> None:
    a, b, c = (TOKENIZER.encode(x)[0] for x in "abc")
    stream = TOKENIZER.stream(["abb"])
    assert stream.push(c) == [(0, "c")]
    assert stream.push(a) == []
    assert stream.push(b) == []
    assert stream.push(c) == [(1, "a"), (2, "b"), (3, "c")]
    assert stream.push(a) == []
    assert stream.flush() == [(4, "a")]
    stream = TOKENIZER.stream(["abb"])
    assert [stream.push(t) for t in (a, b)] == [[], []]
    assert stream.push(b) == [(0, ""), (1, ""), (2, "")]
    assert stream.stopped


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    ids = TOKENIZER.encode("\U0001f642")
    assert len(ids) == 4
    stream = TOKENIZER.stream()
    assert [stream.push(t) for t in ids[:3]] == [[], [], []]
    assert stream.push(ids[3]) == [(0, ""), (1, ""), (2, ""), (3, "\U0001f642")]
    stream = TOKENIZER.stream()
    stream.push(ids[0])
    assert stream.flush() == [(0, "\ufffd")]


def test_special_tokens_have_no_text() -> None:
    eos = TOKENIZER.token_id("<eos>")
    assert eos is not None
    assert TOKENIZER.stream().push(eos) == [(0, "")]
    assert TOKENIZER.token_id("no such token") is None


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="stop string is empty"):
        TOKENIZER.stream([""])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 3}'])
def test_a_broken_file_is_refused_by_its_name(content: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^not a tokenizer\.json: "):
        Tokenizer.from_str(content)
    (tmp_path / "given.txt").write_text(content)
    with pytest.raises(ModelError, match=r"given\.txt: not a tokenizer\.json: "):
        Tokenizer.from_file(tmp_path / "given.txt")


def test_the_digest_is_of_the_content() -> None:
    content = TOKENIZER.to_str()
    assert Tokenizer.from_str(content).digest == TOKENIZER.digest
    assert Tokenizer.from_str(content + " ").digest != TOKENIZER.digest
    assert TOKENIZER.vocab_size == 1024


def test_half_a_surrogate_pair_is_a_typed_error() -> None:
    with pytest.raises(InvalidRequest, match=r"not valid UTF-8 \(character 3\)"):
        TOKENIZER.encode("caf\udce9")
