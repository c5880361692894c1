"""A server's settings, checked once, before anything is started."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.loopback import is_loopback
from pd_core.store.model_names import DEFAULT_MODEL

__all__ = ["ENGINES", "EngineConfig", "ServerConfig", "TlsConfig", "VllmConfig"]

ENGINES = ("torch", "vllm")


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """What only --engine vllm reads.

    Attributes:
        max_context_tokens: the longest sequence it prepares for; None: the model's.
        block_tokens: tokens of one block of the KV cache; None: vLLM's own choice.
        tensor_parallel_size: GPUs, or processes on a CPU, that share each layer.
        eager: do not compile the model: starts sooner, runs slower.
        kv_layout: of SkipV1 models: "unit", or "naive" to do without the saving.
        prompt_scores: "attention", or "self-information" to use vLLM's own worker.
    """

    max_context_tokens: int | None = None
    block_tokens: int | None = None
    tensor_parallel_size: int = 1
    eager: bool = False
    kv_layout: str = "unit"
    prompt_scores: str = "attention"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What runs, and how much of it at once.

    Attributes:
        model: a name of `pd_core.store.model_names`, or a Hugging Face directory.
        dtype: of weights and KV cache.
        device: where the model runs.
        max_num_seqs: slots; requests decoded together.
        max_num_batched_tokens: tokens in one step. A step is what a newcomer and a cancel wait
            for: small is smooth, large is fast. None: the engine chooses, by its speed.
        kv_cache_mib: memory for KV caches, cached prefixes included; None: the engine chooses.
        sampler: "model" or "rolling-hash".
        threads: of torch; None: all cores but one, which the event loop needs.
        fast_numerics: give up bit-reproducibility for speed.
        engine: "torch" or "vllm".
        vllm: for the latter.

    Raises:
        ConfigError: there is no such engine.
    """

    model: str = DEFAULT_MODEL
    dtype: str = "float32"
    device: str = "cpu"
    max_num_seqs: int = 8
    max_num_batched_tokens: int | None = None
    kv_cache_mib: int | None = None
    sampler: str = "model"
    threads: int | None = None
    fast_numerics: bool = False
    engine: str = "torch"
    vllm: VllmConfig = field(default_factory=VllmConfig)

    @property
    def kv_cache_bytes(self) -> int | None:
        """`kv_cache_mib` in bytes."""
        return None if self.kv_cache_mib is None else self.kv_cache_mib * 2**20

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; it must be one of {', '.join(ENGINES)}")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificate chain and private key, both PEM files.

    Raises:
        ConfigError: they cannot be read or do not belong together.
    """

    cert: Path
    key: Path

    def __post_init__(self) -> None:
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
        engine: what runs.
        host: address to listen on.
        grpc_port: 0 picks a free one.
        http_port: 0 picks a free one.
        max_num_waiting: requests queued before new ones are refused.
        max_context_tokens: prompt and response together; None: the model's.
        max_output_tokens: highest token limit; None: the context.
        max_tokens_in_flight: prompts and token limits of all requests together; None: as many as
            slots and queue could hold.
        tls: certificate and key; None: plain text.
        api_key: the bearer key; None: none is asked for. Never shown.
        insecure: listen beyond loopback without TLS or without a key.
        reflection: offer gRPC reflection.
        drain_s: how long running streams may go on after the first SIGTERM.
        start_timeout_s: a stream without a Start after this is refused.

    Raises:
        ConfigError: it would listen beyond loopback unprotected.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    host: str = "127.0.0.1"
    grpc_port: int = 50051
    http_port: int = 8080
    max_num_waiting: int = 64
    max_context_tokens: int | None = None
    max_output_tokens: int | None = None
    max_tokens_in_flight: int | None = None
    tls: TlsConfig | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    reflection: bool = False
    drain_s: float = 30.0
    start_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        missing = [
            name
            for name, value in (
                ("TLS (--tls-cert and --tls-key)", self.tls),
                ("a key (--api-key-file or PD_SERVER_API_KEY)", self.api_key),
            )
            if value is None
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
