"""What becomes of an answer's tokens: its first space, special tokens, and where it stops."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pd_core.generation import Stop
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer
from tests.api_server import TOKENIZER, ApiServer, api_server, loaded_model, scripted_cloud
from tests.http_client import http
from tests.saying_engine import SayingEngine
from tests.tokenizer_kinds import byte_fallback, ids, metaspace

pytestmark = pytest.mark.heavy

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}")
KINDS = {"byte-fallback": byte_fallback(), "metaspace": metaspace()}

each_kind = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
each_way = pytest.mark.parametrize("stream", [False, True])


@contextmanager
def saying(
    tokenizer: Tokenizer, *tokens: str, template: ChatTemplate | None = TEMPLATE
) -> Iterator[ApiServer]:
    """A device that answers these tokens, whatever is asked, and ends with </s>."""
    [eos] = ids(tokenizer, "</s>")
    loaded = replace(loaded_model(template), tokenizer=tokenizer, eos_token_ids=(eos,))
    loaded.model.num_token_ids = tokenizer.vocab_size
    engine = SayingEngine(tokenizer, "", eos)
    engine.token_ids = [*ids(tokenizer, *tokens), eos]
    with api_server(loaded=loaded, engine=engine) as server:
        yield server


def answered(server: ApiServer, path: str, stream: bool, **body: Any) -> tuple[str, str, int]:
    """Return an answer's text, why it ended, and its number of tokens."""
    if path == CHAT:
        body = {"messages": [{"role": "user", "content": "it is"}], **body}
    answer = http.post(f"{server.url}{path}", json={"stream": stream, "max_tokens": 9, **body})
    assert answer.status_code == 200, answer.text
    if not stream:
        [choice] = answer.json()["choices"]
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        return text, choice["finish_reason"], answer.json()["usage"]["completion_tokens"]
    return _streamed(answer, path)


def _streamed(answer: httpx.Response, path: str) -> tuple[str, str, int]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    texts = [c["delta"].get("content", "") if path == CHAT else c["text"] for c in choices]
    last = choices[-1]
    return "".join(texts), last["finish_reason"], sum(map(last["pd"].get, _SIDES))


_SIDES = ("cloud_tokens", "device_tokens")


@each_kind
@each_way
def test_a_completion_keeps_its_first_space(tokenizer: Tokenizer, stream: bool) -> None:
    with saying(tokenizer, "\u2581Paris", "\u2581is") as server:
        prompt = ids(tokenizer, "\u2581it", "\u2581is")
        assert answered(server, TEXT, stream, prompt=prompt)[0] == " Paris is"
        several = [prompt, ids(tokenizer, "<s>")]
        body = {"prompt": several, "max_tokens": 9}
        both = http.post(f"{server.url}{TEXT}", json=body).json()["choices"]
        assert [choice["text"] for choice in both] == [" Paris is", "Paris is"]


@each_kind
@each_way
@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_chats_message_is_a_text_of_its_own(
    tokenizer: Tokenizer, stream: bool, template: ChatTemplate | None
) -> None:
    with saying(tokenizer, "\u2581Paris", "\u2581is", template=template) as server:
        assert answered(server, CHAT, stream)[0] == "Paris is"


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def speaking(request: pytest.FixtureRequest) -> Iterator[tuple[ApiServer, Tokenizer]]:
    """A device that always says the same, with a special token in it."""
    speech = ("\u2581it", "<|im_end|>", "\u2581is", "\u2581in", "\u2581Paris")
    with saying(request.param, *speech) as server:
        yield server, request.param


@each_way
@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("body", "text", "reason", "num_tokens"),
    [
        ({}, "it is in Paris", "stop", 6),
        ({"stop": ["<|im_end|>"]}, "it", "stop", 2),
        ({"stop": "<|im_end|> is"}, "it", "stop", 3),
        ({"stop": ["in P"]}, "it is ", "stop", 5),
        ({"stop": ["<|im_end|>"], "skip_special_tokens": False}, "it", "stop", 2),
        ({"skip_special_tokens": False}, "it<|im_end|> is in Paris", "stop", 6),
        ({"skip_special_tokens": True}, "it is in Paris", "stop", 6),
        ({"skip_special_tokens": None, "stop_token_ids": None}, "it is in Paris", "stop", 6),
        ({"stop_token_ids": ["\u2581Paris", "\u2581in"]}, "it is", "stop", 4),
        ({"stop_token_ids": ["<|im_end|>"]}, "it", "stop", 2),
        ({"stop_token_ids": ["<|im_end|>"], "skip_special_tokens": False}, "it", "stop", 2),
        ({"stop_token_ids": ["\u2581in"], "ignore_eos": True}, "it is", "stop", 4),
        ({"stop_token_ids": ["\u2581in"], "max_tokens": 4}, "it is", "stop", 4),
        ({"stop_token_ids": ["\u2581in"], "max_tokens": 3}, "it is", "length", 3),
        ({"stop_token_ids": []}, "it is in Paris", "stop", 6),
    ],
)
def test_where_an_answer_stops(
    speaking: tuple[ApiServer, Tokenizer],
    stream: bool,
    path: str,
    body: dict[str, Any],
    text: str,
    reason: str,
    num_tokens: int,
) -> None:
    server, tokenizer = speaking
    asked = dict(body)
    if asked.get("stop_token_ids"):
        asked["stop_token_ids"] = ids(tokenizer, *asked["stop_token_ids"])
    if path == TEXT:
        asked["prompt"] = ids(tokenizer, "\u2581it")
        text = f" {text}"
    assert answered(server, path, stream, **asked) == (text, reason, num_tokens)


@pytest.mark.parametrize("mode", ["cloud-only", "pd-device", "device-only"])
def test_a_stop_token_ends_the_answer_on_both_sides(mode: str) -> None:
    cloud = scripted_cloud()
    with api_server(cloud=cloud) as server:
        body = {"prompt": "hello " * 50, "seed": 7, "ignore_eos": True, "max_tokens": 40}
        body["pd"] = {"mode": mode, "tokens": True}
        whole = http.post(f"{server.url}{TEXT}", json=body).json()["choices"][0]
        made = [token["token_id"] for token in whole["pd"]["tokens"]]
        stop = next(t for i, t in enumerate(made) if i >= 20 and t not in made[:i])
        body["stop_token_ids"] = [stop]
        cloud.starts.clear()
        cloud.sent.clear()
        short = http.post(f"{server.url}{TEXT}", json=body).json()["choices"][0]
        at = made.index(stop)
        assert [token["token_id"] for token in short["pd"]["tokens"]] == made[: at + 1]
        assert short["finish_reason"] == "stop"
        assert short["text"] == TOKENIZER.decode(made[:at])
        assert {start.stop_token_ids for start in cloud.starts} <= {(stop,)}
        assert bool(cloud.starts) == (mode != "device-only")
        # This cloud knows no stop tokens, as an older one does not, and is stopped.
        assert (Stop() in cloud.sent) == (mode != "device-only")


def refusal(server: ApiServer, body: dict[str, Any]) -> tuple[int, Any]:
    answer = http.post(f"{server.url}{TEXT}", json={"prompt": "x", **body})
    return answer.status_code, answer.json()["error"]["param"]


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([3, 1 << 20], "stop_token_ids[1]"),
        ([-1], "stop_token_ids[0]"),
        ([2**31], "stop_token_ids[0]"),
        ([True], "stop_token_ids[0]"),
        (3, "stop_token_ids"),
        ([3] * 257, "stop_token_ids"),
    ],
)
def test_stop_tokens_that_cannot_be_are_refused(value: object, param: str) -> None:
    with api_server() as server:
        assert refusal(server, {"stop_token_ids": value}) == (400, param)
        assert refusal(server, {"skip_special_tokens": 1}) == (400, "skip_special_tokens")
