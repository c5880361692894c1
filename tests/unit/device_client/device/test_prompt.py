"""The prompt of `pd-device chat`: by the checkpoint's template, or plain."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import InvalidRequest
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.device.prompt import conversation_token_ids, prompt_token_ids

BOS = random_tiny_tokenizer().token_id("<bos>")
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer_json() -> dict[str, Any]:
    """A tokenizer that puts <bos> before every text of its own accord, as Llama's does."""
    content: dict[str, Any] = json.loads(random_tiny_tokenizer().to_str())
    pieces = [
        {"SpecialToken": {"id": "<bos>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}},
    }
    return content


@pytest.fixture(scope="module")
def chatty(tokenizer_json: dict[str, Any]) -> LoadedModel:
    return replace(
        load_model("random-tiny"),
        tokenizer=Tokenizer.from_str(json.dumps(tokenizer_json)),
        chat_template=ChatTemplate(TEMPLATE, SPECIAL),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_message_goes_through_the_template_as_transformers_does_it(
    chatty: LoadedModel, tokenizer_json: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SPECIAL))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True
    )
    ours = prompt_token_ids(chatty, "hello", raw=False)
    assert list(ours) == theirs["input_ids"]
    assert ours.count(BOS) == 1  # the template's, and not the tokenizer's as well
    assert "[user] hello\n[assistant]" in chatty.tokenizer.decode(ours)


def test_a_raw_prompt_is_the_text_after_what_the_tokenizer_puts_first(chatty: LoadedModel) -> None:
    plain = chatty.tokenizer.encode("hello")
    assert prompt_token_ids(chatty, "hello", raw=True) == (BOS, *plain)
    assert prompt_token_ids(chatty, "<bos>hello", raw=True) == (BOS, *plain)


def test_without_a_template_every_prompt_is_raw(chatty: LoadedModel) -> None:
    bare = replace(chatty, chat_template=None)
    assert prompt_token_ids(bare, "hello", raw=False) == prompt_token_ids(bare, "hello", raw=True)


def test_an_empty_text_is_refused_though_something_would_come_before_it(
    chatty: LoadedModel,
) -> None:
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        prompt_token_ids(chatty, "", raw=True)
    bare = replace(chatty, chat_template=None)
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        conversation_token_ids(bare, [{"role": "user", "content": ""}] * 2)


def test_a_chat_of_empty_texts_is_what_the_template_makes_of_it(chatty: LoadedModel) -> None:
    ids = prompt_token_ids(chatty, "", raw=False)
    assert chatty.tokenizer.decode(ids) == "[user] \n[assistant] "
    nothing = replace(chatty, chat_template=ChatTemplate("{{ messages[0].content }}"))
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        prompt_token_ids(nothing, "", raw=False)
