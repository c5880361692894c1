"""The link to an OpenAI-compatible server, against a scripted one over real HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from pd_core.checkpoints.random_tiny import EOS_TOKEN, random_tiny_tokenizer
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudUnavailable,
    FingerprintMismatch,
    InvalidRequest,
    PdError,
    ProtocolError,
    QueueFull,
    RequestError,
)
from pd_core.generation import (
    Admitted,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    ModelCard,
    Start,
    Stop,
    Tokens,
)
from pd_core.needs import sampling_needs
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.client_certificate import ClientCertificate
from pd_device_client.cloud.openai.endpoint import Endpoint
from pd_device_client.cloud.openai.openai_link import OpenAiCloudLink
from tests.held_port import held_port
from tests.openai_server import OpenAiServer, Script, openai_server

TOKENIZER = random_tiny_tokenizer()
_eos = TOKENIZER.token_id(EOS_TOKEN)
assert _eos is not None
EOS = _eos
PROMPT = tuple(TOKENIZER.encode("What is the licence of this text?"))
TEXT = "It grants each reader the right to copy it, na\u00efve \U0001f44d as that is.\nAnd so on."
ANSWER = TOKENIZER.encode(TEXT)
CARD = ModelCard(
    name="tiny",
    engine="torch",
    fingerprints=Fingerprints(tokenizer="digest", weights="w"),
    vocab_size=TOKENIZER.vocab_size,
    eos_token_ids=(EOS,),
    max_context_tokens=512,
)
CHAT = ({"role": "user", "content": "What is the licence?"},)


@asynccontextmanager
async def linked(
    script: Script | None = None, answer: list[int] | None = None, **address: Any
) -> AsyncIterator[tuple[OpenAiServer, OpenAiCloudLink]]:
    said = ANSWER if answer is None else answer
    async with openai_server(TOKENIZER, len(PROMPT), said, script) as server:
        link = OpenAiCloudLink(CloudAddress(server.url, **address))
        link.use_model(CARD, TOKENIZER)
        try:
            yield server, link
        finally:
            await link.close()


def start(limit: int = 10, committed: int = 0, **more: Any) -> Start:
    return Start("r", PROMPT, limit, committed_token_ids=tuple(ANSWER[:committed]), **more)


async def stream(link: OpenAiCloudLink, asked: Start) -> tuple[list[int], Finished]:
    """Read a whole stream; positions must follow each other."""
    opened = await link.open(asked)
    ids: list[int] = []
    async with asyncio.timeout(20):
        async for event in opened.events():
            match event:
                case Tokens(first_position, token_ids):
                    assert first_position == asked.first_position + len(ids)
                    ids += token_ids
                case Finished():
                    return ids, event
                case _:
                    assert isinstance(event, Admitted)
                    assert not ids
    raise AssertionError("no Finished came")


async def failure(link: OpenAiCloudLink, asked: Start) -> tuple[list[int], PdError]:
    """Read a stream up to its error."""
    opened = await link.open(asked)
    ids: list[int] = []
    try:
        async with asyncio.timeout(20):
            async for event in opened.events():
                if isinstance(event, Tokens):
                    ids += event.token_ids
    except PdError as error:
        return ids, error
    raise AssertionError("no error came")


KINDS = ["vllm", "llama-server"]


@pytest.mark.parametrize("kind", KINDS)
async def test_token_ids_go_both_ways_up_to_the_limit(kind: str) -> None:
    async with linked(Script(kind)) as (server, link):
        ids, end = await stream(link, start(7))
        assert ids == ANSWER[:7]
        assert (end.reason, end.tokens_generated) == (FinishReason.LENGTH, 7)
        assert server.asked[0]["prompt"] == list(PROMPT)
        assert server.asked[0]["max_tokens" if kind == "vllm" else "n_predict"] == 7


@pytest.mark.parametrize("kind", KINDS)
async def test_a_continuation_is_a_request_with_the_committed_prefix(kind: str) -> None:
    async with linked(Script(kind)) as (server, link):
        ids, _ = await stream(link, start(9, committed=4))
        assert ids == ANSWER[4:9]
        assert server.asked[0]["prompt"] == [*PROMPT, *ANSWER[:4]]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_is_the_stream_s_last_token(kind: str) -> None:
    async with linked(Script(kind), [*ANSWER[:5], EOS]) as (_, link):
        ids, end = await stream(link, start(30))
        assert ids == [*ANSWER[:5], EOS]
        assert end.reason is FinishReason.STOP


async def test_an_end_that_the_server_keeps_to_itself_is_added() -> None:
    async with linked(Script(), ANSWER[:5]) as (_, link):
        ids, end = await stream(link, start(30))
        assert ids == [*ANSWER[:5], EOS]
        assert end.reason is FinishReason.STOP


async def test_extend_is_a_second_request_in_the_same_stream() -> None:
    async with linked(Script(step_s=0.01)) as (server, link):
        opened = await link.open(start(4))
        ids: list[int] = []
        async for event in opened.events():
            if isinstance(event, Tokens):
                ids += event.token_ids
                if len(ids) == 2:
                    await opened.send(Extend(9))
        assert ids == ANSWER[:9]
        assert server.asked[1]["prompt"] == [*PROMPT, *ANSWER[:4]]


async def test_stop_closes_the_connection_and_the_server_stops() -> None:
    async with linked(Script(step_s=0.02)) as (server, link):
        opened = await link.open(start(len(ANSWER)))
        ids: list[int] = []
        end = None
        async for event in opened.events():
            if isinstance(event, Tokens):
                ids += event.token_ids
                if len(ids) == 3:
                    await opened.send(Stop())
            end = event
        assert isinstance(end, Finished)
        assert end.reason is FinishReason.CANCELLED
        async with asyncio.timeout(5):
            await server.left.wait()
        assert server.made < len(ANSWER)


async def test_a_cancelled_stream_ends_with_an_error() -> None:
    async with linked(Script(stall_after=2)) as (_, link):
        opened = await link.open(start())
        events = opened.events()
        assert isinstance(await anext(events), Admitted)
        assert isinstance(await anext(events), Tokens)
        opened.cancel()
        with pytest.raises(CloudUnavailable, match="closed"):
            [event async for event in events]


async def test_the_card_says_what_was_found() -> None:
    async with linked() as (server, link):
        info = await link.info()
        assert (info.model.name, info.model.engine) == ("tiny", "vllm")
        assert info.model.max_context_tokens == 512
        assert info.model.eos_token_ids == (EOS,)
        assert info.model.fingerprints.tokenizer == "digest"
        assert info.exactness == "consistent"
        assert not info.sealed
        assert "token ids both ways" in info.abilities
        asked = len(server.paths)
        await link.info()
        assert len(server.paths) == asked + 1  # what it is was asked once


async def test_a_tokenizer_that_cannot_be_asked_is_said_to_be_so() -> None:
    async with linked(Script(tokenizes=False)) as (_, link):
        info = await link.info()
        assert info.model.fingerprints.tokenizer == ""
        assert any("could not be asked" in words for words in info.abilities)


async def test_with_another_tokenizer_text_goes_both_ways() -> None:
    async with linked(Script(tokenize_as=lambda ids: ids[::-1])) as (server, link):
        assert (await link.info()).exactness == "text"
        ids, _ = await stream(link, start(500, messages=CHAT))
        assert TOKENIZER.decode(ids[:-1]) == TEXT
        assert "prompt" not in server.asked[0]


async def test_sampling_parameters_are_named_for_the_server() -> None:
    sampling = SamplingParams(0.7, top_k=5, top_p=0.9, seed=2**64 - 1, min_p=0.1)
    for kind, names in (
        ("vllm", {"top_k": 5, "top_p": 0.9, "min_p": 0.1, "temperature": 0.7}),
        ("llama-server", {"top_k": 5, "repeat_penalty": 1.0, "min_p": 0.1, "repeat_last_n": -1}),
    ):
        async with linked(Script(kind)) as (server, link):
            await stream(link, start(3, sampling=sampling))
            await stream(link, start(5, committed=3, sampling=sampling))
            assert server.asked[0].items() >= names.items()
            first, second = (asked["seed"] for asked in server.asked)
            assert first != second  # a continuation draws no noise again
            assert 0 <= first < 2**63


async def test_masked_ends_are_masked_there_too() -> None:
    async with linked() as (server, link):
        await stream(link, start(3, sampling=SamplingParams(ignore_eos=True)))
        assert server.asked[0]["logit_bias"] == {str(EOS): -100.0}
        assert server.asked[0]["stop_token_ids"] == []


async def test_a_forced_length_ends_there() -> None:
    async with linked() as (server, link):
        ids, end = await stream(link, start(20, sampling=SamplingParams(forced_length=6)))
        assert ids == [*ANSWER[:5], EOS]
        assert end.reason is FinishReason.STOP
        assert server.asked[0]["max_tokens"] == 5


async def test_a_rule_that_the_server_does_not_know_is_refused() -> None:
    form = Constraint(ConstraintKind.REGEX, "[a-z]+")
    async with linked() as (server, link):
        assert sampling_needs(SamplingParams(constraint=form)) <= (await link.info()).lacks
        for asked in (
            start(sampling=SamplingParams(constraint=form)),
            start(sampling=SamplingParams(dry_multiplier=0.8)),
            start(committed=2, sampling=SamplingParams(presence_penalty=0.5)),
        ):
            ids, error = await failure(link, asked)
            assert ids == []
            assert type(error) is RequestError
        assert server.asked == []


# Bad clouds


async def test_a_cloud_that_ignores_max_tokens_is_cut_at_the_limit() -> None:
    async with linked(Script(overrun=8, step_s=0.01)) as (server, link):
        ids, end = await stream(link, start(5))
        assert ids == ANSWER[:5]
        assert end.reason is FinishReason.LENGTH
        async with asyncio.timeout(5):
            await server.left.wait()


def _other(ids: list[int]) -> list[int]:
    return [EOS + 1 + (i + 7) % (TOKENIZER.vocab_size - EOS - 1) for i in ids]


def _textless(ids: list[int]) -> list[int]:
    """Special tokens, which have no text."""
    return [next(i for i in TOKENIZER.special_tokens if i != EOS) for _ in ids]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Script(ids_of=_other), "not those of its text"),
        (Script(ids_of=_textless), "not those of its text"),
        (Script(ids_of=lambda ids: [2000 + i for i in ids]), "ids lie below"),
        (Script(ids_of=lambda ids: [-1 for _ in ids]), "token ids are none"),
        (Script(ids_of=lambda ids: [str(i) for i in ids]), "token ids are none"),
        (Script(ids_of=lambda ids: [True for _ in ids]), "token ids are none"),
        (Script(no_ids=True), "without its token ids"),
        (Script("llama-server", ids_of=_other), "not those of its text"),
        (Script(cut_after=0, cut_with=b"data: [1]\n\n"), "no JSON object"),
        (Script(cut_after=0, cut_with=b'data: {"choices": 3}\n\n'), "no choices"),
    ],
)
async def test_no_wrong_token_is_given(bad: Script, words: str) -> None:
    async with linked(bad) as (_, link):
        ids, error = await failure(link, start())
        assert ids == []
        assert isinstance(error, ProtocolError)
        assert words in str(error)


async def test_ids_without_text_are_not_believed_for_long() -> None:
    async with linked(Script(text_of=lambda _: "")) as (_, link):
        ids, error = await failure(link, start(len(ANSWER)))
        assert ids == []
        assert isinstance(error, ProtocolError)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Script(cut_after=3, cut_with=b'data: {"choices": [{"te'), "in the middle of an event"),
        (Script(cut_after=3), "before the answer did"),
        (Script(error_after=(3, {"message": "out of memory", "code": 500})), "out of memory"),
    ],
)
async def test_a_stream_that_breaks_keeps_what_came(bad: Script, words: str) -> None:
    async with linked(bad) as (_, link):
        ids, error = await failure(link, start())
        assert ids == ANSWER[:3]
        assert isinstance(error, CloudUnavailable)
        assert words in str(error)


async def test_a_busy_cloud_says_when_to_ask_again() -> None:
    busy = Script(refuse=lambda n: (429, {"retry-after": "7"}) if n == 1 else None)
    async with linked(busy) as (_, link):
        _, error = await failure(link, start())
        assert isinstance(error, QueueFull)
        assert error.retry_after_s == 7.0
        assert (await stream(link, start(4)))[0] == ANSWER[:4]


async def test_a_refused_key_is_not_shown() -> None:
    script = Script(refuse=lambda _: (401, {}))
    async with linked(script, api_key="sk-secret") as (server, link):
        _, error = await failure(link, start())
        assert isinstance(error, CloudAuthenticationFailed)
        assert "sk-secret" not in str(error)
        assert server.headers[-1]["authorization"] == "Bearer sk-secret"


async def test_a_model_that_changes_within_a_stream_is_not_used() -> None:
    async with linked(Script(says=lambda n: "other" if n == 2 else None)) as (server, link):
        assert (await stream(link, start(3)))[0] == ANSWER[:3]
        ids, error = await failure(link, start(9, committed=3))
        assert ids == []
        assert isinstance(error, FingerprintMismatch)
        before = len(server.paths)
        await link.info()  # and the server is looked at again
        assert "/tokenize" in server.paths[before:]


async def test_a_model_that_changes_between_answers_is_noticed() -> None:
    async with linked() as (server, link):
        assert (await link.info()).model.name == "tiny"
        server.script.model = "large"
        server.script.tokenize_as = lambda ids: ids[::-1]
        info = await link.info()
        assert (info.model.name, info.exactness) == ("large", "text")


async def test_a_model_that_is_named_need_not_be_listed() -> None:
    async with linked(Script(says=lambda _: "absent"), model="absent") as (server, link):
        await link.info()
        assert (await stream(link, start(3)))[0] == ANSWER[:3]
        assert server.asked[0]["model"] == "absent"


async def test_something_that_is_no_such_server_is_named_so() -> None:
    async with linked(Script()) as (server, _):
        link = OpenAiCloudLink(CloudAddress(f"http://127.0.0.1:{server.port}/elsewhere"))
        with pytest.raises(RequestError, match="no such route"):
            await link.info()
        await link.close()


# Text


async def test_a_chat_service_gets_the_messages_and_its_text_becomes_tokens() -> None:
    async with linked(Script("chat")) as (server, link):
        info = await link.info()
        assert info.exactness == "text"
        ids, end = await stream(link, start(500, messages=CHAT))
        assert TOKENIZER.decode(ids[:-1]) == TEXT
        assert ids[:-1] == ANSWER
        assert ids[-1] == EOS
        assert end.reason is FinishReason.STOP
        assert server.asked[0]["messages"] == list(CHAT)


@pytest.mark.parametrize("pieces", [1, 2, 5, 17, 400])
async def test_tokens_do_not_depend_on_how_text_is_cut(pieces: int) -> None:
    async with linked(Script("chat", pieces=pieces)) as (_, link):
        ids, _ = await stream(link, start(500, messages=CHAT))
        assert ids == [*ANSWER, EOS]


async def test_the_limit_counts_this_device_s_tokens() -> None:
    async with linked(Script("chat", pieces=40)) as (_, link):
        ids, end = await stream(link, start(6, messages=CHAT))
        assert ids == ANSWER[:6]
        assert end.reason is FinishReason.LENGTH


async def test_an_ollama_continues_its_text_and_an_unknown_service_refuses() -> None:
    async with linked(Script("ollama")) as (server, link):
        ids, _ = await stream(link, start(500, committed=5, messages=CHAT))
        assert TOKENIZER.decode([*ANSWER[:5], *ids[:-1]]) == TEXT
        said = server.asked[0]["messages"][-1]
        assert said == {"role": "assistant", "content": TOKENIZER.decode(ANSWER[:5])}
    async with linked(Script("chat")) as (_, link):
        _, error = await failure(link, start(20, committed=5, messages=CHAT))
        assert type(error) is RequestError
        assert "cannot continue" in str(error)


async def test_a_plain_prompt_is_nothing_for_a_chat_service() -> None:
    async with linked(Script("chat")) as (server, link):
        _, error = await failure(link, start())
        assert type(error) is RequestError
        assert "functions" in str(error)
        assert server.asked == []


async def test_a_filter_that_ends_an_answer_is_an_error() -> None:
    async with linked(Script("chat", finish="content_filter")) as (_, link):
        _, error = await failure(link, start(500, messages=CHAT))
        assert type(error) is RequestError
        assert "content_filter" in str(error)


async def test_a_server_that_breaks_an_answer_off_has_failed() -> None:
    async with linked(Script("vllm", finish="abort"), ANSWER[:4]) as (_, link):
        ids, error = await failure(link, start(30))
        assert ids == ANSWER[:3]
        assert isinstance(error, CloudUnavailable)


async def test_without_a_model_here_ids_pass_unchecked() -> None:
    async with openai_server(TOKENIZER, len(PROMPT), ANSWER) as server:
        link = OpenAiCloudLink(CloudAddress(server.url))
        assert (await link.info()).exactness == "consistent"
        assert (await stream(link, start(5)))[0] == ANSWER[:5]
        await link.close()


async def test_several_models_ask_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as (_, link):
        several = {"data": [{"id": "a"}, {"id": "b"}]}

        async def get(_: str) -> Any:
            return several

        monkeypatch.setattr(link._endpoint, "get", get)
        with pytest.raises(InvalidRequest, match=r"a, b; name one with --cloud-model"):
            await link.info()


# The way there


def _authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return an authority's file and the TLS of a server on this machine that it vouches for."""
    authority = trustme.CA()
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return path, tls


async def test_an_authority_of_one_s_own_is_trusted_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path, tls = _authority(tmp_path)
    other, _ = _authority(tmp_path / "other")
    async with openai_server(TOKENIZER, len(PROMPT), ANSWER, tls=tls) as server:
        link = OpenAiCloudLink(CloudAddress(server.url, tls_ca=path))
        link.use_model(CARD, TOKENIZER)
        assert (await stream(link, start(5)))[0] == ANSWER[:5]
        await link.close()
        for wrong in (CloudAddress(server.url, tls_ca=other), CloudAddress(server.url)):
            link = OpenAiCloudLink(wrong)
            with pytest.raises(CloudAuthenticationFailed, match="--tls-ca"):
                await link.info()
            await link.close()
        assert server.asked[1:] == []


def _certified(authority: trustme.CA, folder: Path, name: str) -> ClientCertificate:
    pair = authority.issue_cert(common_name=name)
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(str(key))
    return ClientCertificate(cert, key)


async def test_a_server_that_asks_for_a_certificate_gets_this_device_s(tmp_path: Path) -> None:
    path, tls = _authority(tmp_path)
    clients = trustme.CA()
    clients.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    known = _certified(clients, tmp_path, "device")
    foreign = _certified(trustme.CA(), tmp_path, "stranger")
    async with openai_server(TOKENIZER, len(PROMPT), ANSWER, tls=tls) as server:
        link = OpenAiCloudLink(CloudAddress(server.url, tls_ca=path, client=known))
        link.use_model(CARD, TOKENIZER)
        assert (await stream(link, start(5)))[0] == ANSWER[:5]
        await link.close()
        for wrong in (None, foreign):
            link = OpenAiCloudLink(CloudAddress(server.url, tls_ca=path, client=wrong))
            with pytest.raises(CloudUnavailable, match="--tls-client-cert"):
                await link.info()
            await link.close()


async def test_tls_to_a_plain_server_is_named() -> None:
    async with openai_server(TOKENIZER, len(PROMPT), ANSWER) as server:
        link = OpenAiCloudLink(CloudAddress(server.url.replace("http:", "https:")))
        with pytest.raises(CloudUnavailable, match="does not speak TLS"):
            await link.info()
        await link.close()


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy in the environment that refuses every connection; its address."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with held_port() as port:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:s3cret@127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


@pytest.mark.usefixtures("dead_proxy")
async def test_no_proxy_comes_between_two_processes_of_one_machine() -> None:
    async with linked() as (_, link):
        assert (await link.info()).model.name == "tiny"


@pytest.mark.parametrize("url", ["http://192.0.2.1/v1", "https://192.0.2.1/v1"])
async def test_a_proxy_on_the_way_to_another_machine_is_named(dead_proxy: str, url: str) -> None:
    link = OpenAiCloudLink(CloudAddress(url, insecure=True))
    with pytest.raises(CloudUnavailable) as failed:
        await link.info()
    await link.close()
    assert f"sends it through the proxy {dead_proxy}" in str(failed.value)
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_that_knows_no_head_is_there_all_the_same(status: int) -> None:
    async with answering(status) as url:
        endpoint = Endpoint(url)
        await endpoint.touch("models")
        await endpoint.close()


async def test_a_server_that_fails_is_not_there() -> None:
    async with answering(502) as url:
        endpoint = Endpoint(url)
        with pytest.raises(CloudUnavailable, match="502"):
            await endpoint.touch("models")
        await endpoint.close()


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[str]:
    """A server that answers everything with one status and no body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
