"""A text service's words as this device's tokens: the same text, whatever the pieces."""

import itertools
import string

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ProtocolError
from pd_core.generation import Fingerprints, ModelCard
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.cloud.openai.chunk import Chunk
from pd_device_client.cloud.openai.device_model import DeviceModel
from pd_device_client.cloud.openai.text_tokens import TextTokens

BYTES = random_tiny_tokenizer()


def model(tokenizer: Tokenizer) -> DeviceModel:
    card = ModelCard("tiny", "torch", Fingerprints(), tokenizer.vocab_size, (), 512)
    return DeviceModel(card, tokenizer)


def metaspace() -> Tokenizer:
    """As sentencepiece: a space before each text, which the decoder takes away again."""
    pieces = ["\u2581", *string.ascii_letters, ".", ",", "\n", "\u2581i", "\u2581it", "th", "the"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("\u2581", "i"), ("\u2581i", "t"), ("t", "h"), ("th", "e")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return Tokenizer.from_str(backend.to_str())


def tokens(tokenizer: Tokenizer, pieces: list[str], behind: list[int] | None = None) -> list[int]:
    reader = TextTokens(model(tokenizer), behind or [])
    return [i for piece in pieces for i in reader.take(Chunk(piece))] + list(reader.end())


@settings(deadline=None, max_examples=60)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_the_text_is_kept_whatever_it_is_and_however_it_is_cut(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    made = tokens(BYTES, pieces)
    assert BYTES.decode(made, skip_special_tokens=False) == text


def test_words_have_the_tokens_of_the_whole_text() -> None:
    text = "It grants the reader\n\n  the right to copy, and more."
    for size in (1, 2, 3, 7, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert tokens(BYTES, pieces) == BYTES.encode(text)


def test_the_names_of_special_tokens_are_plain_words() -> None:
    made = tokens(BYTES, ["a <eos> b<eo", "s><bos>"])
    assert not set(made) & BYTES.special_tokens.keys()
    assert BYTES.decode(made) == "a <eos> b<eos><bos>"


def test_tokens_come_as_soon_as_they_are_sure() -> None:
    reader = TextTokens(model(BYTES), [])
    assert reader.take(Chunk("Hel")) == ()
    assert reader.take(Chunk("lo")) == ()
    assert BYTES.decode(reader.take(Chunk(" the"))) == "Hello"
    held = "x" * 100  # no word is that long: it is not waited for
    assert reader.take(Chunk(held)) != ()


@pytest.mark.parametrize(
    ("behind", "text"),
    [
        ("", "it is the end."),
        ("", " it is"),  # the space is taken away, as in an answer of this device
        ("it", " is the end."),
        ("the beg", "inning of it"),
        ("it", "s the"),
    ],
)
def test_a_tokenizer_that_adds_a_space_does_not_add_one_inside_a_word(
    behind: str, text: str
) -> None:
    tokenizer = metaspace()
    before = tokenizer.encode(behind) if behind else []
    for size in (1, 3, 50):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        made = tokens(tokenizer, pieces, before)
        assert tokenizer.decode([*before, *made]) == (behind + text).lstrip()


def test_text_that_the_tokenizer_cannot_write_is_refused() -> None:
    with pytest.raises(ProtocolError, match="cannot write"):
        tokens(metaspace(), ["it is 5 \u20ac"])
