"""A refined prompt keeps the template's tokens and the system's text, of every common template."""

from collections.abc import Sequence

import pytest

from pd_core.text.protected import protected_ranges

LONG = [f"w{i}" for i in range(40)]


class Words:
    """A tokenizer whose tokens are words; those in angle brackets are special."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.special_tokens = {i: w for i, w in enumerate(self.words) if w.startswith("<")}

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[i] for i in token_ids)


def kept(words: Sequence[str]) -> list[str]:
    """The words that are protected, `...` for each gap."""
    ranges = protected_ranges(Words(words), range(len(words)))
    found, end = list[str](), 0
    for first, stop in ranges:
        found += ["..."] * (first > end) + list(words[first:stop])
        end = stop
    return found + ["..."] * (end < len(words))


CHATML = [
    *("<start>", "system", "\n", *LONG, "<end>", "\n"),
    *("<start>", "user", "\n", *LONG, "<end>", "\n", "<start>", "assistant", "\n"),
]
LLAMA3 = [
    *("<bos>", "<head>", "system", "</head>", "\n", *LONG, "<eot>"),
    *("<head>", "user", "</head>", "\n", *LONG, "<eot>", "<head>", "assistant", "</head>", "\n"),
]
PHI = ["<|system|>", "\n", *LONG, "<|end|>", "<|user|>", "\n", *LONG, "<|end|>", "<|assistant|>"]
MISTRAL = ["<s>", "[INST]", *LONG, "[/INST]"]


@pytest.mark.parametrize("words", [CHATML, LLAMA3, PHI], ids=["chatml", "llama3", "phi"])
def test_all_but_the_users_text_is_kept(words: list[str]) -> None:
    user = words.index("user") + 2 if "user" in words else words.index("<|user|>") + 2
    text = words.index("w0", user)
    last = words.index("w39", text)
    ranges = protected_ranges(Words(words), range(len(words)))
    free = set(range(len(words))) - {i for first, end in ranges for i in range(first, end)}
    assert free
    assert min(free) - text <= 4
    assert max(free) == last
    assert len(free) == last - min(free) + 1


def test_a_prompt_without_special_tokens_protects_nothing() -> None:
    assert kept(LONG) == ["..."]
    assert protected_ranges(Words([]), []) == ()


def test_a_first_special_token_and_what_follows_it_are_kept() -> None:
    assert kept(MISTRAL) == ["<s>", "[INST]", "w0", "w1", "w2", "..."]


def test_a_user_who_speaks_of_a_system_later_is_not_protected() -> None:
    words = ["<start>", "user", "\n", *LONG, "system", *LONG, "<end>"]
    assert kept(words) == ["<start>", "user", "\n", "w0", "w1", "...", "<end>"]
