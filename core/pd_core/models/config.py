"""What a model is made of, read from and written to Hugging Face's config.json."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pd_core.errors import ModelError
from pd_core.models.kv_cache import LayerHeads

__all__ = ["ModelConfig"]

_PLAIN = "LlamaForCausalLM"
_SKIP_V1 = "SkipV1LlamaForCausalLM"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama family: RMSNorm, RoPE, SwiGLU, grouped queries.

    Attributes:
        skip_v1: SkipV1Former (arXiv 2510.16807): in every layer but the first, the upper half of
            the KV heads read the first layer's values instead of having their own.
        max_context_tokens: prompt and response together.
        attention_bias: biases on q, k, v and o.
        mlp_bias: biases on gate, up and down.

    Raises:
        ModelError: the numbers do not fit together; the message names them.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context_tokens: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    skip_v1: bool = False

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in asdict(self).items() if type(v) is int}
        for name, value in sizes.items():
            if not 0 < value < 2**31:
                raise ModelError(f"config: {name} is {value}; it must be 1 or more")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"config: {self.num_heads} query heads cannot share {self.num_kv_heads} KV heads "
                "evenly"
            )
        if self.head_dim % 2:
            raise ModelError(f"config: head_dim is {self.head_dim}; RoPE needs an even one")
        if self.skip_v1 and self.num_kv_heads % 2:
            raise ModelError(
                f"config: skip_v1 halves the KV heads, and {self.num_kv_heads} is not even; "
                "use a checkpoint with an even number of KV heads"
            )
        for name, number in (("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)):
            if not (math.isfinite(number) and number > 0):
                raise ModelError(f"config: {name} is {number}; it must be positive")

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads

    def num_value_heads(self, layer: int) -> int:
        """KV heads of a layer that have values of their own."""
        return self.num_kv_heads // 2 if self.skip_v1 and layer else self.num_kv_heads

    def layer_heads(self) -> tuple[LayerHeads, ...]:
        """What each layer caches."""
        return tuple(
            LayerHeads(self.num_kv_heads, self.num_value_heads(i)) for i in range(self.num_layers)
        )

    def to_hf(self) -> dict[str, Any]:
        """Return the keys of config.json; plain models are ordinary Llama checkpoints."""
        config: dict[str, Any] = {
            "architectures": [_SKIP_V1 if self.skip_v1 else _PLAIN],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_context_tokens,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "hidden_act": "silu",
        }
        if self.skip_v1:
            config |= {"skip_v1": True, "skip_v1_k_source": None}
        return config

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """Read the keys of config.json; keys without a meaning to us are left alone.

        Raises:
            ModelError: the architecture or a setting is not supported, or a key is missing.
        """
        skip_v1 = _check_supported(config)

        def number(key: str, default: int | None = None) -> int:
            value = config.get(key, default)
            if type(value) is not int:
                raise ModelError(f"config.json: {key} is {value!r}; it must be a whole number")
            return value

        hidden, heads = number("hidden_size"), number("num_attention_heads")
        if config.get("head_dim") is None and (heads < 1 or hidden % heads):
            raise ModelError(
                f"config.json: hidden_size {hidden} does not divide by {heads} attention heads, "
                "and there is no head_dim"
            )
        head_dim = config.get("head_dim")
        return cls(
            vocab_size=number("vocab_size"),
            hidden_size=hidden,
            intermediate_size=number("intermediate_size"),
            num_layers=number("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=number("num_key_value_heads", heads),
            head_dim=hidden // heads if head_dim is None else number("head_dim"),
            max_context_tokens=number("max_position_embeddings", 2048),
            rms_norm_eps=_real(config, "rms_norm_eps", 1e-6),
            rope_theta=_rope_theta(config),
            tie_word_embeddings=_flag(config, "tie_word_embeddings"),
            attention_bias=_flag(config, "attention_bias"),
            mlp_bias=_flag(config, "mlp_bias"),
            skip_v1=skip_v1,
        )


def _check_supported(config: Mapping[str, Any]) -> bool:
    """Return whether it is a SkipV1 model; refuse what we would compute wrongly."""
    names = config.get("architectures") or [_PLAIN if config.get("model_type") == "llama" else None]
    if not isinstance(names, list) or len(names) != 1 or names[0] not in (_PLAIN, _SKIP_V1):
        raise ModelError(
            f"config.json: architectures is {names!r}; supported are {_PLAIN} and {_SKIP_V1}"
        )
    skip_v1 = _flag(config, "skip_v1", names[0] == _SKIP_V1)
    if skip_v1 and names[0] == _PLAIN:
        raise ModelError(f"config.json: skip_v1 is true, but architectures says {_PLAIN}")
    if config.get("skip_v1_k_source") is not None:
        raise ModelError("config.json: skip_v1_k_source is set; sharing keys is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"config.json: hidden_act {config['hidden_act']!r} is not supported")
    for key in ("quantization_config", "sliding_window"):
        if config.get(key) is not None:
            raise ModelError(f"config.json: {key} is set, and is not supported")
    return skip_v1


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Read RoPE's base from both generations of the format; only plain RoPE is supported."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ModelError(f"config.json: rope_parameters is {rope!r}; it must be an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError(f"config.json: RoPE of type {kind!r} is not supported, only 'default'")
    return _real(rope if "rope_theta" in rope else config, "rope_theta", 10000.0)


def _real(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float):
        raise ModelError(f"config.json: {key} is {value!r}; it must be a number")
    return float(value)


def _flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if type(value) is not bool:
        raise ModelError(f"config.json: {key} is {value!r}; it must be true or false")
    return value
