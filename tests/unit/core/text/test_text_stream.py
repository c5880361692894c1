"""A stream's text against the slow reference: everything decoded, less the prompt."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.text.text_stream import TextStream
from pd_core.text.tokenizer import Tokenizer
from tests.tokenizer_kinds import byte_fallback, byte_level, ids, metaspace, word_piece

KINDS = {
    "byte-level": byte_level(),
    "byte-fallback": byte_fallback(),
    "metaspace": metaspace(),
    "word-piece": word_piece(),
}
SPACED = [KINDS["byte-fallback"], KINDS["metaspace"]]
PIECES = st.lists(st.integers(0, 2**16), max_size=30)

each_kind = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)


def streamed(stream: TextStream, token_ids: Sequence[int]) -> list[tuple[int, str]]:
    out: list[tuple[int, str]] = []
    for token_id in token_ids:
        out += stream.push(token_id)
        if stream.stopped:
            return out
    return out + stream.flush()


def joined(stream: TextStream, token_ids: Sequence[int]) -> str:
    out = streamed(stream, token_ids)
    assert [i for i, _ in out] == list(range(len(out))), "each token once and in order"
    return "".join(text for _, text in out)


def whole_characters(tokenizer: Tokenizer, numbers: Sequence[int]) -> list[int]:
    """Return ids chosen by numbers; bytes come as whole characters of one to four."""
    chosen: list[int] = []
    for number in numbers:
        token_id = number % tokenizer.vocab_size
        token = tokenizer.decode([token_id], skip_special_tokens=False)
        if "\ufffd" in token:
            character = "a\u00e9\u4f61\U0001f642"[number % 4]
            chosen += byte_tokens(tokenizer, character)
        else:
            chosen.append(token_id)
    return chosen


def byte_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    if tokenizer is KINDS["byte-fallback"]:
        return ids(tokenizer, *(f"<0x{byte:02X}>" for byte in text.encode()))
    return tokenizer.encode(text)


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("skip", [True, False])
@given(prompt=PIECES, answer=PIECES)
@settings(max_examples=150, deadline=None)
def test_a_continuation_is_all_text_less_the_prompts(
    tokenizer: Tokenizer, skip: bool, prompt: list[int], answer: list[int]
) -> None:
    before, after = whole_characters(tokenizer, prompt), whole_characters(tokenizer, answer)
    prompts_text = tokenizer.decode(before, skip_special_tokens=skip)
    whole_text = tokenizer.decode(before + after, skip_special_tokens=skip)
    stream = tokenizer.stream(behind=before, skip_special_tokens=skip)
    assert prompts_text + joined(stream, after) == whole_text
    if skip:
        assert prompts_text + tokenizer.continuation(after, before) == whole_text


@each_kind
@given(answer=PIECES)
@settings(max_examples=100, deadline=None)
def test_a_text_of_its_own_is_the_decoded_text(tokenizer: Tokenizer, answer: list[int]) -> None:
    after = whole_characters(tokenizer, answer)
    assert joined(tokenizer.stream(), after) == tokenizer.decode(after)


@pytest.mark.slow
@given(
    prompt=st.lists(st.integers(0, KINDS["byte-level"].vocab_size - 1), max_size=30),
    answer=st.lists(st.integers(0, KINDS["byte-level"].vocab_size - 1), max_size=80),
)
@settings(max_examples=300, deadline=None)
def test_broken_bytes_come_out_as_they_are_decoded(prompt: list[int], answer: list[int]) -> None:
    tokenizer = KINDS["byte-level"]
    before = tokenizer.decode(prompt)
    assume(not before.endswith("\ufffd"))
    whole = tokenizer.decode(prompt + answer)
    assert before + joined(tokenizer.stream(behind=prompt), answer) == whole


@pytest.mark.parametrize("tokenizer", SPACED, ids=["byte-fallback", "metaspace"])
def test_the_first_space_of_a_continuation_stays(tokenizer: Tokenizer) -> None:
    [paris] = ids(tokenizer, "\u2581Paris")
    for tail in (["\u2581it", "\u2581is"], ["\u2581it", "\u2581is", "</s>", "<|im_end|>"]):
        behind = ids(tokenizer, *tail)
        assert tokenizer.stream(behind=behind).push(paris) == [(0, " Paris")]
        assert tokenizer.continuation([paris], behind) == " Paris"
    assert tokenizer.stream().push(paris) == [(0, "Paris")]
    assert tokenizer.stream(behind=ids(tokenizer, "<s>")).push(paris) == [(0, "Paris")]


def test_a_character_begun_in_the_prompt_is_completed() -> None:
    for name in ("byte-level", "byte-fallback"):
        tokenizer = KINDS[name]
        tokens = byte_tokens(tokenizer, "\U0001f642")
        behind = [*ids(tokenizer, "a"), *tokens[:2]]
        assert joined(tokenizer.stream(behind=behind), tokens[2:]) == "\U0001f642"


def test_characters_that_overlap_tokens_come_one_token_late() -> None:
    """No token of such a text ends on a whole character, so waiting for one would never end."""
    tokenizer = KINDS["byte-level"]
    vocabulary = tokenizer.vocab_size - 3  # the special tokens come last
    half, joint = vocabulary - 5, vocabulary - 4
    stream = tokenizer.stream()
    assert stream.push(half) == []
    assert stream.push(joint) == [(0, "")]
    for i in range(1, 200):
        assert stream.push(joint) == [(i, "\u0930")]
    assert joined(tokenizer.stream(), [half, joint, joint]) == "\u0930\u0930\ufffd"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("byte-level", ["\u00ff"]),  # the letter of byte 0xff
        ("byte-fallback", ["<0xFF>"]),
        ("byte-fallback", ["<0xE4>", "</s>"]),
        ("byte-fallback", ["<0xE4>", *["</s>"] * 50]),
    ],
)
@pytest.mark.parametrize("stops", [[], ["ab"]])
def test_what_never_becomes_a_character_is_held_and_decoded_a_bounded_time(
    name: str, tokens: list[str], stops: list[str]
) -> None:
    tokenizer = KINDS[name]
    decoded: list[int] = []

    def decode(token_ids: Sequence[int]) -> str:
        decoded.append(len(token_ids))
        return tokenizer.decode(token_ids)

    stream = TextStream(decode, stops, hidden=tokenizer.special_tokens)
    pushed, released = 0, 0
    for _ in range(2000 // len(tokens)):
        for token_id in ids(tokenizer, *tokens):
            pushed += 1
            released += len(stream.push(token_id))
            assert pushed - released <= 20
    assert max(decoded) <= 40
    released += len(stream.flush())
    assert released == pushed


@pytest.mark.parametrize(("name", "token"), [("byte-level", "\u00ff"), ("byte-fallback", "<0xFF>")])
def test_broken_bytes_do_not_wait_longer_than_a_character(name: str, token: str) -> None:
    tokenizer = KINDS[name]
    [broken] = ids(tokenizer, token)
    stream, out = tokenizer.stream(), list[tuple[int, str]]()
    for pushed in range(1, 20):
        out += stream.push(broken)
        assert pushed - len(out) <= 4
    assert "".join(text for _, text in out + stream.flush()) == "\ufffd" * 19


def test_a_possible_stop_string_does_not_hold_textless_tokens_for_ever() -> None:
    tokenizer = KINDS["metaspace"]
    a, end, b = ids(tokenizer, "a", "</s>", "b")
    stream = tokenizer.stream(["ab"])
    released = stream.push(a)
    for _ in range(100):
        released += stream.push(end)
    assert len(released) > 80
    assert joined(tokenizer.stream(["ab"]), [a, end, b]) == ""


@each_kind
@pytest.mark.parametrize("skip", [True, False])
def test_a_stop_string_may_be_a_special_token(tokenizer: Tokenizer, skip: bool) -> None:
    [end, other] = ids(tokenizer, "<|im_end|>", "</s>")
    [word] = ids(tokenizer, "a")
    stream = tokenizer.stream(["<|im_end|>"], skip_special_tokens=skip)
    out = stream.push(word) + stream.push(other) + stream.push(end)
    assert stream.stopped
    assert [i for i, _ in out] == [0, 1, 2]
    text = tokenizer.decode([word, other], skip_special_tokens=skip)
    # A decoder may write a space before the next token, though not at the end of all.
    assert "".join(text for _, text in out).rstrip() == text


def both_views(stops: Sequence[str], tokens: Sequence[str]) -> tuple[bool, str]:
    tokenizer = KINDS["metaspace"]
    stream = tokenizer.stream(stops)
    text = joined(stream, ids(tokenizer, *tokens))
    return stream.stopped, text


@pytest.mark.parametrize(
    ("stops", "tokens", "expected"),
    [
        (["a<|im_end|>"], ["b", "a", "<|im_end|>"], (True, "b")),
        (["a<|im_end|>"], ["b", "a", "</s>", "<|im_end|>"], (False, "ba")),
        (["</s><|im_end|>"], ["b", "</s>", "</s>", "<|im_end|>"], (True, "b")),
        (["<|im_end|>b"], ["a", "<|im_end|>", "b"], (True, "a")),
        (["<|im_end|>b"], ["a", "<|im_end|>", "a"], (False, "aa")),
        (["ab"], ["b", "a", "</s>", "b"], (True, "b")),
        (["ab", "</s>b"], ["b", "a", "</s>", "b"], (True, "b")),
        (["</s>", "ab"], ["b", "a", "</s>", "b"], (True, "ba")),
        (["im_end"], ["a", "<|im_end|>"], (False, "a")),
    ],
)
def test_stop_strings_are_found_with_and_without_hidden_tokens(
    stops: list[str], tokens: list[str], expected: tuple[bool, str]
) -> None:
    assert both_views(stops, tokens) == expected


@pytest.mark.parametrize(
    ("stops", "found"),
    [(["zz", "lo w", "o wo"], "lo w"), (["o", "llo"], "llo"), (["zz"], None), ([], None)],
)
def test_the_stop_string_that_ended_a_text_is_told(stops: list[str], found: str | None) -> None:
    tokenizer = random_tiny_tokenizer()
    stream = tokenizer.stream(stops)
    for token_id in tokenizer.encode("hello world"):
        if not stream.stopped:
            stream.push(token_id)
    assert stream.stop_string == found


def test_half_a_character_before_a_special_stop_string_is_shown_as_broken() -> None:
    tokenizer = KINDS["byte-fallback"]
    stream = tokenizer.stream(["<|im_end|>"])
    out = [p for i in ids(tokenizer, "a", "<0xE4>", "<|im_end|>") for p in stream.push(i)]
    assert stream.stopped
    assert out == [(0, "a"), (1, "\ufffd"), (2, "")]


def test_a_space_byte_that_a_decoder_takes_breaks_no_character_behind_it() -> None:
    tokenizer = KINDS["byte-fallback"]
    tokens = ids(tokenizer, "<0x20>") + byte_tokens(tokenizer, "\U0001f642")
    assert joined(tokenizer.stream(), tokens) == tokenizer.decode(tokens) == "\U0001f642"


def test_special_tokens_within_a_character_do_not_break_it() -> None:
    tokenizer = KINDS["byte-fallback"]
    tokens = ids(tokenizer, "<0xE4>", "</s>", "<0xBD>", "<0xA0>", "<s>")
    assert streamed(tokenizer.stream(), tokens) == [
        (0, ""), (1, ""), (2, ""), (3, "\u4f60"), (4, "")
    ]  # fmt: skip


@each_kind
def test_special_tokens_are_shown_on_demand(tokenizer: Tokenizer) -> None:
    tokens = ids(tokenizer, "a", "<|im_end|>", "b", "</s>")
    out = joined(tokenizer.stream(skip_special_tokens=False), tokens)
    assert out == tokenizer.decode(tokens, skip_special_tokens=False)
    assert "<|im_end|>" in out
    assert "<|im_end|>" not in tokenizer.decode(tokens)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@pytest.mark.parametrize("stop", ["\u0928\u092e\u0938" * 6, "\u1010\u101a\u103a" * 9])
def test_a_stop_string_may_come_byte_by_byte(name: str, stop: str) -> None:
    """Many scripts have three bytes a character, and tokenizers a token for each."""
    tokenizer = KINDS[name]
    tokens = byte_tokens(tokenizer, "a" + stop)
    assert len(tokens) > 2 * len(stop)
    stream = tokenizer.stream([stop])
    assert joined(stream, tokens + ids(tokenizer, "b")) == "a"
    assert stream.stopped


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@pytest.mark.parametrize("cut", [1, 2])
def test_characters_after_one_begun_in_the_prompt_stay_whole(name: str, cut: int) -> None:
    tokenizer = KINDS[name]
    text = "\ud55c\uad6d\U0001f642" * 9
    tokens = byte_tokens(tokenizer, text)
    behind = ids(tokenizer, "a") + tokens[:cut]
    assert joined(tokenizer.stream(behind=behind), tokens[cut:]) == text


def decoder_of(texts: dict[int, str]) -> Callable[[Sequence[int]], str]:
    return lambda token_ids: "".join(texts[i] for i in token_ids)


def test_a_long_stop_string_may_span_many_tokens() -> None:
    stream = TextStream(decoder_of({0: "x", 1: "y"}), ["x" * 300 + "y"])
    out = [piece for token_id in [0] * 301 + [1] for piece in stream.push(token_id)]
    assert stream.stopped
    assert "".join(text for _, text in out) == "x"
