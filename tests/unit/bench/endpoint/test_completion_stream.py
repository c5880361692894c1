"""Server-sent events of a completion, as servers really send them, and an endpoint's records."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.endpoint.client import Endpoint, endpoint_record
from pd_bench.endpoint.completion_stream import CompletionChunk, completion_chunks
from pd_bench.endpoint.http_pool import text_lines
from pd_bench.endpoint.prompt_words import words_of
from pd_bench.endpoint.settings import EndpointSettings
from pd_bench.replay.dispatch import Dispatcher
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord, output_sha256
from pd_core.errors import (
    CloudTimeout,
    CloudUnavailable,
    ConfigError,
    InvalidRequest,
    PdError,
    ProtocolError,
    QueueFull,
)
from pd_device_client.contract.ask import Ask
from tests.sse_script import ScriptedHttp, event

TRACE = Path("t.csv")


NONSENSE = (
    7,
    {"choices": "x"},
    {"choices": {"text": "x"}},
    {"choices": [1]},
    {"choices": [{"text": 5}]},
    {"choices": [{"text": "x", "finish_reason": 5}]},
    {"choices": [{"token_ids": 5}]},
    {"choices": [{"token_ids": ["x"]}]},
    {"choices": [{"token_ids": [True]}]},
    {"choices": [{"token_ids": [-1]}]},
    {"choices": [{"token_ids": [2**31]}]},
    {"choices": [], "usage": "x"},
    {"choices": [], "usage": {"completion_tokens": "3"}},
    {"choices": [], "usage": {"completion_tokens": -3}},
    {"choices": [], "usage": {"completion_tokens": 1e99}},
)
"""Events that are JSON, and no completion."""


async def lines_of(*lines: str) -> AsyncIterator[str]:
    for line in lines:
        yield line


async def chunks(*lines: str) -> list[CompletionChunk]:
    return [chunk async for chunk in completion_chunks(lines_of(*lines))]


async def test_events_comments_and_usage() -> None:
    got = await chunks(
        ": keep-alive",
        "",
        'data: {"choices": [{"text": "a", "token_ids": [5, 6]}]}',
        "",
        'data:{"choices": [{"text": "b",',
        'data: "finish_reason": "length"}]}',
        "",
        'data: {"choices": [], "usage": {"completion_tokens": 3, "prompt_tokens": 9}}',
        "",
        "data: [DONE]",
        "",
        "data: what comes after is not read",
    )
    assert got == [
        CompletionChunk("a", (5, 6)),
        CompletionChunk("b", None, "length"),
        CompletionChunk(output_tokens=3, prompt_tokens=9),
    ]
    assert [chunk.adds for chunk in got] == [True, True, False]


async def test_a_last_event_without_an_empty_line_counts() -> None:
    assert await chunks('data: {"choices": [{"text": "a", "finish_reason": "stop"}]}') == [
        CompletionChunk("a", None, "stop")
    ]


@pytest.mark.parametrize(
    ("lines", "error", "why"),
    [
        (('data: {"choices": [{"text": "a"}]}', ""), CloudUnavailable, "no .DONE. came"),
        ((), CloudUnavailable, "no .DONE. came"),
        (("data: {", ""), PdError, "is no JSON"),
        (("data: [1]", ""), PdError, "is no completion"),
        (('data: {"error": {"message": "x", "code": 429}}', ""), QueueFull, "reported: x"),
        (('data: {"error": {"message": "x", "code": 400}}', ""), InvalidRequest, "reported: x"),
        (('data: {"error": {"message": "x", "code": 500}}', ""), CloudUnavailable, "reported: x"),
        (('data: {"error": "it broke"}', ""), CloudUnavailable, "it broke"),
        (("data: " + "[" * 100_000, ""), PdError, "is no JSON"),
        *(
            (("data: " + json.dumps(nonsense), ""), ProtocolError, "no compl")
            for nonsense in NONSENSE
        ),
    ],
)
async def test_an_answer_that_breaks_is_an_error(
    lines: tuple[str, ...], error: type[PdError], why: str
) -> None:
    with pytest.raises(error, match=why):
        await chunks(*lines)


def settings(**changes: object) -> EndpointSettings:
    given: dict[str, object] = {"url": "http://localhost:1", "model": "m", "pace_s": 0.1}
    return EndpointSettings(trace=TRACE, **(given | changes))  # type: ignore[arg-type]


def replay(script: ScriptedHttp, *works: Work, **changes: object) -> list[RequestRecord]:
    """Run rows against a scripted server, on a virtual clock."""

    async def main() -> list[RequestRecord]:
        endpoint = Endpoint(settings(**changes), script)
        dispatcher = Dispatcher(
            "endpoint",
            0,
            lambda w: Ask(str(w.id), w.prompt_token_ids, w.output_tokens),
            timeout_s=30.0,
            make_record=endpoint_record,
        )
        await dispatcher.run_open_loop(works, lambda _: endpoint)
        await endpoint.close_pool()
        return sorted(dispatcher.records, key=lambda r: r.id)

    return run_virtual(main())


def work(index: int, output_tokens: int, arrival_s: float = 0.0) -> Work:
    return Work(index, index + 2, arrival_s, (300, 301, 302), output_tokens)


def test_scripted_arrivals_give_the_hand_computed_figures_exactly() -> None:
    script = ScriptedHttp(
        [
            (0.25, event(token_ids=[7], text="a")),
            (0.0625, event(token_ids=[8], text="b")),
            (0.5, event(token_ids=[9], text="c")),
            (0.125, event(token_ids=[10], text="d", finish_reason="length")),
            (1.0, event(usage=4) + b"data: [DONE]\n\n"),
        ]
    )
    (record,) = replay(script, work(0, 4, arrival_s=2.5))
    assert record.error is None
    # Binary fractions, so that nothing is rounded: the virtual clock counts from 1000 s.
    assert record.ttft_s == 0.25
    assert record.shown_at_s == (0.25, 0.3125, 0.8125, 0.9375)
    assert record.gaps_s == [0.0625, 0.5, 0.125]
    assert record.largest_gap_s == 0.5
    assert record.tpot_s == (0.9375 - 0.25) / 3
    assert record.e2e_s == 0.9375
    assert record.output_sha256 == output_sha256([7, 8, 9, 10])
    assert (record.cloud_tokens, record.device_tokens, record.arrival_s) == (4, 0, 2.5)
    body = script.bodies[0]
    assert body["prompt"] == [300, 301, 302]
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (4, True, True)


def test_a_chunk_of_several_named_tokens_is_several_tokens_of_one_instant() -> None:
    script = ScriptedHttp(
        [
            (0.25, event(token_ids=[7, 8], text="ab")),
            (0.5, event(token_ids=[9], text="c", finish_reason="length") + b"data: [DONE]\n\n"),
        ]
    )
    (record,) = replay(script, work(0, 3))
    assert record.error is None
    assert record.gaps_s == [0.0, 0.5]
    assert record.tpot_s == 0.25


def test_unnamed_tokens_are_counted_by_the_server_and_never_spread() -> None:
    script = ScriptedHttp(
        [
            (0.25, event(text="ab ")),
            (0.5, event(text="cd", finish_reason="length")),
            (0.0, event(usage=5) + b"data: [DONE]\n\n"),
        ]
    )
    (record,) = replay(script, work(0, 5), prompts="text", plain=True)
    assert record.error is None
    assert record.gaps_s == [0.5]
    assert record.tpot_s == 0.5 / 4
    assert record.cloud_tokens == 5
    assert record.notes == (
        "chunks of several tokens: gaps are between chunks, TPOT by the reported count",
    )
    body = script.bodies[0]
    assert body["prompt"] == words_of((300, 301, 302))
    assert "ignore_eos" not in body
    # The same text in other chunks is the same answer.
    other = ScriptedHttp(
        [(0.1, event(text="ab cd", finish_reason="length") + event(usage=5) + b"data: [DONE]\n\n")]
    )
    (again,) = replay(other, work(0, 5), prompts="text")
    assert again.output_sha256 == record.output_sha256


def test_a_request_does_not_wait_for_the_one_before_it() -> None:
    script = ScriptedHttp(
        [(2.0, event(token_ids=[1], finish_reason="length") + b"data: [DONE]\n\n")]
    )
    records = replay(script, work(0, 1), work(1, 1, 0.5), work(2, 1, 0.5))
    assert [r.ttft_s for r in records] == [2.0, 2.0, 2.0]
    assert [r.arrival_s for r in records] == [0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("steps", "status", "why"),
    [
        ([(0.1, event(token_ids=[1], finish_reason="stop") + b"data: [DONE]\n\n")], 200,
         "has 1 tokens instead of 3 .finish_reason 'stop': does the server know ignore_eos"),
        ([(0.1, event(token_ids=[1]))], 200, "CloudUnavailable: the stream ended before"),
        ([(0.1, b'{"error": {"message": "no room"}}')], 429, "QueueFull: .*429.*no room"),
        ([(0.1, b"")], 401, "CloudAuthenticationFailed: .*401.*--api-key-file"),
        ([(0.1, b'{"detail": "unknown field"}')], 400, "InvalidRequest: .*--endpoint-plain"),
        ([(0.1, b"")], 500, "CloudUnavailable: .*500"),
        ([(99.0, b"")], 200, "TimeoutError: no end within 30 s"),
    ],
)  # fmt: skip
def test_every_failed_answer_is_a_failed_request(
    steps: list[tuple[float, bytes]], status: int, why: str
) -> None:
    (record,) = replay(ScriptedHttp(steps, status), work(0, 3))
    assert record.error is not None
    assert re.search(why, record.error)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_fails_its_request_and_disturbs_no_other(nonsense: object) -> None:
    data = f"data: {json.dumps(nonsense)}\n\ndata: [DONE]\n\n".encode()
    records = replay(ScriptedHttp([(0.1, data)]), work(0, 3), work(1, 3))
    assert [(r.error or "").partition(":")[0] for r in records] == ["ProtocolError"] * 2


async def test_lines_come_whole_however_the_parts_are_cut() -> None:
    text = "data: é\r\n\r\n: x\ndata: end"

    async def parts(size: int) -> AsyncIterator[bytes]:
        data = text.encode()
        for first in range(0, len(data), size):
            yield data[first : first + size]

    for size in range(1, 30):
        got = [line async for line in text_lines(parts(size))]
        assert got == ["data: é", "", ": x", "data: end"]


async def test_an_endless_line_is_refused() -> None:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    with pytest.raises(ProtocolError, match="a line of more than"):
        async for _ in text_lines(parts()):
            pass


def models(*names: str) -> ScriptedHttp:
    return ScriptedHttp([(0.0, json.dumps({"data": [{"id": n} for n in names]}).encode())])


async def test_the_only_model_needs_no_name() -> None:
    assert await Endpoint(settings(model=None), models("one")).model() == "one"
    assert await Endpoint(settings(model="x"), models()).model() == "x"
    with pytest.raises(ConfigError, match="these models: a, b; name one with --model"):
        await Endpoint(settings(model=None), models("a", "b")).model()
    with pytest.raises(CloudUnavailable, match="name a model with --model"):
        await Endpoint(settings(model=None), ScriptedHttp([(0.0, b"no JSON")])).model()
    deep = ScriptedHttp([(0.0, b"[" * 100_000)])
    with pytest.raises(CloudUnavailable, match="name a model with --model"):
        await Endpoint(settings(model=None), deep).model()
    endless = ScriptedHttp([(0.0, b"x" * (1 << 20))] * 5)
    with pytest.raises(CloudUnavailable, match="a body of more than"):
        await Endpoint(settings(model=None), endless).model()


def test_a_server_that_never_names_its_models_is_given_up() -> None:
    silent = Endpoint(settings(model=None, timeout_s=3.0), ScriptedHttp([(1e6, b"")]))
    with pytest.raises(CloudTimeout, match="gave no answer within 3 s; name a model"):
        run_virtual(silent.model())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"url": "localhost:8000"}, "such as http://localhost:8000/v1"),
        ({"url": "ftp://localhost"}, "such as http://localhost:8000/v1"),
        ({"url": "http://example.org/v1"}, "plaintext beyond this machine"),
        ({"prompts": "poems"}, "unknown prompts 'poems'; known: ids, text"),
        ({"pace_s": 0.0}, "--pace is 0"),
        ({"timeout_s": float("inf")}, "--timeout is inf"),
        ({"repeat": 0}, "--repeat is 0"),
        ({"max_prompt_tokens": -3}, "--max-prompt-tokens is -3"),
        ({"temperature": float("nan")}, "--temperature is nan"),
    ],
)
def test_wrong_endpoint_settings_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings(**changes)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://example.org/api/v1/completions", "https://example.org/api/v1"),
    ],
)
def test_the_address_may_be_short(url: str, base: str) -> None:
    assert settings(url=url).base_url == base
    assert settings(url="http://example.org", insecure=True).base_url == "http://example.org/v1"
