"""docs/reference/parameters.md says of every parameter what really becomes of it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from pd_device_client.api.completions.instead import OF_CHATS
from pd_device_client.api.completions.parameters import (
    ChatParameters,
    CompletionParameters,
    read_parameters,
)
from pd_device_client.api.http.errors import Refusal

PAGE = (Path(__file__).parents[5] / "docs/reference/parameters.md").read_text(encoding="utf-8")
CHAT, TEXT = {"messages": [{"role": "user", "content": "x"}]}, {"prompt": "x"}
# The bodies of OpenAI's API (2026) and of vLLM 0.32.
OPENAI = [
    "messages",
    "model",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
    "prompt",
    "best_of",
    "echo",
    "suffix",
]
VLLM = [
    "use_beam_search",
    "top_k",
    "min_p",
    "repetition_penalty",
    "watermarking",
    "length_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "truncation_side",
    "prompt_logprobs",
    "logprob_token_ids",
    "allowed_token_ids",
    "bad_words",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "structured_outputs",
    "priority",
    "request_id",
    "session_id",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "routed_experts_prompt_start",
    "return_token_offsets",
    "return_prompt_text",
    "mm_payload",
    "return_mm_kwargs",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "repetition_detection",
    "stream_interval",
    "prompt_embeds",
    "include_reasoning",
    "thinking_token_budget",
    "early_stopping",
]


def part(title: str) -> str:
    """Return one part of the page."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[str]:
    """Return the first cells of a part's table."""
    return re.findall(r"^\| (`.*?) \|", part(title), re.MULTILINE)


def names(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}


def ignored() -> set[str]:
    """What is said to be ignored: between the first table and the next part."""
    return names([part("Taken").split("\n\n`user`")[1]]) | {"user"}


OF_ONE = {"echo", *OF_CHATS}
"""Parameters that one endpoint takes and the other refuses."""


def refused(body: Mapping[str, object], name: str) -> bool:
    kind = ChatParameters if body is CHAT else CompletionParameters
    odd: object
    for odd in ("odd", 7, {"a": "b"}):  # none of which is without effect
        try:
            read_parameters(kind, {**body, name: odd})
        except Refusal as refusal:
            if "is not supported here" not in str(refusal):
                return False
        else:
            return False
    return True


def test_every_field_is_on_the_page_and_every_taken_one_is_a_field() -> None:
    fields = {*ChatParameters.model_fields, *CompletionParameters.model_fields}
    assert names(rows("Taken")) == fields


@pytest.mark.parametrize("name", sorted({*OPENAI, *VLLM}))
def test_every_parameter_of_others_is_on_the_page(name: str) -> None:
    assert name in names(rows("Taken")) | names(rows("Refused")) | ignored()


@pytest.mark.parametrize("name", sorted(names(rows("Refused")) - OF_ONE))
def test_what_the_page_calls_refused_is(name: str) -> None:
    assert refused(CHAT, name)
    assert refused(TEXT, name)


@pytest.mark.parametrize("name", sorted(ignored()))
def test_what_the_page_calls_ignored_is(name: str) -> None:
    odd: object
    for odd in ("odd", 7, True, {}):
        read_parameters(ChatParameters, {**CHAT, name: odd})
        read_parameters(CompletionParameters, {**TEXT, name: odd})


def test_each_endpoint_refuses_what_only_the_other_has() -> None:
    assert refused(CHAT, "echo")
    for name in OF_CHATS:
        assert refused(TEXT, name)
    assert read_parameters(CompletionParameters, {**TEXT, "top_logprobs": 0}).num_logprobs is None
