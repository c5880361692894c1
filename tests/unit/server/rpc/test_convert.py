"""Every field crosses the wire in its own place, and absent fields get their stated meaning."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import (
    InvalidConstraint,
    InvalidRequest,
    InvalidSamplingParams,
    LinkCorrupted,
    ProtocolError,
)
from pd_core.generation import (
    Admitted,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Limits,
    Load,
    ModelCard,
    RefinedPrompt,
    ServerInfo,
    Start,
    Stop,
    TokenLogprobs,
    Tokens,
)
from pd_core.identity.stream_seal import StreamSeal, start_seal
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.convert import request_to_pb
from pd_proto.v1 import generation_pb2 as pb
from pd_server.rpc.convert import event_to_pb, info_to_pb, request_from_pb

_START = Start("r", (1, 2), 9)
_REGEX = Constraint(ConstraintKind.REGEX, "a")
_LOAD = Load(1, 2, 3, 4, 5.5, 0.006, 7.25, 8.5, 9, 10)


def _round_trip(message: pb.GenerateRequest) -> Start | Extend | Stop:
    return request_from_pb(pb.GenerateRequest.FromString(message.SerializeToString()))


_OTHER_VALUES = SamplingParams(
    temperature=0.5,
    top_k=6,
    top_p=0.7,
    seed=2**64 - 1,
    ignore_eos=True,
    forced_length=8,
    dry_multiplier=0.5,
    dry_base=1.25,
    dry_allowed_length=9,
    min_p=0.125,
    repetition_penalty=1.5,
    presence_penalty=-0.5,
    frequency_penalty=0.75,
    logit_bias=((3, -100.0), (2**32 - 1, 0.125)),
    min_tokens=4,
    late_token_ids=(9, 7),
    logprobs=5,
)
_PLAIN_VALUES: dict[str, Any] = {
    name: value for name, value in asdict(_OTHER_VALUES).items() if value is not None
}
_PLAIN_VALUES["logit_bias"] = dict(_OTHER_VALUES.logit_bias)
_LOGPROBS = _PLAIN_VALUES.pop("logprobs")


def test_a_full_start_keeps_every_field() -> None:
    message = pb.GenerateRequest(
        start=pb.Start(
            logprobs=_LOGPROBS,
            api_version=3,
            request_id="r",
            prompt_token_ids=[1, 2],
            committed_token_ids=[3],
            committed_first_position=4,
            sampling=pb.Sampling(**_PLAIN_VALUES),
            token_limit=9,
            keep_ratio=0.25,
            fingerprints=pb.Fingerprints(
                tokenizer="a", chat_template="b", weights="c", numerics_id="d"
            ),
            cache_salt="salt",
            useful_for_ns=1_500_000_000,
            stop_token_ids=[10, 11],
            protected_ranges=[pb.PositionRange(first=0, end=1)],
        )
    )
    assert _round_trip(message) == Start(
        request_id="r",
        prompt_token_ids=(1, 2),
        token_limit=9,
        sampling=SamplingParams(
            *(0.5, 6, 0.7, 2**64 - 1, True, 8, 0.5, 1.25, 9, 0.125, 1.5, -0.5, 0.75),
            *(((3, -100.0), (2**32 - 1, 0.125)), 4, (9, 7), 5),
        ),
        committed_token_ids=(3,),
        committed_first_position=4,
        keep_ratio=0.25,
        fingerprints=Fingerprints("a", "b", "c", "d"),
        cache_salt="salt",
        useful_for_s=1.5,
        stop_token_ids=(10, 11),
        protected_ranges=((0, 1),),
    )


def test_unset_optional_fields_have_their_stated_defaults() -> None:
    start = _round_trip(pb.GenerateRequest(start=pb.Start(api_version=1)))
    assert isinstance(start, Start)
    assert start.sampling == SamplingParams()
    assert (start.keep_ratio, start.useful_for_s, start.stop_token_ids) == (1.0, None, ())


def test_zero_is_not_unset() -> None:
    start = _round_trip(pb.GenerateRequest(start=pb.Start(api_version=1, useful_for_ns=0)))
    assert isinstance(start, Start)
    assert start.useful_for_s == 0.0
    bad = pb.GenerateRequest(start=pb.Start(api_version=1, sampling=pb.Sampling(top_p=0.0)))
    with pytest.raises(InvalidSamplingParams, match="top_p"):
        _round_trip(bad)


@pytest.mark.parametrize("name", [f.name for f in fields(SamplingParams) if f.name != "constraint"])
def test_every_sampling_parameter_crosses_from_the_device_to_the_server(name: str) -> None:
    value = getattr(_OTHER_VALUES, name)
    assert value != getattr(SamplingParams(), name), "the test must try another value"
    for sampling in (_OTHER_VALUES, replace(SamplingParams(), **{name: value})):
        sent = request_to_pb(Start("r", (1,), 2, sampling))
        start = _round_trip(sent)
        assert isinstance(start, Start)
        assert start.sampling == sampling


@pytest.mark.parametrize("kind", ConstraintKind)
def test_every_kind_of_form_crosses_from_the_device_to_the_server(kind: ConstraintKind) -> None:
    form = Constraint(kind, "" if kind is ConstraintKind.JSON_OBJECT else "größe|[0-9]")
    start = replace(_START, sampling=SamplingParams(constraint=form))
    message = request_to_pb(start)
    assert message.start.api_version == 3
    assert _round_trip(message) == start


def test_a_form_of_an_unknown_kind_or_size_is_refused_by_name() -> None:
    message = request_to_pb(replace(_START, sampling=SamplingParams(constraint=_REGEX)))
    message.start.constraint.kind = 77  # type: ignore[assignment]
    with pytest.raises(InvalidConstraint, match=r"unknown kind \(77\)"):
        _round_trip(message)
    message = request_to_pb(replace(_START, sampling=SamplingParams(constraint=_REGEX)))
    message.start.constraint.source = "a" * 70_000
    with pytest.raises(InvalidConstraint, match="at most 65536"):
        _round_trip(message)
    message.start.constraint.source = "b"
    with pytest.raises(LinkCorrupted):
        _round_trip(message)


def test_extend_stop_and_nothing() -> None:
    assert _round_trip(pb.GenerateRequest(extend=pb.Extend(token_limit=7))) == Extend(7)
    assert _round_trip(pb.GenerateRequest(stop=pb.Stop())) == Stop()
    with pytest.raises(ProtocolError):
        _round_trip(pb.GenerateRequest())


def test_another_version_is_named_before_its_fields_are_read() -> None:
    for version in (0, 4):
        start = pb.Start(api_version=version, sampling=pb.Sampling(temperature=-1))
        with pytest.raises(InvalidRequest, match=f"api_version is {version}; .* versions 1 to 3"):
            _round_trip(pb.GenerateRequest(start=start))


def test_a_start_that_differs_from_its_seal_is_refused() -> None:
    start = Start("r", (1, 2), 9, SamplingParams(temperature=1.0, seed=5))
    message = pb.Start(
        api_version=1,
        request_id="r",
        prompt_token_ids=[1, 2],
        token_limit=9,
        sampling=pb.Sampling(temperature=1.0, seed=5),
        seal=start_seal(start),
    )
    assert _round_trip(pb.GenerateRequest(start=message)) == start
    message.sampling.seed = 4
    with pytest.raises(LinkCorrupted):
        _round_trip(pb.GenerateRequest(start=message))


def test_events() -> None:
    seal, expected = StreamSeal(_START), StreamSeal(_START)
    assert event_to_pb(Admitted(_LOAD), seal).admitted.load == pb.Load(
        num_running=1,
        num_waiting=2,
        max_num_seqs=3,
        queued_prefill_tokens=4,
        prefill_tokens_per_s=5.5,
        decode_step_ns=6_000_000,
        engine_busy_ns=7_250_000_000,
        kv_byte_s=8.5,
        kv_bytes_peak=9,
        tokens_generated=10,
    )
    tokens = Tokens(3, (4, 5), (TokenLogprobs(-0.5, (4, 1), (-0.5, -2.0)), TokenLogprobs(-8.0)))
    assert event_to_pb(tokens, seal).tokens == pb.Tokens(
        first_position=3,
        token_ids=[4, 5],
        seal=expected.after_tokens(tokens),
        logprobs=[
            pb.TokenLogprobs(logprob=-0.5, top_ids=[4, 1], top_logprobs=[-0.5, -2.0]),
            pb.TokenLogprobs(logprob=-8.0),
        ],
    )
    kept = RefinedPrompt(((0, 2), (5, 6)))
    refined = event_to_pb(kept, seal).refined_prompt
    assert [(r.first, r.end) for r in refined.kept_ranges] == [(0, 2), (5, 6)]
    assert refined.seal == expected.after_refined(kept)
    finished = Finished(FinishReason.CANCELLED, 3, 0.1, 0.2, 0.3, 4.5, 64)
    assert event_to_pb(finished, seal).finished == pb.Finished(
        reason=pb.FINISH_REASON_STOPPED,
        tokens_generated=3,
        queue_ns=100_000_000,
        prefill_ns=200_000_000,
        engine_busy_ns=300_000_000,
        kv_byte_s=4.5,
        seal=expected.after_finished(finished),
        cached_tokens=64,
    )


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (FinishReason.STOP, "EOS"),
        (FinishReason.LENGTH, "LIMIT"),
        (FinishReason.CANCELLED, "STOPPED"),
    ],
)
def test_every_reason_of_a_stream_has_its_own_number(reason: FinishReason, name: str) -> None:
    number = event_to_pb(Finished(reason, 0), StreamSeal(_START)).finished.reason
    assert pb.FinishReason.Name(number) == f"FINISH_REASON_{name}"


def test_the_card() -> None:
    info = ServerInfo(
        server_version="1.2",
        model=ModelCard(
            *("m", "torch", Fingerprints("a", "b", "c", "d"), 50, (6, 7), 10, "rolling-hash"),
            grammar_library="g-1",
            logprobs=True,
        ),
        limits=Limits(20, 30, 40),
        load=_LOAD,
    )
    message = info_to_pb(info)
    assert (message.api_version, message.server_version, message.sampler) == (
        3,
        "1.2",
        "rolling-hash",
    )
    assert message.grammar_library == "g-1"
    assert (message.model_name, message.engine) == ("m", "torch")
    assert message.limits == pb.Limits(
        max_context_tokens=10,
        max_output_tokens=20,
        max_num_seqs=30,
        max_num_waiting=40,
        vocab_size=50,
    )
    assert message.fingerprints.numerics_id == "d"
    assert message.load.tokens_generated == 10
    assert list(message.eos_token_ids) == [6, 7]
    assert message.logprobs
