"""The device's side of the wire: the only place that converts to and from pb2 messages."""

import re

from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import (
    CapacityError,
    CloudAuthenticationFailed,
    CloudTimeout,
    CloudUnavailable,
    PdError,
    ProtocolError,
    RequestError,
    TransportError,
    Unauthenticated,
    error_class,
)
from pd_core.generation import (
    Admitted,
    CloudEvent,
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
    needed_api_version,
)
from pd_core.identity.stream_seal import start_seal
from pd_core.sampling_params import SamplingParams
from pd_proto.v1 import generation_pb2 as pb

__all__ = ["error_from_call", "event_from_pb", "info_from_pb", "request_to_pb"]

_NS = 1_000_000_000
# Removed from another machine's text before terminals and logs show it.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_MAX_WORDS = 1000  # characters

# grpc's error when a call ends while a message is being sent; the call's own status is lost.
_CLOSED_BEFORE_SENT = "Internal error from Core"
_NO_ADDRESS = re.compile("[Nn]ame resolution|errors resolving|lookup failed")
_NO_TLS = "WRONG_VERSION_NUMBER"
_NO_GRPC = re.compile("http2 header with status|Trying to connect an http1.x server")
_UNTRUSTED = re.compile("CERTIFICATE_VERIFY_FAILED|[Hh]andshak|[Hh]ostname|peer name")

_FINISH_REASONS = {
    pb.FINISH_REASON_EOS: FinishReason.STOP,
    pb.FINISH_REASON_LIMIT: FinishReason.LENGTH,
    pb.FINISH_REASON_STOPPED: FinishReason.CANCELLED,
}
_KINDS = {
    ConstraintKind.JSON_OBJECT: pb.CONSTRAINT_KIND_JSON_OBJECT,
    ConstraintKind.JSON_SCHEMA: pb.CONSTRAINT_KIND_JSON_SCHEMA,
    ConstraintKind.REGEX: pb.CONSTRAINT_KIND_REGEX,
    ConstraintKind.LARK: pb.CONSTRAINT_KIND_LARK,
}


def request_to_pb(message: Start | Extend | Stop) -> pb.GenerateRequest:
    """Convert what the device sends."""
    match message:
        case Start():
            return pb.GenerateRequest(start=_start_to_pb(message))
        case Extend(token_limit):
            return pb.GenerateRequest(extend=pb.Extend(token_limit=token_limit))
        case Stop():
            return pb.GenerateRequest(stop=pb.Stop())


def _start_to_pb(start: Start) -> pb.Start:
    useful_for_s = start.useful_for_s
    return pb.Start(
        api_version=needed_api_version(start.sampling),
        request_id=start.request_id,
        prompt_token_ids=start.prompt_token_ids,
        committed_token_ids=start.committed_token_ids,
        committed_first_position=start.committed_first_position,
        sampling=_sampling_to_pb(start.sampling),
        token_limit=start.token_limit,
        keep_ratio=start.keep_ratio,
        fingerprints=pb.Fingerprints(
            tokenizer=start.fingerprints.tokenizer,
            chat_template=start.fingerprints.chat_template,
            weights=start.fingerprints.weights,
            numerics_id=start.fingerprints.numerics_id,
        ),
        cache_salt=start.cache_salt,
        useful_for_ns=None if useful_for_s is None else round(useful_for_s * _NS),
        stop_token_ids=start.stop_token_ids,
        seal=start_seal(start),
        protected_ranges=[
            pb.PositionRange(first=first, end=end) for first, end in start.protected_ranges
        ],
        logprobs=start.sampling.logprobs,
        constraint=_constraint_to_pb(start.sampling.constraint),
    )


def _constraint_to_pb(constraint: Constraint | None) -> pb.Constraint | None:
    if constraint is None:
        return None
    return pb.Constraint(kind=_KINDS[constraint.kind], source=constraint.source)


def _sampling_to_pb(sampling: SamplingParams) -> pb.Sampling:
    return pb.Sampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
        ignore_eos=sampling.ignore_eos,
        forced_length=sampling.forced_length,
        dry_multiplier=sampling.dry_multiplier,
        dry_base=sampling.dry_base,
        dry_allowed_length=sampling.dry_allowed_length,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=dict(sampling.logit_bias),
        min_tokens=sampling.min_tokens,
        late_token_ids=sampling.late_token_ids,
    )


def event_from_pb(message: pb.GenerateResponse) -> CloudEvent:
    """Convert what the cloud sends.

    Raises:
        ProtocolError: the message is empty, has no tokens, is of an unknown kind, or has other
            numbers of logprobs than of tokens.
    """
    match message.WhichOneof("message"):
        case "admitted":
            return Admitted(_load_from_pb(message.admitted.load))
        case "refined_prompt":
            ranges = message.refined_prompt.kept_ranges
            return RefinedPrompt(tuple((r.first, r.end) for r in ranges))
        case "tokens" if message.tokens.token_ids:
            return _tokens_from_pb(message.tokens)
        case "finished":
            return _finished_from_pb(message.finished)
        case _:
            raise ProtocolError("the cloud sent an empty message, or one of an unknown kind")


def _tokens_from_pb(message: pb.Tokens) -> Tokens:
    token_ids = tuple(message.token_ids)
    if not message.logprobs:
        return Tokens(message.first_position, token_ids)
    logprobs = tuple(
        TokenLogprobs(one.logprob, tuple(one.top_ids), tuple(one.top_logprobs))
        for one in message.logprobs
    )
    if len(logprobs) != len(token_ids) or any(
        len(one.top_ids) != len(one.top_logprobs) for one in logprobs
    ):
        raise ProtocolError("the cloud sent logprobs that do not belong to its tokens")
    return Tokens(message.first_position, token_ids, logprobs)


def _finished_from_pb(message: pb.Finished) -> Finished:
    if message.reason not in _FINISH_REASONS:
        raise ProtocolError(f"the cloud finished for an unknown reason ({message.reason})")
    return Finished(
        reason=_FINISH_REASONS[message.reason],
        tokens_generated=message.tokens_generated,
        queue_s=message.queue_ns / _NS,
        prefill_s=message.prefill_ns / _NS,
        engine_busy_s=message.engine_busy_ns / _NS,
        kv_byte_s=message.kv_byte_s,
        cached_tokens=message.cached_tokens,
    )


def _load_from_pb(load: pb.Load) -> Load:
    return Load(
        num_running=load.num_running,
        num_waiting=load.num_waiting,
        max_num_seqs=load.max_num_seqs,
        queued_prefill_tokens=load.queued_prefill_tokens,
        prefill_tokens_per_s=load.prefill_tokens_per_s,
        decode_step_s=load.decode_step_ns / _NS,
        engine_busy_s=load.engine_busy_ns / _NS,
        kv_byte_s=load.kv_byte_s,
        kv_bytes_peak=load.kv_bytes_peak,
        tokens_generated=load.tokens_generated,
    )


def info_from_pb(info: pb.GetServerInfoResponse) -> ServerInfo:
    """Convert a server's card."""
    prints, limits = info.fingerprints, info.limits
    return ServerInfo(
        server_version=_words(info.server_version),
        model=ModelCard(
            name=_words(info.model_name),
            engine=_words(info.engine),
            fingerprints=Fingerprints(
                prints.tokenizer, prints.chat_template, prints.weights, prints.numerics_id
            ),
            vocab_size=limits.vocab_size,
            eos_token_ids=tuple(info.eos_token_ids),
            max_context_tokens=limits.max_context_tokens,
            sampler=_words(info.sampler),
            logprobs=info.logprobs,
            grammar_library=_words(info.grammar_library),
        ),
        limits=Limits(limits.max_output_tokens, limits.max_num_seqs, limits.max_num_waiting),
        load=_load_from_pb(info.load),
        api_version=info.api_version,
        sealed=info.sealed,
    )


def error_from_call(error: AioRpcError) -> PdError:
    """Return the typed error that ended a call.

    The server names its class in google.rpc.ErrorInfo; without one it is a network error.
    """
    text = _words(error.details() or error.code().name)
    reason, retry_after_s = _details(error.trailing_metadata())
    cls = error_class(reason)
    if cls is Unauthenticated:
        return _refused_key(text)
    if cls is not None:
        if issubclass(cls, CapacityError):
            return cls(text, retry_after_s if retry_after_s is not None else 1.0)
        return cls(text)
    return _network_error(error.code().name, text)


def _words(told: str) -> str:
    """Return another machine's text as one line of bounded length without control characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", told[:_MAX_WORDS])


def _refused_key(text: str) -> PdError:
    return CloudAuthenticationFailed(
        f"the cloud refused the key: {text}; give the cloud's key with --api-key-file"
    )


def _network_error(code: str, text: str) -> PdError:
    if code == "DEADLINE_EXCEEDED":
        return CloudTimeout(f"the cloud did not answer in time: {text}")
    if _NO_GRPC.search(text):
        return CloudUnavailable(
            "the server there is no pd-server; check the address, that the port is its gRPC "
            f"port, and any proxy between: {text}"
        )
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return _refused_key(text)
    if code in {"INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "UNIMPLEMENTED"}:
        return RequestError(f"the cloud refused the request: {text}")
    if code == "UNAVAILABLE" and _NO_ADDRESS.search(text):
        return CloudUnavailable(
            f"the cloud's name has no address; check its spelling and the network: {text}"
        )
    if code == "UNAVAILABLE" and _NO_TLS in text:
        return CloudUnavailable(
            "the cloud does not speak TLS on this port; check that it is its gRPC port, and start "
            f"pd-server with --tls-cert and --tls-key: {text}"
        )
    if code == "UNAVAILABLE" and _UNTRUSTED.search(text):
        return CloudAuthenticationFailed(
            f"the cloud's certificate is not trusted; check --tls-ca and the host name: {text}"
        )
    if code == "UNAVAILABLE":
        return CloudUnavailable(
            "the cloud cannot be reached, or the stream broke; check that pd-server runs there, "
            "that the port is its gRPC port, --tls-ca if it speaks TLS, and --tls-client-cert if "
            f"it asks for this device's certificate: {text}"
        )
    if code == "INTERNAL" and text == _CLOSED_BEFORE_SENT:
        return CloudUnavailable("the cloud closed the stream before the request was sent")
    return TransportError(f"the cloud's stream failed ({code}): {text}")


def _details(metadata: Metadata | None) -> tuple[str, float | None]:
    """Return ErrorInfo's reason and RetryInfo's delay, if the trailers have them."""
    reason, retry_after_s = "", None
    for key, value in metadata or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / _NS
    return reason, retry_after_s
