"""Every bad request gets a 4xx that names what is wrong; nothing crashes, nothing is fetched."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, ValidationError

from pd_core.text.chat_template import ChatTemplate
from pd_device_client.api.completions.parameters import (
    CompletionParameters,
    DetokenizeParameters,
)
from pd_device_client.api.http import body as body_module
from pd_device_client.api.http.guard import Access
from pd_device_client.api.settings import AnswerSettings
from tests.api_server import (
    EOS,
    TOKENIZER,
    ApiServer,
    api_server,
    emulated_engine,
    loaded_model,
    scripted_cloud,
)
from tests.http_client import http

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
PROTECTED = [CHAT, TEXT, "/v1/models", "/v1/models/random-tiny", "/version", "/metrics",
             "/tokenize", "/detokenize", "/openapi.json", "/v1/pd/status",
             "/v1/pd/cloud", "/v1/responses", "/v1/responses/x", "/v1/responses/x/input_items",
             "/v1/responses/x/cancel", "/v1/messages", "/v1/messages/count_tokens",
             "/v1/messages/x/cancel", f"{CHAT}/x/cancel", "/v1/embeddings", "/v1/models/x/y",
             "/page/nothing", "/nothing"]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


def post(server: ApiServer, path: str, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(
        f"{server.url}{path}",
        content=content,
        headers={"content-type": "application/json", **headers},
        timeout=60,
    )


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


BAD_CHATS: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "at least 1"),
    ({}, "messages", "missing"),
    ({"messages": "hello"}, "messages", "list"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "missing"),
    ({"messages": [{"role": "bishop", "content": "x"}]}, "messages[0].role", "bishop"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "5"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages", "empty"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "dictionary"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
     "messages[0].content[0].text", "no text"),
    ({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}]}]},
     "messages[0].content[1]", "no address is ever fetched"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
     "messages[0].content[0]", "not supported"),
    ({"messages": HELLO, "chat_template": "{{ 1 }}"}, "chat_template", "not supported"),
    ({"messages": HELLO, "chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs", "not"),
    ({"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format",
     "holds no answer to a form"),  # the engine of this test takes tokens from a hash
    ({"messages": HELLO, "response_format": {"type": "xml"}},
     "response_format.type", "json_schema"),
    ({"messages": HELLO, "response_format": "json"}, "response_format", "json"),
    ({"messages": HELLO, "response_format": {"type": "json_schema"}},
     "response_format.json_schema", "missing"),
    ({"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
     "response_format.json_schema", "missing"),
    ({"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"enum": ["x" * 1000] * 100}}}},
     "response_format.json_schema", "at most 65536"),
    ({"messages": HELLO, "structured_outputs": {}}, "structured_outputs", "exactly one"),
    ({"messages": HELLO, "structured_outputs": {"regex": "a", "choice": ["b"]}},
     "structured_outputs", "exactly one"),
    ({"messages": HELLO, "structured_outputs": {"choice": []}}, "structured_outputs.choice", "1"),
    ({"messages": HELLO, "structured_outputs": {"regex": "a"},
      "response_format": {"type": "json_object"}}, "structured_outputs", "give one"),
    ({"messages": HELLO, "structured_outputs": {"structural_tag": "{}"}},
     "structured_outputs.structural_tag", "None"),
    ({"messages": HELLO, "ignore_eos": True, "structured_outputs": {"regex": "a"}},
     "ignore_eos", "ends where the form"),
    ({"messages": HELLO, "guided_regex": "(a+)+$"}, "guided_regex", "not supported"),
    ({"messages": HELLO, "tools": [{}]}, "tools[0].type", "missing"),
    ({"messages": HELLO, "tool_choice": "required"}, "tools", "no tools"),
    ({"messages": HELLO, "logprobs": 1}, "logprobs", "boolean"),
    ({"messages": HELLO, "top_logprobs": 10**9}, "top_logprobs", "less than or equal to 20"),
    ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
    ({"messages": HELLO, "echo": True}, "echo", "/v1/completions has it"),
    ({"messages": HELLO, "verbosity": "high"}, "verbosity", "not supported"),
    ({"messages": HELLO, "max_completion_tokens": -1}, "max_completion_tokens", "-1"),
    ({"messages": HELLO, "pd": {"mode": "both"}}, "pd.mode", "device-only"),
    ({"messages": HELLO, "pd": {"pace_s": 0}}, "pd.pace_s", "0.001"),
    ({"messages": HELLO, "pd": {"pace_s": 0.1, "reading_wpm": 240}}, "pd.reading_wpm", "two paces"),
    ({"messages": HELLO, "pd": {"reading_wpm": 0}}, "pd.reading_wpm", "greater than or equal to 1"),
    ({"messages": HELLO, "pd": {"reading_wpm": 240, "largest_gap_s": 0.1}}, "pd", "largest gap"),
    ({"messages": HELLO, "pd": {"ttft_s": -1}}, "pd.ttft_s", "-1"),
    ({"messages": HELLO, "pd": 5}, "pd", "5"),
    ({"messages": HELLO, "stream_options": 5}, "stream_options", "5"),
    ({"messages": HELLO, "stream": "yes"}, "stream", "yes"),
]  # fmt: skip

BAD_TEXTS: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, "prompt", "missing"),
    ({"prompt": ""}, "prompt", "at least 1"),
    ({"prompt": []}, "prompt", "at least 1"),
    ({"prompt": "x", "tools": [{}]}, "tools", "not supported"),
    ({"prompt": [[]]}, "prompt[0]", "at least 1"),
    ({"prompt": [1, "x"]}, "prompt[1]", "integer"),
    ({"prompt": [-1]}, "prompt[0]", "-1"),
    ({"prompt": [2**40]}, "prompt[0]", "less than"),
    ({"prompt": [10**6]}, "prompt", "vocabulary"),
    ({"prompt": ["x"] * 9}, "prompt", "at most 8"),
    ({"prompt": ["x"] * 4, "n": 4}, "n", "more than 8 answers"),
    ({"prompt": "x", "n": 10**9}, "n", "less than or equal"),
    ({"prompt": "x", "n": 0}, "n", "0"),
    ({"prompt": "x", "max_tokens": -1}, "max_tokens", "-1"),
    ({"prompt": "x", "max_tokens": 0}, "max_tokens", "0"),
    ({"prompt": "x", "max_tokens": 2**63}, "max_tokens", "less than or equal"),
    ({"prompt": "x", "max_tokens": True}, "max_tokens", "integer"),
    ({"prompt": "x", "max_tokens": "5"}, "max_tokens", "integer"),
    ({"prompt": "x", "max_tokens": 4096}, "prompt", "context of 4096"),
    (
        {"prompt": [1] * 5000},
        "prompt",
        "5000 tokens do not fit the local model's context of 4096, which",
    ),
    ({"prompt": [1] * 5000, "max_tokens": 9}, "prompt", "shorten the prompt"),
    ({"prompt": "x", "temperature": 1e9}, "temperature", "10"),
    ({"prompt": "x", "temperature": -0.1}, "temperature", "-0.1"),
    ({"prompt": "x", "top_p": -0.1}, "top_p", "greater than or equal to 0"),
    ({"prompt": "x", "top_p": 2}, "top_p", "less than or equal to 1"),
    ({"prompt": "x", "top_k": -2}, "top_k", "-2"),
    ({"prompt": "x", "dry_base": 0.5}, "dry_base", "0.5"),
    ({"prompt": "x", "seed": 2**64}, "seed", "less than"),
    ({"prompt": "x", "seed": 1.5}, "seed", "1.5"),
    ({"prompt": "x", "stop": ["a"] * 10_000}, "stop", "at most 16"),
    ({"prompt": "x", "stop": ""}, "stop", "at least 1"),
    ({"prompt": "x", "stop": ["a", ""]}, "stop[1]", "at least 1"),
    ({"prompt": "x", "stop": "y" * 1000}, "stop", "at most 256"),
    ({"prompt": "x", "logprobs": 10**9}, "logprobs", "less than or equal to 20"),
    ({"prompt": "x", "logprobs": True}, "logprobs", "integer"),
    ({"prompt": "x", "top_logprobs": 2}, "top_logprobs", "here it is logprobs: N"),
    ({"prompt": "x", "prompt_logprobs": 10**9}, "prompt_logprobs", "less than or equal to 20"),
    ({"prompt": "x", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "leave out stream"),
    ({"prompt": "x", "echo": 1}, "echo", "boolean"),
    ({"prompt": "x", "min_tokens": -1}, "min_tokens", "-1"),
    ({"prompt": "x", "min_tokens": 9, "max_tokens": 8}, "min_tokens", "lower min_tokens"),
    (
        {"prompt": "x", "min_tokens": 9, "response_format": {"type": "json_object"}},
        "min_tokens",
        "does not go with a form",
    ),
    ({"prompt": "x", "min_tokens": 9, "stop": "y"}, "min_tokens", "stop_token_ids"),
    ({"prompt": "x", "cache_salt": "y" * 257}, "cache_salt", "at most 256"),
    ({"prompt": "x", "suffix": "y"}, "suffix", "not supported"),
    ({"prompt": "x", "best_of": 5}, "best_of", "n gives several answers"),
    ({"prompt": "x", "logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
    ({"prompt": "x", "logit_bias": {"x": 1}}, "logit_bias.x", "match"),
    ({"prompt": "x", "logit_bias": {"999999": 1}}, "logit_bias.999999", "ids of this model"),
    ({"prompt": "x", "logit_bias": [5]}, "logit_bias", "dictionary"),
    ({"prompt": "x", "logit_bias": {str(i): 0 for i in range(2000)}}, "logit_bias", "at most 1024"),
    ({"prompt": "x", "bad_words": ["y"]}, "bad_words", "not supported"),
    ({"prompt": "x", "allowed_token_ids": [1]}, "allowed_token_ids", "not supported"),
    ({"prompt": "x", "use_beam_search": True}, "use_beam_search", "not supported"),
    ({"prompt": "x", "frequency_penalty": 2.5}, "frequency_penalty", "equal to 2"),
    ({"prompt": "x", "presence_penalty": -3}, "presence_penalty", "equal to -2"),
    ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty", "equal to 0.01"),
    ({"prompt": "x", "min_p": 1.5}, "min_p", "equal to 1"),
    ({"prompt": "x", "typical_p": 0.9}, "typical_p", "not supported"),
    ({"prompt": "x", "repeat_penalty": 1.1}, "repeat_penalty", "not supported"),
    ({"prompt": "x", "mirostat": 2}, "mirostat", "not supported"),
    ({"prompt": "x", "skip_special_tokens": "no"}, "skip_special_tokens", "no"),
    ({"prompt": "x", "stop_token_ids": [5, "6"]}, "stop_token_ids[1]", "6"),
    ({"prompt": "x", "stop_token_ids": [1, 5000]}, "stop_token_ids[1]", "5000"),
    ({"prompt": "x", "stop_token_ids": [1] * 1000}, "stop_token_ids", "at most 256"),
    ({"prompt": "x", "model": 5}, "model", "5"),
    ({"prompt": "caf\udce9"}, "prompt", ""),
]


@pytest.mark.parametrize(
    ("path", "case"), [(CHAT, c) for c in BAD_CHATS] + [(TEXT, c) for c in BAD_TEXTS]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_parameter_is_a_400_that_names_it(
    server: ApiServer, path: str, case: tuple[dict[str, Any], str | None, str], stream: bool
) -> None:
    body, param, words = case
    answer = post(server, path, {"stream": stream, **body} if "stream" not in body else body)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] == param, error
    assert words in error["message"]
    assert len(error["message"]) < 400
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be an object"),
        (b'"x"', "must be an object"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b'{"prompt": "caf\xe9"}', "not valid UTF-8"),
        (b'{"prompt": "x", "temperature": NaN}', "NaN is not a number"),
        (b'{"prompt": "x", "temperature": Infinity}', "Infinity is not a number"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "x", "prompt": "y"}', "'prompt' stands twice"),
        (b'{"prompt": "x", "seed": ' + b"9" * 10_000 + b"}", "too long"),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"a": ' * 100_000, "too deeply"),
    ],
)
def test_a_body_that_is_no_sound_json_is_a_400(
    server: ApiServer, content: bytes, words: str
) -> None:
    answer = post(server, TEXT, content)
    assert answer.status_code == 400, answer.text
    assert words in error_of(answer)["message"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_above_the_cloud_s_is_named_as_it_was_given(name: str) -> None:
    with api_server(cloud=scripted_cloud()) as server:
        body = {"messages": HELLO, name: 4097, "pd": {"mode": "cloud-only"}}
        error = error_of(post(server, CHAT, body))
    assert error["param"] == name
    assert error["message"].startswith(f"{name}: an answer of 4097 tokens is asked for")


def test_half_a_surrogate_pair_in_a_message_is_named(server: ApiServer) -> None:
    for content in ('"\\ud800"', '[{"type": "text", "text": "\\ud800"}]'):
        body = b'{"messages": [{"role": "user", "content": %s}]}' % content.encode()
        answer = post(server, CHAT, body)
        assert answer.status_code == 400, answer.text
        assert (error_of(answer)["param"] or "").startswith("messages")


def test_nul_and_all_of_unicode_are_text(server: ApiServer) -> None:
    text = "a\0b\u200d\N{GRINNING FACE}\U0010ffff"
    done = post(server, "/tokenize", {"prompt": text})
    assert done.status_code == 200
    back = post(server, "/detokenize", {"tokens": done.json()["tokens"]})
    assert back.json() == {"prompt": text}
    answer = post(server, TEXT, {"prompt": text, "max_tokens": 3, "stop": ["\0\0"]})
    assert answer.status_code == 200


def test_a_character_made_of_several_tokens_never_shows_in_halves(server: ApiServer) -> None:
    seen = 0
    for seed in range(40):
        body = {"prompt": "x", "max_tokens": 40, "seed": seed, "ignore_eos": True}
        whole = post(server, TEXT, body).json()["choices"][0]["text"]
        events = post(server, TEXT, {**body, "stream": True}).text.split("\n\n")
        chunks = [json.loads(e[6:]) for e in events if e.startswith("data: {")]
        texts = [c["choices"][0]["text"] for c in chunks]
        assert "".join(texts) == whole
        seen += "\ufffd" in whole
    assert seen, "no answer held half a character, so nothing was tested"


@pytest.mark.parametrize(
    "host",
    ["evil/?", "x/#", "evil.example", "127.0.0.1.evil.example", "", "localhost:99999999", "a b",
     "localhost@evil", "[::1", "127.0.0.1/"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/health"])
def test_a_host_that_is_not_this_machine_is_refused(
    server: ApiServer, host: str, path: str
) -> None:
    assert raw(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").startswith("HTTP/1.1 400")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "127.9.9.9", "[::1]:8",
                                  "LOCALHOST"])  # fmt: skip
def test_the_names_of_this_machine_are_taken(server: ApiServer, host: str) -> None:
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"
    assert raw(server, request).startswith("HTTP/1.1 200")


def test_no_host_and_two_hosts_are_refused(server: ApiServer) -> None:
    assert raw(server, "GET /v1/models HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 400")
    twice = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert raw(server, twice).startswith("HTTP/1.1 400")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://{address}", "http://localhost:1", "x"]
)
def test_a_page_of_another_origin_is_refused(server: ApiServer, origin: str) -> None:
    headers = {"origin": origin.format(address=server.address)}
    answer = http.get(f"{server.url}/v1/models", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert error_of(answer)["type"] == "permission_error"
    # What a browser asks first is refused as well.
    assert http.options(f"{server.url}{CHAT}", headers=headers).status_code == 403


def test_its_own_page_and_an_allowed_origin_may_ask(server: ApiServer) -> None:
    own = http.get(f"{server.url}/v1/models", headers={"origin": server.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
    access = Access(origins=frozenset({"http://app.example:1"}), hosts=frozenset({"my.lan"}))
    with api_server(access=access) as other:
        headers = {"origin": "http://app.example:1", "host": "my.lan:80"}
        assert http.get(f"{other.url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("key", [None, "Bearer", "Bearer wrong", "Basic right", "Bearer r\xefght",
                                 "Bearer " + "x" * 60_000, "Bearer right2"])  # fmt: skip
def test_all_but_health_and_the_page_need_the_key(key: str | None) -> None:
    with api_server(access=Access(key="right")) as server:
        headers = [] if key is None else [(b"authorization", key.encode("latin-1"))]
        for path in PROTECTED:
            for method in ("GET", "POST"):
                answer = http.request(method, f"{server.url}{path}", headers=headers)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert error_of(answer)["code"] == "invalid_api_key"
        for path in ("/health", "/", "/page/main.js"):
            assert http.get(f"{server.url}{path}", headers=headers).status_code == 200
        right = {"authorization": "bearer right"}
        assert http.get(f"{server.url}/v1/models", headers=right).status_code == 200


@pytest.mark.parametrize(
    "given", ["a\tb", "http://169.254.169.254/x", "x" * 10_000, "", "a.b", "a b"]
)
def test_a_request_id_that_is_no_plain_word_is_replaced(server: ApiServer, given: str) -> None:
    answer = http.get(f"{server.url}/health", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def test_a_plain_request_id_comes_back_on_errors_too(server: ApiServer) -> None:
    for path in ("/health", "/nothing"):
        answer = http.get(f"{server.url}{path}", headers={"x-request-id": "abc-123_Z"})
        assert answer.headers["x-request-id"] == "abc-123_Z"


def test_bodies_are_bounded(server: ApiServer) -> None:
    large = b'{"prompt": "' + b"x" * body_module.MAX_BODY_BYTES + b'"}'
    answer = post(server, TEXT, large)
    assert answer.status_code == 413
    assert error_of(answer)["type"] == "invalid_request_error"

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(large), 1 << 20):
            yield large[at : at + (1 << 20)]

    try:
        headers = {"content-type": "application/json"}
        chunked = http.post(f"{server.url}{TEXT}", content=chunks(), headers=headers)
        assert chunked.status_code == 413
    except httpx.WriteError:
        pass  # refused before all was sent
    request = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    said = raw(server, f"{request}Content-Length: 99999999999999999999999\r\n\r\n")
    assert said.startswith(("HTTP/1.1 413", "HTTP/1.1 400"))


def test_a_key_that_stands_twice_among_very_many_is_found_at_once(server: ApiServer) -> None:
    body = "{" + "".join(f'"{i}":0,' for i in range(200_000)) + '"z":1,"z":2}'
    assert "'z' stands twice" in error_of(post(server, CHAT, body.encode()))["message"]


def test_others_are_served_while_a_prompt_far_too_long_is_read(server: ApiServer) -> None:
    shares = list[float]()
    for _ in range(3):
        waited_s = list[float]()
        with ThreadPoolExecutor(1) as pool:
            began_s = time.perf_counter()
            refused = pool.submit(post, server, TEXT, {"prompt": "a b " * 400_000})
            while not refused.done():
                asked_s = time.perf_counter()
                assert http.get(f"{server.url}/health", timeout=60).status_code == 200
                waited_s.append(time.perf_counter() - asked_s)
            took_s = time.perf_counter() - began_s
        assert "do not fit" in error_of(refused.result())["message"]
        shares.append(max(waited_s) / took_s)
    assert min(shares) < 1 / 2, "in none of three, where a busy machine may spoil one"


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [
        (CompletionParameters, "prompt", -1),
        (CompletionParameters, "prompt", [-1]),
        (CompletionParameters, "prompt", {}),
        (DetokenizeParameters, "tokens", "x"),
    ],
)
def test_of_many_bad_items_only_the_first_is_complained_of(
    kind: type[BaseModel], name: str, bad: object
) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"messages": HELLO, name: [bad] * 10_000})
    assert caught.value.error_count() <= 8


def test_a_body_that_trickles_is_given_up(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = dict(body_module.read_body.__kwdefaults__ or {})
    monkeypatch.setattr(body_module.read_body, "__kwdefaults__", {**kept, "time_limit_s": 0.3})
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    began = time.monotonic()
    with socket.create_connection(server.address.split(":")) as connection:  # type: ignore[arg-type]
        connection.sendall(head.encode())
        connection.settimeout(0.05)
        said = b""
        while time.monotonic() - began < 60 and not said:
            connection.sendall(b" ")
            try:
                said = connection.recv(100)
            except TimeoutError:
                continue
    assert said.startswith(b"HTTP/1.1 408")


def test_a_compressed_or_other_body_is_not_read(server: ApiServer) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"x" * 10_000_000 + b'"}')
    assert post(server, TEXT, bomb, **{"content-encoding": "gzip"}).status_code == 415
    answer = post(server, TEXT, {"prompt": "x"}, **{"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in error_of(answer)["message"]


def test_a_template_that_never_ends_or_grows_is_a_400_and_others_are_served_meanwhile() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with api_server(loaded=loaded_model(ChatTemplate(endless, time_limit_s=0.5))) as server:
        answer = post(server, CHAT, {"messages": HELLO})
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] == "messages"
    assert "chat template" in error["message"]


def test_methods_and_paths_that_are_not_there(server: ApiServer) -> None:
    assert http.get(f"{server.url}/nothing").status_code == 404
    wrong = http.get(f"{server.url}{CHAT}")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert error_of(wrong)["code"] == "method_not_allowed"
    assert post(server, "/v1/files", {"input": "x"}).status_code == 404


def test_an_error_shows_nothing_of_the_program(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the program")

    monkeypatch.setattr(type(server.device.client), "session", broken)
    for stream in (False, True):
        answer = post(server, TEXT, {"prompt": "x", "stream": stream})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert error_of(answer)["type"] == "server_error"


def test_neither_prompts_nor_answers_are_in_metrics_or_logs(
    server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    body = {"prompt": "a very private prompt", "max_tokens": 20, "ignore_eos": True}
    answer = post(server, TEXT, body)
    text = http.get(f"{server.url}/metrics").text
    assert answer.status_code == 200
    assert "pd_ttft_seconds_count" in text
    words = answer.json()["choices"][0]["text"].split()
    longest = max(words, key=len)
    assert len(longest) > 4
    for said in (text, caplog.text):
        assert "private" not in said
        assert longest not in said


@pytest.mark.heavy
def test_a_random_walk_over_the_schema_finds_no_crash() -> None:
    # Any text is a sound input of a response, so answers are kept short.
    short = emulated_engine(max_context_tokens=256)
    with api_server(settings=AnswerSettings(max_tokens=8), engine=short) as server:
        met = _walked(server)
    assert met > 200


def _walked(server: ApiServer) -> int:
    """Try every operation with what its schema allows; return the number of answers."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    met = 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def walk(case: Any) -> None:
            nonlocal met
            answer = case.call(timeout=60)
            assert answer.status_code < 500, answer.text
            met += 1

        walk()
    return met


def raw(server: ApiServer, request: str) -> str:
    """Send bytes as they are; return what comes back first."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request.encode("latin-1"))
        return connection.recv(1000).decode("latin-1")


def test_the_tokenizer_s_own_prefix_counts_as_in_a_prompt(server: ApiServer) -> None:
    done = post(server, "/tokenize", {"prompt": "hello"}).json()
    assert done == {
        "count": len(TOKENIZER.encode_prompt("hello")),
        "max_model_len": 16384,
        "tokens": TOKENIZER.encode_prompt("hello"),
    }
    chat = post(server, "/tokenize", {"messages": HELLO}).json()
    assert chat["tokens"] == done["tokens"]
    assert post(server, "/tokenize", {}).status_code == 400


def test_special_tokens_are_left_out_where_the_request_says_so(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TOKENIZER, "prefix_ids", (EOS,))  # as a beginning of sequence
    bare = TOKENIZER.encode("hello")
    without = {"add_special_tokens": False}
    assert post(server, "/tokenize", {"prompt": "hello"} | without).json()["tokens"] == bare
    assert post(server, "/tokenize", {"messages": HELLO} | without).json()["tokens"] == bare
    for path, asked in (
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/completions", {"prompt": ["hello"]}),
        ("/v1/chat/completions", {"messages": HELLO}),
    ):
        for said, num_tokens in ((without, len(bare)), ({}, len(bare) + 1)):
            done = post(server, path, asked | said | {"max_tokens": 1}).json()
            assert done["usage"]["prompt_tokens"] == num_tokens, path


@pytest.mark.parametrize(("path", "body"), [(CHAT, {"messages": HELLO}), (TEXT, {"prompt": " "})])
def test_a_text_of_which_the_tokenizer_leaves_nothing_is_an_empty_prompt(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    monkeypatch.setattr(TOKENIZER, "encode", lambda _: [])
    done = post(server, path, body)
    assert (done.status_code, done.json()["error"]["param"]) == (400, next(iter(body)))


def test_a_chat_of_empty_texts_is_answered_if_its_template_makes_tokens() -> None:
    template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    with api_server(loaded=loaded_model(template)) as server:
        for messages in ([{"role": "user", "content": ""}], [{"role": "user", "content": []}]):
            done = post(server, CHAT, {"messages": messages, "max_tokens": 1})
            assert done.status_code == 200, done.text
            assert done.json()["usage"]["prompt_tokens"] == len(TOKENIZER.encode("<user>"))


def test_detokenize_bounds_its_ids(server: ApiServer) -> None:
    assert post(server, "/detokenize", {"tokens": [10**6]}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/tokenize", '{"prompt": "\\ud800"}', "prompt"),
        ("POST", "/tokenize", '{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages"),
        ("POST", "/detokenize", '{"tokens": [1000000]}', "tokens"),
        ("GET", "/v1/pd/status?fresh=maybe", "", "fresh"),
    ],
)
def test_the_small_endpoints_name_what_is_wrong_too(
    server: ApiServer, method: str, path: str, body: str, param: str
) -> None:
    headers = {"Content-Type": "application/json"}
    done = http.request(method, f"{server.url}{path}", content=body, headers=headers)
    assert done.status_code == 400
    assert done.json()["error"]["param"] == param
