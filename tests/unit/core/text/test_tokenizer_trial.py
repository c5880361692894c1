"""Tokenizer files that hang, exhaust or end their reader: refused, in bounds, as our errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from pd_core.errors import EngineError, InvalidRequest, ModelError
from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_core.text import tokenizer_trial
from pd_core.text.tokenizer import Tokenizer
from pd_core.text.tokenizer_errors import our_errors
from pd_core.text.tokenizer_trial import try_out


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def words(vocab: dict[str, int], unk: str = "[UNK]") -> dict[str, Any]:
    return {"type": "WordLevel", "vocab": vocab, "unk_token": unk}


def content(**parts: Any) -> str:
    keys = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    plain = dict.fromkeys(keys) | {"version": "1.0", "added_tokens": [], "model": words({"a": 0})}
    return json.dumps(plain | parts)


def longer(times: int) -> dict[str, Any]:
    """Make a text a thousand times as long, so often."""
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    return {"type": "Sequence", "normalizers": [step] * times}


TEMPLATE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}
BROKEN = {
    "no tokens": (content(model=words({})), "'a': .*Missing .UNK. token"),
    "unknown words": (content(model=words({"b": 0})), "'a': .*Missing .UNK. token"),
    "no pieces": (content(model={"type": "Unigram", "vocab": [], "unk_id": None}), "unk_id"),
    "panic while read": (
        content(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "not a tokenizer.json: Precompiled",
    ),
    "panic while encoding": (content(post_processor=TEMPLATE), "'a': no entry found for key"),
    "a beginning that is no token": (
        content(
            post_processor=TEMPLATE
            | {
                "single": [*TEMPLATE["single"], {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"X": {"id": "X", "ids": [7], "tokens": ["X"]}},
            }
        ),
        "it puts the id 7 before every text, and has only 1 ids",
    ),
    "panic while decoding": (
        content(decoder={"type": "Strip", "content": "a", "start": 1, "stop": 5}),
        "'a': .*has no text for its tokens: index out of bounds",
    ),
    "broken rule": (
        content(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "("},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "not a tokenizer.json: Oniguruma",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_what_the_library_raises_is_our_error(case: str, tmp_path: Path) -> None:
    broken, message = BROKEN[case]
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_str(broken)
    (tmp_path / "tokenizer.json").write_text(broken)
    with pytest.raises(ModelError, match=rf"tokenizer\.json: .*{message}"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_file_that_ends_its_reader_ends_only_the_child() -> None:
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    with pytest.raises(ModelError, match="too much memory or ends the process that reads it"):
        try_out(content(normalizer=charsmap))


@pytest.mark.slow
def test_a_file_that_takes_for_ever_is_given_up() -> None:
    with pytest.raises(ModelError, match=r"takes more than 0\.5 s to be read"):
        try_out(content(normalizer=longer(5)), within_s=0.5)


@pytest.mark.slow
def test_a_file_that_takes_all_memory_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content(normalizer=longer(5)))
    with pytest.raises(ModelError, match="too much memory or ends the process that reads it"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_file_is_tried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise EngineError("no process can be started")

    try_out(content())
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer_trial, "WalledProcess", none)
        try_out(content())
        try_out((model_directory(DEFAULT_MODEL) / "tokenizer.json").read_text())
        with pytest.raises(ModelError, match="in a process of its own: no process can be"):
            try_out(content() + " ")


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="is larger than 64 MiB, as no such file of a model is"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_text_that_has_no_tokens_is_the_requests_error() -> None:
    tokenizer = Tokenizer.from_str(content())
    with pytest.raises(InvalidRequest, match="has no tokens for the text: WordLevel error"):
        tokenizer.encode("b")


def test_an_interrupt_is_no_error_of_a_tokenizer() -> None:
    with pytest.raises(KeyboardInterrupt), our_errors(ModelError, "no"):
        raise KeyboardInterrupt
