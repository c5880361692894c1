"""How likely a prompt's tokens were: through the API, from a real model on this device."""

from collections.abc import Iterator
from typing import Any

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.generation import TokenLogprobs
from pd_core.models import Segment
from pd_core.sampling.logprobs import token_logprobs
from pd_device_client.engine.torch_engine import TorchLocalEngine
from tests.api_server import ApiServer, api_server
from tests.http_client import http
from tests.integration.api.test_clients import openai_client

TEXT = "def twice(x):\n    return x + x\n" * 4


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def server(loaded: LoadedModel) -> Iterator[ApiServer]:
    engine = TorchLocalEngine(loaded, chunk_tokens=16, kept_kv_bytes=64 << 20)
    with api_server(loaded=loaded, engine=engine) as running:
        yield running


def slow(loaded: LoadedModel, ids: list[int], count: int) -> list[TokenLogprobs]:
    """All tokens but the first, from one pass over the whole prompt."""
    import torch

    cache = loaded.model.make_cache(len(ids))
    with torch.inference_mode():
        hidden = loaded.model.forward(torch.tensor(ids), [Segment(cache, 0, len(ids))])
        logits = loaded.model.logits(hidden[:-1])
    return token_logprobs(logits, ids[1:], [count] * (len(ids) - 1))


def test_a_completion_has_them_in_its_choice_in_vllms_form(
    server: ApiServer, loaded: LoadedModel
) -> None:
    body = {"prompt": TEXT, "max_tokens": 2, "prompt_logprobs": 3}
    answer = http.post(f"{server.url}/v1/completions", json=body).json()
    told = answer["choices"][0]["prompt_logprobs"]
    ids = loaded.tokenizer.encode_prompt(TEXT)
    assert told[0] is None
    assert len(told) == len(ids) == answer["usage"]["prompt_tokens"]
    for token_id, one, report in zip(ids[1:], slow(loaded, ids, 3), told[1:], strict=True):
        assert report[str(token_id)]["logprob"] == one.logprob
        ranked = {r["rank"]: int(i) for i, r in report.items() if r["rank"] is not None}
        assert [ranked[rank] for rank in (1, 2, 3)] == list(one.top_ids)
        assert len(report) == 3 + (token_id not in one.top_ids)
    names = [r and r[str(i)]["decoded_token"] for i, r in zip(ids, told, strict=True)]
    assert "".join(names[1:]) == TEXT[len(TEXT) - len("".join(names[1:])) :]


def test_a_chat_has_them_beside_its_choices(server: ApiServer, loaded: LoadedModel) -> None:
    body = {
        "messages": [{"role": "user", "content": TEXT}],
        "max_tokens": 2,
        "n": 2,
        "prompt_logprobs": 0,
    }
    answer = http.post(f"{server.url}/v1/chat/completions", json=body).json()
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert "prompt_logprobs" not in answer["choices"][0]
    assert all(len(one) == 1 for one in answer["prompt_logprobs"][1:])


def test_what_the_device_had_cached_is_in_the_usage(server: ApiServer) -> None:
    body = {"prompt": "Something else. " + TEXT, "max_tokens": 2}
    cached = []
    for _ in range(2):
        answer = http.post(f"{server.url}/v1/completions", json=body).json()
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert answer["choices"][0]["pd"]["device_cached_tokens"] == cached[-1]
    assert cached[0] < cached[1] < answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_tells_of_the_prompt_and_then_of_the_answer(
    server: ApiServer, loaded: LoadedModel, stream: bool
) -> None:
    with openai_client(server) as sdk:
        answer = sdk.completions.create(
            model="", prompt=TEXT, max_tokens=5, logprobs=2, echo=True, stream=stream
        )
        chunks = list(answer) if stream else [answer]
    text = "".join(chunk.choices[0].text for chunk in chunks)
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    ids = loaded.tokenizer.encode_prompt(TEXT)

    def joined(name: str) -> list[Any]:
        return [one for lists in told for one in getattr(lists, name)]

    assert text.startswith(TEXT)
    logprobs, offsets = joined("token_logprobs"), joined("text_offset")
    assert logprobs[0] is None
    assert joined("top_logprobs")[0] is None
    assert logprobs[1 : len(ids)] == [one.logprob for one in slow(loaded, ids, 2)]
    assert offsets == sorted(offsets)
    assert offsets[len(ids)] == len(TEXT)
    assert joined("tokens")[: len(ids)] == [
        loaded.tokenizer.token_bytes().of(token_id).decode() for token_id in ids
    ]
    for offset, name in list(zip(offsets, joined("tokens"), strict=True))[1 : len(ids)]:
        assert text[offset : offset + len(name)] == name
    (plain,) = http.post(
        f"{server.url}/v1/completions", json={"prompt": TEXT, "max_tokens": 5, "logprobs": 2}
    ).json()["choices"]
    assert logprobs[len(ids) :] == plain["logprobs"]["token_logprobs"]
