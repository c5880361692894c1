"""OpenAI's own client against the API of a device: answers, streams, errors, retries."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.errors import CloudAuthenticationFailed, PdError
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_core.text.chat_template import ChatTemplate
from pd_device_client.api.http.event_stream import EventStream
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask
from pd_device_client.session.session import Session
from tests.api_server import (
    CREATED,
    EOS,
    SLOW,
    TOKENIZER,
    ApiServer,
    api_server,
    emulated_engine,
    loaded_model,
    scripted_cloud,
)
from tests.http_client import http

TEXT = "The device and the cloud carry one answer together. " * 8
MESSAGES = [{"role": "user", "content": TEXT}]


@pytest.fixture(scope="module")
def both() -> Iterator[ApiServer]:
    """A device that is slow to prefill, and a cloud."""
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    with api_server(cloud=cloud, profile=SLOW, pace_s=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def sdk(both: ApiServer) -> Iterator[Any]:
    with openai_client(both) as client:
        yield client


def openai_client(server: ApiServer, max_retries: int = 0) -> Any:
    """OpenAI's client; untyped, as its types know neither extra keys nor plain dictionaries."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=max_retries)


def expected_text(length: int, seed: int = 7, prompt: str = TEXT) -> str:
    """What one engine alone says."""
    sampling = SamplingParams(seed=seed, ignore_eos=True)
    state = RollingHash(TOKENIZER.vocab_size, [EOS], TOKENIZER.encode_prompt(prompt))
    ids = list[int]()
    for position in range(length):
        ids.append(state.next_token(position, sampling))
        state.extend(ids[-1:])
    return TOKENIZER.decode(ids)


def test_a_chat_in_one_piece(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="random-tiny",
        messages=MESSAGES,
        max_completion_tokens=40,
        seed=7,
        extra_body={"ignore_eos": True},
    )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.created, answer.model) == (
        "chat.completion",
        CREATED,
        "random-tiny",
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == expected_text(40)
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    num_prompt = len(TOKENIZER.encode_prompt(TEXT))
    assert answer.usage.prompt_tokens == num_prompt
    assert answer.usage.completion_tokens == 40
    assert answer.usage.total_tokens == num_prompt + 40
    assert answer._request_id is not None


def test_a_chat_as_a_stream_is_the_same_text_and_tells_what_happened(sdk: Any) -> None:
    stream = sdk.chat.completions.create(
        model="random-tiny",
        messages=MESSAGES,
        max_tokens=40,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True, "pd": {"tokens": True}},
    )
    chunks = list(stream)
    assert {(c.object, c.created, c.model) for c in chunks} == {
        ("chat.completion.chunk", CREATED, "random-tiny")
    }
    assert len({c.id for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    *told, last, usage = chunks
    assert [c.choices[0].delta.role for c in told[1:]] == [None] * (len(told) - 1)
    assert "".join(c.choices[0].delta.content or "" for c in told) == expected_text(40)
    assert {c.choices[0].finish_reason for c in told} == {None}
    assert last.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 40
    assert {c.usage for c in chunks[:-1]} == {None}
    tokens = [c.choices[0].model_extra["pd"] for c in told[1:]]
    assert [t["position"] for t in tokens] == list(range(40))
    assert {t["origin"] for t in tokens} == {"cloud", "device"}
    report = last.choices[0].model_extra["pd"]
    assert report["mode"] == report["plan"]["mode"] == "pd-device"
    handoff = report["handoff_position"]
    assert tokens[handoff]["origin"] == "device"
    assert tokens[handoff - 1]["origin"] == "cloud"
    assert report["cloud_tokens"] + report["device_tokens"] == 40
    assert report["seed"] == 7
    assert report["ttft_s"] == tokens[0]["at_s"]
    assert report["largest_gap_s"] == pytest.approx(
        max(b["at_s"] - a["at_s"] for a, b in itertools.pairwise(tokens))
    )


@pytest.mark.parametrize("mode", ["device-only", "cloud-only", "pd-device"])
def test_the_text_depends_on_the_seed_and_not_on_the_mode(sdk: Any, mode: str) -> None:
    for seed in (1, 2):
        answer = sdk.completions.create(
            model="random-tiny",
            prompt=TEXT,
            max_tokens=20,
            seed=seed,
            temperature=1.0,
            extra_body={"ignore_eos": True, "pd": {"mode": mode}},
        )
        assert answer.choices[0].text == expected_text(20, seed)
        carried_by = answer.choices[0].model_extra["pd"]["mode"]
        assert carried_by == mode or mode == "pd-device"  # so short an answer may not need both


def test_a_completion_takes_text_and_token_ids_one_or_several(sdk: Any) -> None:
    first, second = "one and two", "three and four"
    ids = [TOKENIZER.encode_prompt(text) for text in (first, second)]
    options = {"max_tokens": 9, "seed": 3, "extra_body": {"ignore_eos": True}}
    wanted = [expected_text(9, 3, prompt) for prompt in (first, second)]
    forms = [(first, wanted[:1]), (ids[0], wanted[:1]), ([first, second], wanted), (ids, wanted)]
    for prompt, texts in forms:
        answer = sdk.completions.create(
            model="random-tiny",
            prompt=prompt,
            **options,
        )
        assert [choice.text for choice in answer.choices] == texts
        assert [choice.index for choice in answer.choices] == list(range(len(texts)))
        assert answer.usage.prompt_tokens == sum(len(i) for i in ids[: len(texts)])


def test_a_completion_as_a_stream(sdk: Any) -> None:
    stream = sdk.completions.create(
        model="random-tiny", prompt=TEXT, max_tokens=12, seed=7, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks) == expected_text(12)
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"


def test_several_choices_stream_side_by_side_each_with_its_own_seed(sdk: Any) -> None:
    stream = sdk.chat.completions.create(
        model="random-tiny",
        messages=MESSAGES,
        max_tokens=10,
        n=3,
        seed=5,
        temperature=1.0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    texts, ended = ["", "", ""], []
    for chunk in stream:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ended.append(choice.index)
    assert texts == [expected_text(10, seed) for seed in (5, 6, 7)]
    assert sorted(ended) == [0, 1, 2]


def test_a_stop_string_is_cut_once_across_tokens_and_across_the_handoff(
    both: ApiServer, sdk: Any
) -> None:
    whole = expected_text(40)
    stream = sdk.completions.create(
        model="random-tiny", prompt=TEXT, max_tokens=40, seed=7, stream=True,
        extra_body={"ignore_eos": True, "pd": {"tokens": True}},
    )  # fmt: skip
    tokens = [c.choices[0] for c in stream]
    handoff = tokens[-1].model_extra["pd"]["handoff_position"]
    before = "".join(c.text for c in tokens[:handoff])
    at = len(before)
    for stop in (whole[at - 2 : at + 3], whole[at - 4 : at + 1], whole[3:9]):
        cut = whole[: whole.index(stop)]
        for streamed in (False, True):
            answer = sdk.completions.create(
                model="random-tiny", prompt=TEXT, max_tokens=40, seed=7, stop=[stop, "never there"],
                stream=streamed, extra_body={"ignore_eos": True},
            )  # fmt: skip
            choices = [c.choices[0] for c in answer] if streamed else answer.choices
            assert "".join(c.text for c in choices) == cut
            assert choices[-1].finish_reason == "stop"


def test_content_in_parts_and_unknown_fields(sdk: Any) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    for content in (parts, "one\ntwo"):
        answer = sdk.chat.completions.create(
            model="random-tiny",
            messages=[{"role": "user", "content": content}],
            max_tokens=6,
            seed=7,
            user="me",
            metadata={"a": "b"},
            extra_body={"ignore_eos": True, "never_heard_of": [1]},
        )
        assert answer.choices[0].message.content == expected_text(6, 7, "one\ntwo")


def test_models_and_their_cards(sdk: Any) -> None:
    assert [model.id for model in sdk.models.list()] == ["random-tiny"]
    assert sdk.models.retrieve("random-tiny").owned_by == "pd-device"
    with pytest.raises(openai.NotFoundError, match="this device runs random-tiny") as raised:
        sdk.models.retrieve("other/model")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 11}, "temperature"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"max_tokens": 100_000}, "max_tokens"),
    ],
)
def test_errors_name_the_parameter(sdk: Any, options: dict[str, object], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.chat.completions.create(**{"model": "random-tiny", "messages": MESSAGES, **options})
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"
    assert param in raised.value.message or "context" in raised.value.message


def test_a_full_device_is_tried_again_by_the_sdk() -> None:
    with (
        api_server(max_requests=1, pace_s=0.02) as server,
        openai_client(server) as hasty,
        openai_client(server, max_retries=2) as patient,
    ):
        stream = hasty.completions.create(
            model="", prompt="x", max_tokens=50, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as raised:
            hasty.completions.create(model="", prompt="x", max_tokens=1)
        assert raised.value.response.headers["retry-after"] == "1"
        assert "--max-requests" in raised.value.message
        reader = threading.Thread(target=lambda: list(stream))
        reader.start()
        assert patient.completions.create(model="", prompt="x", max_tokens=1).choices
        reader.join()


def test_a_stream_that_dies_says_so_after_what_came() -> None:
    cloud = scripted_cloud()
    cloud.script.cut_after, cloud.script.cut_streams = 5, 99
    # The engine's context is too small for the request, so there is nobody to take over.
    with api_server(cloud=cloud, engine=emulated_engine(max_context_tokens=8)) as server:
        cloud.script.refuse = lambda number: None if number == 1 else _refused()
        with openai_client(server) as client:
            stream = client.completions.create(
                model="", prompt=TEXT, max_tokens=20, stream=True, extra_body={"ignore_eos": True}
            )
            texts = list[str]()
            with pytest.raises(openai.APIError, match="refused") as raised:
                texts.extend(chunk.choices[0].text for chunk in stream)
        assert not isinstance(raised.value, openai.APIStatusError)
        assert raised.value.code == "cloud_authentication_failed"
        assert "".join(texts)
        assert server.gauge("pd_answers_running") == 0


def _refused() -> PdError:
    return CloudAuthenticationFailed("the cloud refused the key")


def test_an_error_before_the_first_token_is_an_ordinary_error_response() -> None:
    cloud = scripted_cloud()
    cloud.script.refuse = lambda _: _refused()
    with api_server(cloud=cloud, engine=emulated_engine(max_context_tokens=8)) as server:
        done = http.post(f"{server.url}/v1/completions", json={"prompt": TEXT, "stream": True})
    assert done.status_code == 502
    assert done.json()["error"]["code"] == "cloud_authentication_failed"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_both_sides(stream: bool) -> None:
    cloud = scripted_cloud()
    cloud.script.step_s = 0.01
    body = {
        "prompt": TEXT, "max_tokens": 2000, "ignore_eos": True, "stream": stream,
        "pd": {"mode": "cloud-only", "pace_s": 0.01},
    }  # fmt: skip
    with api_server(cloud=cloud, profile=SLOW) as server:
        with httpx.Client() as client:
            if stream:
                with client.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
                    events = answer.iter_bytes()  # dropped, it would end the connection
                    next(events)
                    assert server.gauge("pd_answers_running") == 1
                    assert cloud.open_streams == 1
            else:
                asking = HTTPConnection(server.address, timeout=60)
                headers = {"Content-Type": "application/json"}
                asking.request("POST", "/v1/completions", json.dumps(body), headers)
                while not cloud.open_streams:
                    time.sleep(0.01)
                asking.close()
        deadline = time.monotonic() + 60
        while cloud.open_streams or server.gauge("pd_answers_running"):
            assert time.monotonic() < deadline, "the answer goes on for nobody"
            time.sleep(0.01)
        assert server.gauge("pd_engine_running") == server.gauge("pd_queue_waiting") == 0
        assert server.gauge('pd_answers_total{mode="cloud-only",reason="cancelled"}') == 1


def test_the_model_s_own_sampling_holds_where_a_request_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = loaded_model(
        ChatTemplate("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"),
        SamplingDefaults(0.7, 20, 0.9, repetition_penalty=1.1, min_p=0.05),
    )
    seen = list[Ask]()
    with api_server(loaded=loaded) as server:
        inner = DeviceClient.session

        def spy(client: DeviceClient, request: Ask, *args: Any, **kw: Any) -> Session:
            seen.append(request)
            return inner(client, request, *args, **kw)

        monkeypatch.setattr(DeviceClient, "session", spy)
        url = f"{server.url}/v1/chat/completions"
        messages = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
        every: dict[str, Any] = {
            "temperature": 0.5, "top_p": 1, "top_k": -1, "seed": 5, "min_p": 0,
            "repetition_penalty": 1.3, "presence_penalty": -1, "frequency_penalty": 2,
            "dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": 3,
        }  # fmt: skip
        for extra in ({}, every, {"top_p": 0, "seed": -1}, {"temperature": 1e-9, "seed": -1}):
            done = http.post(url, json={"messages": messages, "max_tokens": 2, **extra})
            assert done.status_code == 200
    silent, spoken, *greedy = (request.sampling for request in seen)
    assert (silent.temperature, silent.top_k, silent.top_p) == (0.7, 20, 0.9)
    assert (silent.repetition_penalty, silent.min_p) == (1.1, 0.05)
    assert spoken == SamplingParams(**{**every, "top_k": 0})
    assert all(sampling.greedy for sampling in greedy), "the single most likely token"
    assert len({sampling.seed for sampling in greedy}) == 2, "-1 draws a seed, as in vLLM"
    assert TOKENIZER.decode(seen[0].prompt_token_ids) == "[system]Be brief.[user]Hi"


def test_silence_is_filled_with_comments_which_the_sdk_skips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = {"keep_alive_s": 0.05, "write_timeout_s": 60.0}
    monkeypatch.setattr(EventStream.__init__, "__kwdefaults__", quick)
    cloud = scripted_cloud()
    cloud.script.first_token_s = 1.0  # twenty times as long, as a busy machine's timers are late
    body = {"prompt": TEXT, "max_tokens": 3, "stream": True, "pd": {"mode": "cloud-only"}}
    with api_server(cloud=cloud, profile=SLOW) as server:
        text = http.post(f"{server.url}/v1/completions", json=body).text
        assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
        assert text.endswith("data: [DONE]\n\n")
        with openai_client(server) as client:
            stream = client.completions.create(
                model="", prompt=TEXT, max_tokens=3, stream=True, seed=0,
                extra_body={"pd": {"mode": "cloud-only"}, "ignore_eos": True},
            )  # fmt: skip
            assert "".join(c.choices[0].text for c in stream) == expected_text(3, 0)


async def test_a_hundred_chats_at_once_all_end_each_with_its_own_text(both: ApiServer) -> None:
    async def ask(client: httpx.AsyncClient, seed: int) -> str:
        body = {
            "messages": [{"role": "user", "content": f"{seed} {TEXT}"}], "max_tokens": 12,
            "seed": seed, "ignore_eos": True, "stream": True,
        }  # fmt: skip
        text = ""
        async with client.stream("POST", f"{both.url}/v1/chat/completions", json=body) as answer:
            if answer.status_code == 429:  # the SDK tries again as well
                await asyncio.sleep(0.2)
                return await ask(client, seed)
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
        return text

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        texts = await asyncio.gather(*(ask(client, seed) for seed in range(100)))
    assert texts == [expected_text(12, seed, f"{seed} {TEXT}") for seed in range(100)]
    for name in ("pd_answers_running", "pd_engine_running", "pd_queue_waiting"):
        assert both.gauge(name) == 0
