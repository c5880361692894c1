"""What the routes that only tokenise take in is bounded, like a prompt."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from pd_core.text.tokenizer import Tokenizer
from tests.api_server import ROLES, TOKENIZER, ApiServer, api_server, loaded_model
from tests.http_client import http

CONTEXT_TOKENS = 4096  # of the emulated engine
LONG = "a b " * 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server(loaded=loaded_model(ROLES)) as running:
        yield running


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of each text and of each list of ids that is given to the tokenizer."""
    lengths = list[int]()
    for name in ("encode", "decode"):
        work = getattr(Tokenizer, name)

        def counted(self: Tokenizer, given: Any, work: Any = work) -> Any:
            lengths.append(len(given))
            return work(self, given)

        monkeypatch.setattr(Tokenizer, name, counted)
    return lengths


def post(server: ApiServer, path: str, body: object) -> httpx.Response:
    return http.post(f"{server.url}{path}", json=body, timeout=60)


@pytest.mark.parametrize(
    ("path", "param", "value"),
    [
        ("/tokenize", "prompt", LONG),
        ("/tokenize", "messages", [{"role": "user", "content": LONG[:3_000_000]}]),
        ("/detokenize", "tokens", [65] * 1_000_000),
    ],
)
def test_what_fits_no_context_is_refused_before_the_whole_of_it_is_worked_on(
    server: ApiServer, made: list[int], path: str, param: str, value: Any
) -> None:
    refused = post(server, path, {param: value})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == (param, "context_length_exceeded")
    assert sum(made) < 100_000


def test_a_text_a_little_too_long_is_counted_and_comes_back(server: ApiServer) -> None:
    text = "x = 1; " * 2000
    done = post(server, "/tokenize", {"prompt": text}).json()
    assert done["count"] == len(done["tokens"]) > CONTEXT_TOKENS
    back = post(server, "/detokenize", {"tokens": done["tokens"]})
    assert back.json() == {"prompt": text}
    empty = post(server, "/tokenize", {"prompt": ""}).json()
    assert empty["tokens"] == list(TOKENIZER.prefix_ids)


def test_large_texts_are_tokenised_one_at_a_time(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, together = threading.Semaphore(1), list[str]()

    def encode(_: Tokenizer, text: str) -> list[int]:
        alone = busy.acquire(blocking=False)
        time.sleep(0.02)
        if alone:
            busy.release()
        else:
            together.append(text[:9])
        return [1]

    monkeypatch.setattr(Tokenizer, "encode", encode)  # so few tokens that the text would fit
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(post, server, "/tokenize", {"prompt": LONG}) for _ in range(4)]
        assert [each.result().status_code for each in asked] == [200] * 4
    assert not together
