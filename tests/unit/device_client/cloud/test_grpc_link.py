"""The wire on the device's side: conversion, and how the end of a call becomes a typed error."""

from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudTimeout,
    CloudUnavailable,
    ConfigError,
    PdError,
    PromptTooLong,
    ProtocolError,
    QueueFull,
    RequestError,
    TransportError,
)
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Load,
    RefinedPrompt,
    Start,
    Stop,
    TokenLogprobs,
    Tokens,
)
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.convert import (
    error_from_call,
    event_from_pb,
    info_from_pb,
    request_to_pb,
)
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_proto.v1 import generation_pb2 as pb


def test_a_start_keeps_every_field() -> None:
    start = Start(
        request_id="r/1",
        prompt_token_ids=(1, 2, 3),
        token_limit=9,
        sampling=SamplingParams(0.5, 7, 0.25, 2**64 - 1, True, 12, 0.5, 1.25, 9),
        committed_token_ids=(4, 5),
        committed_first_position=2,
        keep_ratio=0.5,
        fingerprints=Fingerprints("t", "c", "w", "n"),
        cache_salt="s",
        useful_for_s=1.5,
        stop_token_ids=(3, 4),
        protected_ranges=((0, 2), (2, 3)),
    )
    message = request_to_pb(start).start
    assert list(message.prompt_token_ids) == [1, 2, 3]
    assert list(message.committed_token_ids) == [4, 5]
    assert (message.committed_first_position, message.token_limit) == (2, 9)
    sampling = message.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 7, 0.25)
    assert (sampling.seed, sampling.ignore_eos, sampling.forced_length) == (2**64 - 1, True, 12)
    dry = (sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length)
    assert dry == (0.5, 1.25, 9)
    assert (message.keep_ratio, message.cache_salt, message.api_version) == (0.5, "s", 1)
    assert message.useful_for_ns == 1_500_000_000
    assert list(message.stop_token_ids) == [3, 4]
    assert [(r.first, r.end) for r in message.protected_ranges] == [(0, 2), (2, 3)]
    prints = message.fingerprints
    assert (prints.tokenizer, prints.chat_template, prints.weights) == ("t", "c", "w")
    assert prints.numerics_id == "n"


@pytest.mark.parametrize(
    ("sampling", "version"),
    [
        (SamplingParams(0.5, 7, 0.25, 3, True, 12, 0.5, 1.25, 9), 1),
        (SamplingParams(min_p=0.1), 2),
        (SamplingParams(repetition_penalty=1.1), 2),
        (SamplingParams(presence_penalty=0.1), 2),
        (SamplingParams(frequency_penalty=-0.1), 2),
        (SamplingParams(logit_bias=((1, 0.0),)), 3),
        (SamplingParams(min_tokens=1), 3),
        (SamplingParams(logprobs=0), 3),
    ],
)
def test_a_start_names_the_oldest_version_that_has_its_parameters(
    sampling: SamplingParams, version: int
) -> None:
    """So an older server serves what it understands, and refuses what it would skip."""
    assert request_to_pb(Start("r", (1,), 1, sampling)).start.api_version == version


def test_what_is_unset_stays_unset() -> None:
    message = request_to_pb(Start("r", (1,), 1)).start
    assert not message.HasField("useful_for_ns")
    assert not message.sampling.HasField("forced_length")


def test_extend_and_stop() -> None:
    assert request_to_pb(Extend(7)).extend.token_limit == 7
    assert request_to_pb(Stop()).WhichOneof("message") == "stop"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            pb.GenerateResponse(
                admitted=pb.Admitted(load=pb.Load(num_running=3, decode_step_ns=5))
            ),
            Admitted(Load(num_running=3, decode_step_s=5e-9)),
        ),
        (
            pb.GenerateResponse(tokens=pb.Tokens(first_position=4, token_ids=[7, 8])),
            Tokens(4, (7, 8)),
        ),
        (
            pb.GenerateResponse(
                tokens=pb.Tokens(
                    first_position=4,
                    token_ids=[7],
                    logprobs=[
                        pb.TokenLogprobs(logprob=-0.5, top_ids=[7, 2], top_logprobs=[-0.5, -1.5])
                    ],
                )
            ),
            Tokens(4, (7,), (TokenLogprobs(-0.5, (7, 2), (-0.5, -1.5)),)),
        ),
        (
            pb.GenerateResponse(
                refined_prompt=pb.RefinedPrompt(kept_ranges=[pb.PositionRange(first=1, end=5)])
            ),
            RefinedPrompt(((1, 5),)),
        ),
        (
            pb.GenerateResponse(
                finished=pb.Finished(
                    reason=pb.FINISH_REASON_EOS,
                    tokens_generated=3,
                    queue_ns=10**9,
                    kv_byte_s=2.5,
                    cached_tokens=64,
                )
            ),
            Finished(FinishReason.STOP, 3, queue_s=1.0, kv_byte_s=2.5, cached_tokens=64),
        ),
    ],
)
def test_events(message: pb.GenerateResponse, event: CloudEvent) -> None:
    assert event_from_pb(message) == event


@pytest.mark.parametrize(
    "message",
    [
        pb.GenerateResponse(),
        pb.GenerateResponse(finished=pb.Finished()),
        pb.GenerateResponse(tokens=pb.Tokens()),
    ],
)
def test_an_unknown_message_is_a_protocol_error(message: pb.GenerateResponse) -> None:
    with pytest.raises(ProtocolError, match=r"unknown"):
        event_from_pb(message)


@pytest.mark.parametrize(
    "logprobs",
    [
        [pb.TokenLogprobs(logprob=-1.0)],
        [pb.TokenLogprobs()] * 3,
        [pb.TokenLogprobs(), pb.TokenLogprobs(top_ids=[1], top_logprobs=[-1.0, -2.0])],
    ],
)
def test_logprobs_that_belong_to_no_token_are_a_protocol_error(
    logprobs: list[pb.TokenLogprobs],
) -> None:
    tokens = pb.Tokens(first_position=0, token_ids=[5, 6], logprobs=logprobs)
    with pytest.raises(ProtocolError, match="do not belong to its tokens"):
        event_from_pb(pb.GenerateResponse(tokens=tokens))


def test_a_card_s_words_are_bounded_and_steer_no_terminal() -> None:
    hostile = "a\x1b]0;title\x07b\x9bc\n" + "x" * 100_000
    card = pb.GetServerInfoResponse(
        model_name=hostile, engine=hostile, server_version=hostile, sampler=hostile
    )
    info = info_from_pb(card)
    model = info.model
    for words in (model.name, model.engine, info.server_version, model.sampler):
        assert words.startswith("a\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}b")
        assert words.isprintable()
        assert len(words) == 1000


def _call_error(code: grpc.StatusCode, reason: str = "", retry_s: int | None = None) -> AioRpcError:
    details = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="pd_device"))
    if retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = retry_s
        details.append(retry)
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(details=packed).SerializeToString()
    trailers = Metadata(("grpc-status-details-bin", status)) if packed else Metadata()
    return AioRpcError(code, Metadata(), trailers, details="words")


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "PromptTooLong", PromptTooLong),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QueueFull", QueueFull),
        (grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated", CloudAuthenticationFailed),
        (grpc.StatusCode.UNAUTHENTICATED, "", CloudAuthenticationFailed),
        (grpc.StatusCode.UNAVAILABLE, "", CloudUnavailable),
        (grpc.StatusCode.UNAVAILABLE, "NoSuchClass", CloudUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", CloudTimeout),
        (grpc.StatusCode.INVALID_ARGUMENT, "", RequestError),
        (grpc.StatusCode.UNIMPLEMENTED, "", RequestError),
        (grpc.StatusCode.UNKNOWN, "", TransportError),
    ],
)
def test_a_call_s_end_is_a_typed_error(
    code: grpc.StatusCode, reason: str, expected: type[PdError]
) -> None:
    error = error_from_call(_call_error(code, reason))
    assert type(error) is expected
    assert "words" in str(error)


@pytest.mark.parametrize(
    ("said", "expected", "mend"),
    [
        ("errors resolving x.invalid:5: [field:hostname lookup error:address lookup failed]",
         CloudUnavailable, "check its spelling"),
        ("SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Tls handshake failed",
         CloudUnavailable, "does not speak TLS on this port"),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED", CloudAuthenticationFailed, "--tls-ca"),
        ("Peer name cloud is not in peer certificate: Hostname Verification Check failed.",
         CloudAuthenticationFailed, "the host name"),
        ("Received http2 header with status: 404", CloudUnavailable, "is no pd-server"),
    ],
)  # fmt: skip
def test_what_the_network_says_is_told_with_its_mend(
    said: str, expected: type[PdError], mend: str
) -> None:
    nothing = grpc.aio.Metadata()
    error = error_from_call(AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, said))
    assert type(error) is expected
    assert mend in str(error)
    assert said in str(error)


def test_a_call_that_ended_before_its_request_was_sent_is_an_unavailable_cloud() -> None:
    nothing = grpc.aio.Metadata()
    raised = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core"
    )
    assert type(error_from_call(raised)) is CloudUnavailable


def test_a_cloud_s_words_do_not_steer_the_terminal() -> None:
    nothing = grpc.aio.Metadata()
    said = "a\x1b]0;title\x07b\r\n\x9b2Jc"
    error = error_from_call(grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, nothing, nothing, said))
    assert "]0;title" in str(error)
    assert str(error).isprintable()


def test_the_retry_delay_is_kept() -> None:
    error = error_from_call(_call_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "QueueFull", 7))
    assert isinstance(error, QueueFull)
    assert error.retry_after_s == 7


@pytest.mark.parametrize("target", ["", "host", "host:", ":1", "host:0", "host:99999", "host:x"])
async def test_a_malformed_address(target: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        GrpcCloudLink(target)


@pytest.mark.parametrize("target", ["example.org:50051", "10.0.0.1:1", "[2001:db8::1]:1"])
async def test_plaintext_never_leaves_this_machine_unasked(target: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        GrpcCloudLink(target)
    await GrpcCloudLink(target, insecure=True).close()


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", "caf\u00e9".encode(), bytes(range(200, 256))]
)
def test_a_file_that_is_no_authority(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="PEM"):
        GrpcCloudLink("127.0.0.1:1", tls_ca=path)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
async def test_a_bundle_may_name_its_authorities_in_any_language(
    encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    pem = trustme.CA().cert_pem.bytes().decode()
    path.write_bytes(f"# Autorit\u00e9 de confiance\n{pem}".encode(encoding))
    await GrpcCloudLink("127.0.0.1:1", tls_ca=path).close()


@pytest.mark.parametrize("key", ["two\nlines", "caf\u00e9 key", " "])
def test_a_key_that_cannot_stand_in_a_header(key: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        GrpcCloudLink("127.0.0.1:1", api_key=key)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.5:1", "[::1]:1"])
async def test_plaintext_on_loopback(target: str) -> None:
    link = GrpcCloudLink(target)
    assert link.target == target
    await link.close()
