"""Special tokens that a model names itself, and those without a name, as in transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.text.token_rules import TokenRules
from pd_core.text.tokenizer import Tokenizer

IMAGE, WORD, END = "<image>", "def", "<|call|>"
TEXT = f"a {IMAGE}{WORD}inition {END}"
SPACED = f"a  {WORD}  b {WORD}x  {IMAGE}  {WORD}"
TEMPLATE = (
    "{{ image_token }}|{{ call_token }}|{{ vision }}|{{ eos_token }}|"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)


def directory(path: Path, settings: dict[str, Any], older: dict[str, Any] | None = None) -> Path:
    """A tokenizer that knows three more tokens, none of them special, and settings beside it."""
    content: dict[str, Any] = json.loads(random_tiny_tokenizer().to_str())
    assert WORD in content["model"]["vocab"]
    first = max(content["model"]["vocab"].values()) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, text in enumerate((IMAGE, END)):
        content["added_tokens"].append(
            {"id": first + i, "content": text, "special": False, **flags}
        )
    (path / "tokenizer.json").write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **settings}
    (path / "tokenizer_config.json").write_text(json.dumps(named))
    if older is not None:
        (path / "special_tokens_map.json").write_text(json.dumps(older))
    return path


ADDED = {"__type": "AddedToken", "content": END, "lstrip": False, "rstrip": False,
         "normalized": False, "single_word": False, "special": True}  # fmt: skip
RULES = {"lstrip": True, "rstrip": True, "single_word": True, "normalized": False, "special": True}
BY_ITSELF = {"__type": "AddedToken", "content": WORD, **RULES}
WORD_ID = str(json.loads(random_tiny_tokenizer().to_str())["model"]["vocab"][WORD])
LOOSE = {"content": WORD, **RULES, "rstrip": False, "single_word": False}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "named": ({"extra_special_tokens": {"image_token": IMAGE, "vision": WORD}}, None),
    "named by objects": ({"extra_special_tokens": {"call_token": ADDED}}, None),
    "own keys": ({"image_token": IMAGE, "call_token": ADDED, "add_bos_token": True}, None),
    "both": ({"image_token": END, "extra_special_tokens": {"image_token": IMAGE}}, None),
    "list": ({"extra_special_tokens": [IMAGE, WORD], "eos_token": END}, None),
    "older list": ({"additional_special_tokens": [IMAGE, ADDED]}, None),
    "usual names": ({"eos_token": END, "pad_token": IMAGE}, None),
    "older file": ({}, {"additional_special_tokens": [IMAGE], "image_token": IMAGE}),
    "older file, named": ({}, {"extra_special_tokens": {"vision": WORD}, "call_token": END}),
    "with rules": ({"mask_token": BY_ITSELF}, None),
    "with rules, own key": ({"word_token": BY_ITSELF}, None),
    "with rules, named": ({"extra_special_tokens": {"vision": BY_ITSELF}}, None),
    "with rules, in a list": ({"additional_special_tokens": [BY_ITSELF]}, None),
    "with rules, among the added": ({"added_tokens_decoder": {WORD_ID: LOOSE}}, None),
    "with rules, twice": (
        {"mask_token": BY_ITSELF, "added_tokens_decoder": {WORD_ID: LOOSE}},
        None,
    ),
    "with rules, and named": ({"mask_token": WORD, "added_tokens_decoder": {WORD_ID: LOOSE}}, None),
    "with rules, older file": ({}, {"mask_token": {"content": WORD, **RULES}}),
    "none": ({"extra_special_tokens": {}}, None),
}


def ours(path: Path) -> tuple[TokenizerConfig, Tokenizer]:
    config = TokenizerConfig.from_directory(path)
    tokenizer = Tokenizer.from_file(path / "tokenizer.json")
    tokenizer.make_special(config.special_tokens.values(), config.nameless_tokens, config.rules)
    return config, tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_names_and_tokens_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = directory(tmp_path, *CASES[case])
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    config, tokenizer = ours(path)
    template = config.template()
    assert template is not None
    for text in (TEXT, SPACED):
        messages = [{"role": "user", "content": text}]
        assert template.render(messages) == theirs.apply_chat_template(messages, tokenize=False)
        ids = tokenizer.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("with rules")])
def test_a_token_takes_in_what_its_rules_say(case: str, tmp_path: Path) -> None:
    config, tokenizer = ours(directory(tmp_path, *CASES[case]))
    left_alone = Tokenizer.from_file(tmp_path / "tokenizer.json")
    loose = config.rules[WORD] == TokenRules(lstrip=True)
    assert loose or config.rules[WORD] == TokenRules(True, True, True)
    word = tokenizer.token_id(WORD)
    assert word is not None
    inside = [word, *left_alone.encode("x")] if loose else left_alone.encode(f"  {WORD}x")
    behind = left_alone.encode("  b") if loose else left_alone.encode("b")
    assert tokenizer.encode(f"a  {WORD}  b") == [*left_alone.encode("a"), word, *behind]
    assert tokenizer.encode(f"  {WORD}x") == inside


def test_a_rule_that_is_no_rule_is_named_with_its_file(tmp_path: Path) -> None:
    for settings, message in (
        ({"mask_token": {**ADDED, "lstrip": "yes"}}, r"lstrip of '<.call.>' is 'yes'; it must be"),
        ({"added_tokens_decoder": {"3": {"content": WORD, "rstrip": 1}}}, "rstrip of 'def' is 1"),
        ({"added_tokens_decoder": {"3": {"content": 3}}}, "added_tokens_decoder is .*; it must be"),
        ({"added_tokens_decoder": [WORD]}, "added_tokens_decoder must hold an object for each id"),
        ({"added_tokens_decoder": {"3": WORD}}, "must hold an object for each id"),
    ):
        path = directory(tmp_path, settings)
        with pytest.raises(ModelError, match=rf"tokenizer_config\.json: .*{message}"):
            TokenizerConfig.from_directory(path)


def test_a_named_token_is_one_token_and_has_no_text_in_an_answer(tmp_path: Path) -> None:
    config, tokenizer = ours(directory(tmp_path, *CASES["named"]))
    template = config.template()
    assert template is not None
    assert template.render([]) == f"{IMAGE}||{WORD}||"
    word = tokenizer.token_id(WORD)
    assert word is not None
    ids = tokenizer.encode(TEXT)
    assert word in ids
    assert tokenizer.decode(ids) == TEXT.replace(WORD, "").replace(IMAGE, "")
    stream = tokenizer.stream()
    assert stream.push(word) == [(0, "")]
    assert tokenizer.digest == Tokenizer.from_str(tokenizer.to_str()).digest


def test_what_the_vocabulary_lacks_gets_no_id_of_its_own(tmp_path: Path) -> None:
    settings = {"extra_special_tokens": {"video_token": "<video>"}}
    config, tokenizer = ours(directory(tmp_path, settings))
    before = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert config.special_tokens["video_token"] == "<video>"
    assert tokenizer.encode("<video>") == before.encode("<video>")
    assert tokenizer.vocab_size == before.vocab_size


def test_they_are_written_as_they_are_read(tmp_path: Path) -> None:
    settings = {
        "extra_special_tokens": {"vision": WORD, "image_token": IMAGE},
        "additional_special_tokens": [END],
        "eos_token": "<eos>",
        "mask_token": ADDED | {"lstrip": True},
    }
    read = TokenizerConfig.from_directory(directory(tmp_path, settings))
    (tmp_path / "again").mkdir()
    read.write(tmp_path / "again")
    assert TokenizerConfig.from_directory(tmp_path / "again") == read


def test_what_is_no_token_is_named_with_its_file(tmp_path: Path) -> None:
    for settings in (
        {"extra_special_tokens": {"vision": 3}},
        {"extra_special_tokens": [3]},
        {"additional_special_tokens": [{"content": 3}]},
    ):
        path = directory(tmp_path, settings)
        with pytest.raises(ModelError, match=r"tokenizer_config\.json: .* is .*; it must be text"):
            TokenizerConfig.from_directory(path)


def test_more_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_str(random_tiny_tokenizer().to_str())
    monkeypatch.setattr(tokenizer, "token_id", int)  # they are all in the vocabulary
    with pytest.raises(ModelError, match="20000 tokens special"):
        tokenizer.make_special(map(str, range(20_000)))
