"""A server's settings, checked once, before anything is started."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.files.api_key import chosen_api_key
from pd_core.host.cpu import MAX_THREADS
from pd_core.identity.numerics import NUMERICS
from pd_core.settings.option import Option, Part, Secret
from pd_core.sockets.loopback import is_loopback
from pd_core.speculation.speculation import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_server.keys.key_file import NamedKey, named_keys

__all__ = ["ENGINES", "EngineConfig", "ServerConfig", "TlsConfig", "VllmConfig"]

ENGINES = ("torch", "vllm")


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """Settings that only --engine vllm reads.

    Attributes:
        max_context_tokens: the longest sequence it prepares for; None: the model's.
        block_tokens: tokens of one block of the KV cache; None: vLLM's own choice.
        kv_layout: KV cache layout of SkipV1 models: "unit", or "naive", which saves no memory.
        prompt_scores: "attention", or "self-information" to use vLLM's own worker.
    """

    max_context_tokens: int | None = None
    block_tokens: int | None = None
    tensor_parallel_size: Annotated[int, Ge(1), Option("vllm: GPUs that share each layer.")] = 1
    eager: Annotated[bool, Option("vllm: do not compile; starts sooner, runs slower.")] = False
    kv_layout: str = "unit"
    prompt_scores: str = "attention"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What runs, and how much of it at once.

    A new request or a cancel waits for the running step: small steps are smooth, large ones fast.

    Raises:
        ConfigError: there is no such engine.
    """

    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    dtype: Annotated[
        str, Option("Dtype of weights and KV cache.", choices=("float32", "bfloat16", "float16"))
    ] = "float32"
    device: Annotated[
        str, Option("Where the model runs: cpu, cuda, cuda:1; vLLM's build decides for itself.")
    ] = "cpu"
    max_num_seqs: Annotated[int, Ge(1), Option("Requests decoded together.")] = 8
    max_num_batched_tokens: Annotated[
        int | None,
        Ge(2),
        Option("Tokens in one step, prefill and decodes together; measured if unset."),
    ] = None
    kv_cache_mib: Annotated[
        int | None,
        Ge(1),
        Option("Memory for KV caches and cached prefixes; if unset, by slots and context."),
    ] = None
    sampler: Annotated[
        str,
        Option(
            "rolling-hash is for fleet measurements (labelled so).",
            choices=("model", "rolling-hash"),
        ),
    ] = "model"
    threads: Annotated[
        int | None,
        *(Ge(1), Le(MAX_THREADS)),
        Option("Threads of torch; all cores but one if unset."),
    ] = None
    numerics: Annotated[
        str,
        Option(
            "integer: 8-bit weights, faster, equal on all machines; auto: for large models.",
            choices=NUMERICS,
        ),
    ] = "auto"
    fast_numerics: Annotated[bool, Option("Faster float32, not bit-reproducible.")] = False
    speculate: Annotated[
        int,
        *(Ge(0), Le(MAX_DRAFT_TOKENS)),
        Option("torch: most tokens of a stream guessed from its text in a step; 0 is off."),
    ] = DEFAULT_DRAFT_TOKENS
    decode_gap_s: Annotated[
        float,
        *(Ge(0), Le(60)),
        Option(
            "torch: seconds that a stream may wait for a token while prompts are prefilled "
            "beside it, so that first tokens come sooner; 0: 1.6 times its step alone."
        ),
    ] = 0.0
    engine: Annotated[str, Option("vllm: see docs/guides/vllm.md.", choices=ENGINES)] = "torch"
    vllm: Annotated[VllmConfig, Part("Engine")] = field(default_factory=VllmConfig)

    @property
    def kv_cache_bytes(self) -> int | None:
        """`kv_cache_mib` in bytes."""
        return None if self.kv_cache_mib is None else self.kv_cache_mib * 2**20

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; it must be one of {', '.join(ENGINES)}")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificate chain and private key, and whose clients may connect: all PEM files.

    Raises:
        ConfigError: they cannot be read or do not belong together.
    """

    cert: Annotated[Path, Option("PEM certificate chain.", "tls-cert")]
    key: Annotated[Path, Option("PEM private key.", "tls-key")]
    client_ca: Annotated[
        Path | None,
        Option("PEM authority that signed every client's certificate.", "tls-client-ca"),
    ] = None

    def __post_init__(self) -> None:
        if self.client_ca is not None:
            try:
                ssl.create_default_context(cafile=str(self.client_ca))
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise ConfigError(
                    f"--tls-client-ca {self.client_ca} cannot be used ({reason}); give the PEM "
                    "certificate of the authority that signs the clients' certificates"
                ) from error
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"--tls-cert {self.cert} and --tls-key {self.key} cannot be used ({reason}); "
                "give a PEM certificate chain and its unencrypted PEM key"
            ) from error


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything a server needs to start.

    Attributes:
        start_timeout_s: a stream without a Start after this is refused.

    Raises:
        ConfigError: it would listen beyond loopback unprotected.
    """

    engine: Annotated[EngineConfig, Part("Engine")] = field(default_factory=EngineConfig)
    host: Annotated[str, Option("Address to listen on.")] = "127.0.0.1"
    grpc_port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 50051
    http_port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 8080
    max_num_waiting: Annotated[int, Ge(0), Option("Requests queued before new are refused.")] = 64
    max_context_tokens: Annotated[
        int | None, Ge(2), Option("Prompt and response together; the model's when not given.")
    ] = None
    max_output_tokens: Annotated[int | None, Ge(1), Option("Highest token limit of a request.")] = (
        None
    )
    max_tokens_in_flight: Annotated[
        int | None, Ge(1), Option("Prompts and token limits of all admitted requests together.")
    ] = None
    tls: Annotated[TlsConfig | None, Part()] = None
    api_key_file: Annotated[
        Path | None, Option("File with the bearer key (or PD_SERVER_API_KEY).")
    ] = None
    api_key: Annotated[str | None, Secret("api-key-file")] = field(default=None, repr=False)
    api_keys_file: Annotated[
        Path | None, Option("TOML file of named keys' hashes and quotas; read again when changed.")
    ] = None
    share_prefixes: Annotated[bool, Option("Let different keys share cached prefixes.")] = False
    insecure: Annotated[bool, Option("Listen beyond loopback without TLS or without a key.")] = (
        False
    )
    reflection: Annotated[bool, Option("Offer gRPC reflection.")] = False
    otel: Annotated[
        bool, Option("Send OpenTelemetry spans (extra otel) to OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = False
    drain_s: Annotated[float, Ge(0), Option("Seconds running requests get after SIGTERM.")] = 30.0
    start_timeout_s: float = 10.0

    def keys(self) -> tuple[NamedKey, ...]:
        """Read the keys that may call; empty: none is asked for.

        Raises:
            ConfigError: they cannot be read or used.
        """
        one = chosen_api_key(self.api_key_file, self.api_key, "PD_SERVER_API_KEY")
        return named_keys(self.api_keys_file, one)

    def __post_init__(self) -> None:
        missing = [
            name
            for name, value in (
                ("TLS (--tls-cert and --tls-key)", self.tls),
                ("a key (--api-key-file, --api-keys-file or PD_SERVER_API_KEY)", self.keys()),
            )
            if not value
        ]
        if missing and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} can be reached from other machines and {' and '.join(missing)}"
                " is missing; add it, listen on 127.0.0.1, or say --insecure"
            )
        if self.grpc_port == self.http_port != 0:
            raise ConfigError(
                f"gRPC and HTTP cannot share port {self.grpc_port}; give --http-port another"
            )
