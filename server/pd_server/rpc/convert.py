"""Converts between wire messages and plain values; only this module of the server knows both."""

from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint, InvalidRequest, LinkCorrupted, ProtocolError
from pd_core.generation import (
    API_VERSION,
    OLDEST_API_VERSION,
    Admitted,
    CloudEvent,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Load,
    RefinedPrompt,
    ServerInfo,
    Start,
    Stop,
    Tokens,
)
from pd_core.identity.stream_seal import StreamSeal, start_seal
from pd_core.sampling_params import SamplingParams
from pd_proto.v1 import generation_pb2 as pb

__all__ = ["event_to_pb", "info_to_pb", "request_from_pb"]

_NS_PER_S = 1_000_000_000

_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_EOS,
    FinishReason.LENGTH: pb.FINISH_REASON_LIMIT,
    FinishReason.CANCELLED: pb.FINISH_REASON_STOPPED,
}
_KINDS = {
    pb.CONSTRAINT_KIND_JSON_OBJECT: ConstraintKind.JSON_OBJECT,
    pb.CONSTRAINT_KIND_JSON_SCHEMA: ConstraintKind.JSON_SCHEMA,
    pb.CONSTRAINT_KIND_REGEX: ConstraintKind.REGEX,
    pb.CONSTRAINT_KIND_LARK: ConstraintKind.LARK,
}


def request_from_pb(message: pb.GenerateRequest) -> Start | Extend | Stop:
    """Return the value of a client's message.

    Raises:
        ProtocolError: the message holds nothing that this version knows.
        InvalidRequest: a Start of an API version not spoken here; nothing else in it is read.
        InvalidSamplingParams: a sampling value is out of its range.
        InvalidConstraint: the form is of an unknown kind, or too large.
        LinkCorrupted: a Start differs from what its seal was made of.
    """
    match message.WhichOneof("message"):
        case "start":
            return _start_from_pb(message.start)
        case "extend":
            return Extend(message.extend.token_limit)
        case "stop":
            return Stop()
        case _:
            raise ProtocolError("a message holds neither Start, Extend nor Stop; send one of them")


def event_to_pb(event: CloudEvent, seal: StreamSeal) -> pb.GenerateResponse:
    """Return the message of a server's event.

    Args:
        event: the stream's next event.
        seal: the stream's, after the events before; goes on with this one.
    """
    match event:
        case Admitted():
            return pb.GenerateResponse(admitted=pb.Admitted(load=_load_to_pb(event.load)))
        case RefinedPrompt():
            ranges = [pb.PositionRange(first=first, end=end) for first, end in event.kept_ranges]
            return pb.GenerateResponse(
                refined_prompt=pb.RefinedPrompt(kept_ranges=ranges, seal=seal.after_refined(event))
            )
        case Tokens():
            return pb.GenerateResponse(
                tokens=pb.Tokens(
                    first_position=event.first_position,
                    token_ids=event.token_ids,
                    seal=seal.after_tokens(event),
                    logprobs=[
                        pb.TokenLogprobs(
                            logprob=one.logprob,
                            top_ids=one.top_ids,
                            top_logprobs=one.top_logprobs,
                        )
                        for one in event.logprobs
                    ],
                )
            )
        case Finished():
            return pb.GenerateResponse(
                finished=pb.Finished(
                    reason=_REASONS[event.reason],
                    tokens_generated=event.tokens_generated,
                    queue_ns=_ns(event.queue_s),
                    prefill_ns=_ns(event.prefill_s),
                    engine_busy_ns=_ns(event.engine_busy_s),
                    kv_byte_s=event.kv_byte_s,
                    seal=seal.after_finished(event),
                    cached_tokens=event.cached_tokens,
                )
            )


def info_to_pb(info: ServerInfo) -> pb.GetServerInfoResponse:
    """Return the message of a server's card."""
    model, prints, limits = info.model, info.model.fingerprints, info.limits
    return pb.GetServerInfoResponse(
        api_version=info.api_version,
        server_version=info.server_version,
        model_name=model.name,
        engine=model.engine,
        fingerprints=pb.Fingerprints(
            tokenizer=prints.tokenizer,
            chat_template=prints.chat_template,
            weights=prints.weights,
            numerics_id=prints.numerics_id,
        ),
        limits=pb.Limits(
            max_context_tokens=model.max_context_tokens,
            max_output_tokens=limits.max_output_tokens,
            max_num_seqs=limits.max_num_seqs,
            max_num_waiting=limits.max_num_waiting,
            vocab_size=model.vocab_size,
        ),
        load=_load_to_pb(info.load),
        sampler=model.sampler,
        eos_token_ids=model.eos_token_ids,
        sealed=info.sealed,
        grammar_library=model.grammar_library,
        logprobs=model.logprobs,
    )


def _start_from_pb(start: pb.Start) -> Start:
    if not OLDEST_API_VERSION <= start.api_version <= API_VERSION:
        raise InvalidRequest(
            f"api_version is {start.api_version}; this server speaks versions "
            f"{OLDEST_API_VERSION} to {API_VERSION}: use a client of one of them, or another server"
        )
    value = Start(
        request_id=start.request_id,
        prompt_token_ids=tuple(start.prompt_token_ids),
        token_limit=start.token_limit,
        sampling=_sampling_from_pb(
            start.sampling,
            _constraint_from_pb(start),
            start.logprobs if start.HasField("logprobs") else None,
        ),
        committed_token_ids=tuple(start.committed_token_ids),
        committed_first_position=start.committed_first_position,
        keep_ratio=start.keep_ratio if start.HasField("keep_ratio") else 1.0,
        fingerprints=Fingerprints(
            tokenizer=start.fingerprints.tokenizer,
            chat_template=start.fingerprints.chat_template,
            weights=start.fingerprints.weights,
            numerics_id=start.fingerprints.numerics_id,
        ),
        cache_salt=start.cache_salt,
        useful_for_s=(start.useful_for_ns / _NS_PER_S if start.HasField("useful_for_ns") else None),
        stop_token_ids=tuple(start.stop_token_ids),
        protected_ranges=tuple((r.first, r.end) for r in start.protected_ranges),
    )
    if start.HasField("seal") and start.seal != start_seal(value):
        raise LinkCorrupted(
            "the request did not arrive as it was sent; send it again, and use TLS if this goes on"
        )
    return value


def _load_to_pb(load: Load) -> pb.Load:
    return pb.Load(
        num_running=load.num_running,
        num_waiting=load.num_waiting,
        max_num_seqs=load.max_num_seqs,
        queued_prefill_tokens=load.queued_prefill_tokens,
        prefill_tokens_per_s=load.prefill_tokens_per_s,
        decode_step_ns=_ns(load.decode_step_s),
        engine_busy_ns=_ns(load.engine_busy_s),
        kv_byte_s=load.kv_byte_s,
        kv_bytes_peak=load.kv_bytes_peak,
        tokens_generated=load.tokens_generated,
    )


def _ns(seconds: float) -> int:
    return round(seconds * _NS_PER_S)


def _constraint_from_pb(start: pb.Start) -> Constraint | None:
    if not start.HasField("constraint"):
        return None
    kind = start.constraint.kind
    if kind not in _KINDS:
        raise InvalidConstraint(
            f"the form asked for is of an unknown kind ({kind}); this server knows "
            f"{', '.join(_KINDS.values())}"
        )
    return Constraint(_KINDS[kind], start.constraint.source)


def _sampling_from_pb(
    sampling: pb.Sampling, constraint: Constraint | None, logprobs: int | None
) -> SamplingParams:
    unset = SamplingParams()
    length, penalty = sampling.dry_allowed_length, sampling.repetition_penalty
    return SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p if sampling.HasField("top_p") else unset.top_p,
        seed=sampling.seed,
        ignore_eos=sampling.ignore_eos,
        forced_length=sampling.forced_length if sampling.HasField("forced_length") else None,
        dry_multiplier=sampling.dry_multiplier,
        dry_base=sampling.dry_base if sampling.HasField("dry_base") else unset.dry_base,
        dry_allowed_length=(
            length if sampling.HasField("dry_allowed_length") else unset.dry_allowed_length
        ),
        min_p=sampling.min_p,
        repetition_penalty=(
            penalty if sampling.HasField("repetition_penalty") else unset.repetition_penalty
        ),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=tuple(sorted(sampling.logit_bias.items())),
        min_tokens=sampling.min_tokens,
        late_token_ids=tuple(sampling.late_token_ids),
        logprobs=logprobs,
        constraint=constraint,
    )
