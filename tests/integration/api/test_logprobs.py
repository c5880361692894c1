"""Logprobs through OpenAI's own client, over a handoff, and the other parameters of sampling."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest

from pd_core.generation import TokenLogprobs
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from tests.api_server import (
    EOS,
    QUICK,
    SLOW,
    TOKENIZER,
    ApiServer,
    api_server,
    loaded_model,
    scripted_cloud,
)
from tests.http_client import http
from tests.integration.api.test_clients import openai_client
from tests.saying_engine import SayingEngine

TEXT = "The device and the cloud carry one answer together. " * 8
MESSAGES = [{"role": "user", "content": TEXT}]
LENGTH = 40


@pytest.fixture(scope="module")
def both() -> Iterator[ApiServer]:
    """A device that is slow to prefill, and a cloud: most answers are handed over."""
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    with api_server(cloud=cloud, profile=SLOW, pace_s=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def sdk(both: ApiServer) -> Iterator[Any]:
    with openai_client(both) as client:
        yield client


def expected(count: int, length: int = LENGTH, seed: int = 7) -> list[tuple[int, TokenLogprobs]]:
    """Each token that one side alone makes, and what it tells of it."""
    sampling = SamplingParams(seed=seed, ignore_eos=True)
    state = RollingHash(TOKENIZER.vocab_size, [EOS], TOKENIZER.encode_prompt(TEXT))
    told = []
    for position in range(length):
        token_id = state.next_token(position, sampling)
        state.extend((token_id,))
        told.append((token_id, state.logprobs(count)))
    return told


def check_content(content: list[Any], count: int, length: int = LENGTH) -> None:
    """Check a chat's entries, position by position."""
    known = TOKENIZER.token_bytes()
    assert len(content) == length
    for entry, (token_id, told) in zip(content, expected(count, length), strict=True):
        assert bytes(entry.bytes) == known.of(token_id)
        assert entry.logprob == told.logprob
        assert [one.logprob for one in entry.top_logprobs] == list(told.top_logprobs)
        assert [bytes(one.bytes) for one in entry.top_logprobs] == [
            known.of(other) for other in told.top_ids
        ]


def chat(sdk: Any, **options: Any) -> Any:
    """Ask for a chat's answer of LENGTH tokens."""
    fixed = {"model": "", "messages": MESSAGES, "max_tokens": LENGTH, "seed": 7}
    extra = {"ignore_eos": True, **options.pop("extra_body", {})}
    return sdk.chat.completions.create(**{**fixed, "extra_body": extra, **options})


@pytest.mark.parametrize("count", [0, 3, 20])
def test_a_chat_tells_every_token_in_order_whoever_made_it(sdk: Any, count: int) -> None:
    tokens = {"pd": {"tokens": True}}
    (choice,) = chat(sdk, logprobs=True, top_logprobs=count, extra_body=tokens).choices
    check_content(choice.logprobs.content, count)
    report = choice.model_extra["pd"]
    runs = [[run["origin"]] * run["tokens"] for run in report["logprobs"]]
    assert [one for run in runs for one in run] == [t["origin"] for t in report["tokens"]]
    assert all(run != after for run, after in itertools.pairwise(run[0] for run in runs))


def test_a_stream_tells_each_once_and_with_its_text(sdk: Any) -> None:
    chunks = list(chat(sdk, logprobs=True, top_logprobs=2, stream=True))
    content = list[Any]()
    for chunk in chunks:
        (choice,) = chunk.choices
        told = choice.logprobs.content if choice.logprobs else []
        content += told
        if text := choice.delta.content:
            assert b"".join(bytes(one.bytes) for one in told).decode(errors="replace") == text
    check_content(content, 2)


def test_who_does_not_ask_is_told_nothing(sdk: Any) -> None:
    (choice,) = chat(sdk).choices
    assert choice.logprobs is None
    assert "logprobs" not in choice.model_extra["pd"]


def test_a_completion_has_lists_side_by_side(sdk: Any) -> None:
    answer = sdk.completions.create(
        model="",
        prompt=TEXT,
        max_tokens=LENGTH,
        seed=7,
        logprobs=2,
        extra_body={"ignore_eos": True},
    )
    (choice,) = answer.choices
    told, lists = expected(2), choice.logprobs
    assert lists.token_logprobs == [one.logprob for _, one in told]
    assert [len(top) for top in lists.top_logprobs] == [2] * LENGTH
    ends = [*lists.text_offset[1:], len(choice.text)]
    for (token_id, one), name, first, end, top in zip(
        told, lists.tokens, lists.text_offset, ends, lists.top_logprobs, strict=True
    ):
        spelt = TOKENIZER.token_bytes().of(token_id)
        try:
            assert name == spelt.decode()
        except UnicodeDecodeError:
            assert name == "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)
        else:
            assert choice.text[first:end].endswith(name) or "\ufffd" in choice.text[first:end]
        assert top[name] == one.logprob
    assert answer.usage.completion_tokens == LENGTH


def test_n_answers_have_logprobs_each_of_their_own(sdk: Any) -> None:
    answer = chat(sdk, n=3, logprobs=True, top_logprobs=1)
    for choice in answer.choices:
        told = expected(1, seed=7 + choice.index)
        assert [one.logprob for one in choice.logprobs.content] == [one.logprob for _, one in told]
    content: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for chunk in chat(sdk, n=3, logprobs=True, stream=True):
        for choice in chunk.choices:
            for one in (choice.logprobs and choice.logprobs.content) or []:
                content[choice.index].append(one.logprob)
    for index, logprobs in content.items():
        assert logprobs == [one.logprob for _, one in expected(0, seed=7 + index)]


def test_pd_tokens_has_each_tokens_logprob(sdk: Any) -> None:
    (choice,) = chat(sdk, logprobs=True, extra_body={"pd": {"tokens": True}}).choices
    tokens = choice.model_extra["pd"]["tokens"]
    assert [one["logprob"] for one in tokens] == [one.logprob for _, one in expected(0)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", ["and", "d th", "evice and the cl"])
def test_a_stop_string_cuts_the_logprobs_with_the_text(stop: str, stream: bool) -> None:
    engine = TellingEngine("The device and the cloud say one thing.")
    with api_server(engine=engine, profile=QUICK) as server:
        body = {"prompt": "x", "stop": stop, "logprobs": 0, "max_tokens": 99, "stream": stream}
        text, tokens, offsets = "", list[str](), list[int]()
        if stream:
            with openai_client(server) as sdk:
                for chunk in sdk.completions.create(model="", **body):
                    (choice,) = chunk.choices
                    text += choice.text
                    tokens += choice.logprobs.tokens if choice.logprobs else []
                    offsets += choice.logprobs.text_offset if choice.logprobs else []
        else:
            (whole,) = http.post(f"{server.url}/v1/completions", json=body).json()["choices"]
            text, tokens = whole["text"], whole["logprobs"]["tokens"]
            offsets = whole["logprobs"]["text_offset"]
    full = "The device and the cloud say one thing."
    assert text == full[: full.index(stop)]
    # The token in which the cut lies is the last one told; it has a part of its text at least.
    assert "".join(tokens).startswith(text)
    assert "".join(tokens[:-1]) == text[: offsets[-1]] != text


def test_the_end_of_sequence_is_no_part_of_the_text() -> None:
    with api_server(engine=TellingEngine("It ends."), profile=QUICK) as server:
        body = {"prompt": "x", "logprobs": 0, "max_tokens": 99}
        (choice,) = http.post(f"{server.url}/v1/completions", json=body).json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"] == "It ends."


def test_half_characters_have_their_own_bytes() -> None:
    with api_server(engine=TellingEngine("a\U0001f600b"), profile=QUICK) as server:
        body = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "stream": False}
        (choice,) = http.post(f"{server.url}/v1/chat/completions", json=body).json()["choices"]
    content = choice["logprobs"]["content"]
    assert [one["token"] for one in content] == ["a", "\\xf0", "\\x9f", "\\x98", "\\x80", "b"]
    assert bytes(byte for one in content for byte in one["bytes"]).decode() == "a\U0001f600b"


def test_a_cloud_without_logprobs_leaves_the_answer_to_the_device() -> None:
    cloud = scripted_cloud()
    cloud.gives_logprobs = False
    with api_server(cloud=cloud, profile=QUICK) as server:
        body = {"messages": MESSAGES, "logprobs": True, "max_tokens": 5, "ignore_eos": True}
        path = f"{server.url}/v1/chat/completions"
        (choice,) = http.post(path, json=body).json()["choices"]
        assert [run["origin"] for run in choice["pd"]["logprobs"]] == ["device"]
        assert any("the cloud's engine (scripted) gives none" in n for n in choice["pd"]["notes"])
        assert not cloud.starts
        body |= {"logprobs": False, "pd": {"mode": "cloud-only"}}
        http.post(path, json=body)
        assert cloud.starts


def test_where_no_side_has_them_they_are_refused() -> None:
    engine = SayingEngine(TOKENIZER, "It says nothing of them.", EOS)
    with api_server(engine=engine, profile=QUICK) as server:
        body = {"messages": MESSAGES, "logprobs": True}
        answer = http.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "the local model's engine (saying) gives none" in answer.json()["error"]["message"]


@pytest.mark.parametrize("asked", [{"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}])
def test_a_prompt_is_looked_up_by_a_local_torch_engine_or_not_at_all(
    both: ApiServer, asked: dict[str, Any]
) -> None:
    answer = http.post(f"{both.url}/v1/completions", json={"prompt": "x", **asked})
    assert answer.status_code == 400
    assert "told only by a local torch engine" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["Once upon", [5, 6, 300]])
def test_echo_gives_the_prompt_back_before_the_answer(
    both: ApiServer, prompt: str | list[int], stream: bool
) -> None:
    body = {"prompt": prompt, "max_tokens": 4, "ignore_eos": True, "seed": 3, "stream": stream}
    with openai_client(both) as sdk:
        options = {key: body.pop(key) for key in ("ignore_eos",)}

        def text(**more: Any) -> str:
            answer = sdk.completions.create(model="", **body, extra_body={**options, **more})
            chunks = answer if stream else [answer]
            return "".join(chunk.choices[0].text for chunk in chunks)

        expected_prompt = prompt if isinstance(prompt, str) else TOKENIZER.decode(prompt)
        assert text(echo=True) == expected_prompt + text()


def test_usage_has_its_details(both: ApiServer) -> None:
    body = {"prompt": "x", "max_tokens": 4, "ignore_eos": True}
    usage = http.post(f"{both.url}/v1/completions", json=body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize(("cached", "counted"), [(7, 7), (10**6, None)])
def test_what_the_cloud_had_cached_is_counted_once(cached: int, counted: int | None) -> None:
    cloud = scripted_cloud()
    cloud.script.cached_tokens = cached  # of prompt and committed prefix
    cloud.script.first_token_s = 0.02
    with api_server(cloud=cloud, profile=SLOW) as server:
        body = {"prompt": TEXT, "max_tokens": 4, "n": 2, "pd": {"mode": "cloud-only"}}
        answer = http.post(f"{server.url}/v1/completions", json=body).json()
    prompt_tokens = answer["usage"]["prompt_tokens"]
    details = answer["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] == (counted or prompt_tokens), "n answers have one prompt"
    assert answer["choices"][0]["pd"]["cloud_cached_tokens"] == (counted or prompt_tokens)


def test_each_of_several_prompts_is_echoed_before_its_own_answers(both: ApiServer) -> None:
    prompts = ["Once upon", "In the end"]
    body = {"prompt": prompts, "n": 2, "max_tokens": 3, "echo": True, "ignore_eos": True}
    choices = http.post(f"{both.url}/v1/completions", json=body).json()["choices"]
    for choice in choices:
        prompt = prompts[choice["index"] // 2]
        assert choice["text"].startswith(prompt)
        assert choice["text"] != prompt


class TellingEngine(SayingEngine):
    """Says a text, and of each token a made-up logprob."""

    def __init__(self, text: str) -> None:
        super().__init__(TOKENIZER, text, EOS, tells=TokenLogprobs(-0.5))


def test_what_json_lacks_is_written_as_a_number() -> None:
    engine = SayingEngine(TOKENIZER, "a", EOS, tells=TokenLogprobs(-math.inf))
    with api_server(engine=engine, profile=QUICK) as server:
        body = {"prompt": "x", "logprobs": 0}
        (choice,) = http.post(f"{server.url}/v1/completions", json=body).json()["choices"]
    assert choice["logprobs"]["token_logprobs"] == [-9999.0]


def test_a_salt_reaches_the_cloud() -> None:
    cloud = scripted_cloud()
    with api_server(cloud=cloud, profile=SLOW, loaded=loaded_model()) as server:
        mode = {"mode": "cloud-only"}
        body = {"prompt": TEXT, "max_tokens": 4, "cache_salt": "mine", "pd": mode}
        assert http.post(f"{server.url}/v1/completions", json=body).status_code == 200
    assert {start.cache_salt for start in cloud.starts} == {"mine"}
