"""Converts Hugging Face's config.json to our ModelConfig and back; refuses unsupported settings."""

from collections.abc import Mapping
from dataclasses import asdict
from reprlib import repr as _short  # a file may hold a value of megabytes
from typing import Any

from pd_core.checkpoints.quantization_config import read_schemes
from pd_core.errors import ModelError
from pd_core.models.config import ModelConfig
from pd_core.models.families import FAMILIES, Family, family_of_architecture
from pd_core.models.latent_shape import LatentShape
from pd_core.models.rope_scaling import RopeScaling

__all__ = ["read_config", "write_config"]

# Hugging Face's names of the RopeScaling fields that only the type "llama3" has.
_LLAMA3 = {
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_context_tokens": "original_max_position_embeddings",
}


def read_config(config: Mapping[str, Any]) -> ModelConfig:
    """Read the keys of config.json; unknown keys are ignored.

    Raises:
        ModelError: the architecture or a setting is not supported, or a key is missing.
    """
    family, skip_v1 = _family(config)
    _check_supported(config, family)
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    context = _whole(config, "max_position_embeddings", family.max_context_tokens)
    return ModelConfig(
        family=family.name,
        vocab_size=_whole(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_whole(config, "intermediate_size"),
        num_layers=_whole(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_kv_heads(config, heads, family),
        head_dim=_head_dim(config, hidden, heads, family),
        latent=_latent(config) if family.latent else None,
        max_context_tokens=context,
        rms_norm_eps=_real(config, "rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(config),
        rope_scaling=_rope_scaling(config, context),
        tie_word_embeddings=_flag(config, "tie_word_embeddings"),
        attention_bias=family.has_bias_flags and _flag(config, "attention_bias"),
        mlp_bias=family.has_mlp_bias_flag and _flag(config, "mlp_bias"),
        skip_v1=skip_v1,
        skip_v1_k_source=_whole_or_none(config, "skip_v1_k_source"),
        skip_v1_own=_whole_or_none(config, "skip_v1_own"),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Return config.json's content; a plain model's is that of an ordinary checkpoint."""
    family = FAMILIES[config.family]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= _scaling_keys(config.rope_scaling)
    content: dict[str, Any] = {
        "architectures": [family.skip_architecture if config.skip_v1 else family.architecture],
        "model_type": family.name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_context_tokens,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
    }
    if config.rope_scaling is not None:
        # Otherwise readers that do not know rope_parameters would assume plain RoPE.
        content["rope_scaling"] = _scaling_keys(config.rope_scaling)
    if family.has_bias_flags:
        content["attention_bias"] = config.attention_bias
    if family.has_mlp_bias_flag:
        content["mlp_bias"] = config.mlp_bias
    if family.window_flag:
        content["use_sliding_window"] = False
    if config.latent is not None:
        content |= {
            "kv_lora_rank": config.latent.kv_rank,
            "q_lora_rank": None,
            "qk_nope_head_dim": config.latent.nope_dim,
            "qk_rope_head_dim": config.head_dim,
            "v_head_dim": config.latent.value_dim,
            "first_k_dense_replace": config.num_layers,
        }
    if config.skip_v1:
        content |= {"skip_v1": True, "skip_v1_k_source": config.skip_v1_k_source}
        if config.skip_v1_own is not None:
            content["skip_v1_own"] = config.skip_v1_own
    return content


def _family(config: Mapping[str, Any]) -> tuple[Family, bool]:
    """Return the family, and whether it is a SkipV1 model."""
    family, named = family_of_architecture(config.get("architectures"), config.get("model_type"))
    skip_v1 = _flag(config, "skip_v1", named)
    if skip_v1 and not named:
        raise ModelError(
            f"config.json: skip_v1 is true, but architectures says {family.architecture}; "
            f"such a model is called {family.skip_architecture}"
        )
    return family, skip_v1


def _check_supported(config: Mapping[str, Any], family: Family) -> None:
    """Refuse settings that we would compute wrongly, and a request to run code."""
    if config.get("auto_map"):
        raise ModelError(
            "config.json: auto_map asks to run the checkpoint's own code, which is never done; "
            "remove the key if the model is an ordinary one"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"config.json: hidden_act {_short(config['hidden_act'])} is not supported")
    read_schemes(config)
    _check_window(config, family)


def _check_window(config: Mapping[str, Any], family: Family) -> None:
    """Refuse a sliding window that would hide keys within the declared context."""
    if family.window_flag and not _flag(config, "use_sliding_window"):
        return
    window = config.get("sliding_window", 4096 if family.window_flag else None)
    if window is None:
        return
    window = _whole({"sliding_window": window}, "sliding_window")
    context = _whole(config, "max_position_embeddings", family.max_context_tokens)
    if window < context:
        raise ModelError(
            f"config.json: a sliding_window of {window} tokens is set, and is not supported; "
            f"lower max_position_embeddings from {context} to {window} to do without it"
        )


def _kv_heads(config: Mapping[str, Any], heads: int, family: Family) -> int:
    default = family.num_kv_heads if "num_key_value_heads" not in config else None
    if config.get("num_key_value_heads") is None:
        return heads if default is None else default
    return _whole(config, "num_key_value_heads")


def _latent(config: Mapping[str, Any]) -> LatentShape:
    """Read the sizes of DeepSeek-V2's attention; only layers with a dense MLP are supported."""
    layers = _whole(config, "num_hidden_layers")
    if _whole(config, "first_k_dense_replace", 0) < layers:
        raise ModelError(
            "config.json: first_k_dense_replace is below num_hidden_layers, so there are layers "
            "with a mixture of experts, which is not supported"
        )
    if config.get("q_lora_rank", 1536) is not None:
        raise ModelError("config.json: q_lora_rank is set, and is not supported; only null is")
    return LatentShape(
        _whole(config, "kv_lora_rank", 512),
        _whole(config, "qk_nope_head_dim", 128),
        _whole(config, "v_head_dim", 128),
    )


def _head_dim(config: Mapping[str, Any], hidden: int, heads: int, family: Family) -> int:
    if family.latent:
        return _whole(config, "qk_rope_head_dim", 64)
    if config.get("head_dim") is not None:
        return _whole(config, "head_dim")
    if family.head_dim is not None:
        return family.head_dim
    if heads < 1 or hidden % heads:
        raise ModelError(
            f"config.json: hidden_size {hidden} does not divide by {heads} attention heads, "
            "and there is no head_dim"
        )
    return hidden // heads


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return RoPE's settings, preferring the older key as `transformers` does."""
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise ModelError(f"config.json: {key} is {_short(value)}; it must be an object")
        if value:
            if nested := [name for name, part in value.items() if isinstance(part, Mapping)]:
                raise ModelError(
                    f"config.json: {key} gives {_short(nested[0])} a RoPE of its own, which is not "
                    "supported"
                )
            return value
    return {}


def _rope_theta(config: Mapping[str, Any]) -> float:
    rope = _rope(config)
    return _real(rope if "rope_theta" in rope else config, "rope_theta", 10000.0)


def _rope_scaling(config: Mapping[str, Any], context: int) -> RopeScaling | None:
    rope = _rope(config)
    for place in (rope, config):
        if place.get("partial_rotary_factor", 1.0) != 1.0:
            raise ModelError("config.json: partial_rotary_factor is set, and is not supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        # RopeScaling refuses an unknown type before it checks the other settings.
        factor = _real(rope, "factor") if kind == "linear" else 1.0
        return RopeScaling(kind, factor)
    fallback = {"original_max_position_embeddings": context}
    original = _whole({**fallback, **rope}, "original_max_position_embeddings")
    return RopeScaling(
        kind,
        _real(rope, "factor"),
        _real(rope, "low_freq_factor"),
        _real(rope, "high_freq_factor"),
        original,
    )


def _scaling_keys(scaling: RopeScaling) -> dict[str, Any]:
    keys: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        fields = asdict(scaling)
        keys |= {theirs: fields[ours] for ours, theirs in _LLAMA3.items()}
    return keys


def _whole(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if type(value) is not int:
        raise ModelError(f"config.json: {key} is {_short(value)}; it must be a whole number")
    return value


def _whole_or_none(config: Mapping[str, Any], key: str) -> int | None:
    return None if config.get(key) is None else _whole(config, key)


def _real(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float):
        raise ModelError(f"config.json: {key} is {_short(value)}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ModelError(f"config.json: {key} is too large a number") from error


def _flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if type(value) is not bool:
        raise ModelError(f"config.json: {key} is {_short(value)}; it must be true or false")
    return value
