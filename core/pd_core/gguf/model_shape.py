"""A model's shape from a GGUF file's keys, by llama.cpp's names; refuses what we do not compute."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pd_core.errors import ModelError
from pd_core.gguf.header import TensorPlace
from pd_core.gguf.keys import Keys
from pd_core.models.config import ModelConfig
from pd_core.models.rope_scaling import RopeScaling

__all__ = ["ARCHITECTURES", "FREQUENCY_FACTORS", "model_shape"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""The supported architectures; each is also the name of our family."""

FREQUENCY_FACTORS = "rope_freqs.weight"
"""The tensor that divides RoPE's frequencies one by one, as llama.cpp stores Llama 3.1's RoPE."""

# Keys of models that share an architecture's name and compute something else, with the values that
# change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "attention.sliding_window": (0,),
    "attention.scale": (0.0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "logit_scale": (1.0,),
    "residual_scale": (1.0,),
    "embedding_scale": (1.0,),
    "rope.scaling.attn_factor": (1.0,),
    "use_parallel_residual": (False,),
    "pooling_type": (0,),
}


# A setting of ours -> the key that it comes from, without the architecture's name.
_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_layers": "block_count",
    "num_heads": "attention.head_count",
    "num_kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_context_tokens": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "RoPE's factor": "rope.scaling.factor",
}


def model_shape(
    keys: Keys, tensors: Mapping[str, TensorPlace], frequency_factors: list[float] | None = None
) -> ModelConfig:
    """Return the shape of the model in a file.

    Args:
        keys: the header's.
        tensors: the header's.
        frequency_factors: the values of the tensor of that name; None where there is none.

    Raises:
        ModelError: the architecture or a setting is not supported, or a key is missing or wrong.
    """
    name = keys.text("general.architecture")
    if name not in ARCHITECTURES:
        raise ModelError(
            f"the architecture {name!r} is not supported; supported are {', '.join(ARCHITECTURES)}"
        )
    _check_supported(keys, name)
    with _by_keys(name):
        return _config(keys, name, tensors, frequency_factors)


@contextmanager
def _by_keys(name: str) -> Iterator[None]:
    """Let errors name the file's keys, not the settings of a config.json that they become."""
    try:
        yield
    except ModelError as error:
        said = re.sub(r"^config(\.json)?: ", "", str(error))
        for setting, key in _KEYS.items():
            said = re.sub(rf"(?<![\w.]){re.escape(setting)}\b", f"the key {name}.{key}", said)
        raise ModelError(said) from error


def _config(
    keys: Keys,
    name: str,
    tensors: Mapping[str, TensorPlace],
    frequency_factors: list[float] | None,
) -> ModelConfig:
    heads = keys.same_whole(f"{name}.attention.head_count", 0)
    hidden = keys.whole(f"{name}.embedding_length")
    head_dim = _head_dim(keys, name, hidden, heads)
    return ModelConfig(
        family=name,
        vocab_size=_rows(tensors, "token_embd.weight"),
        hidden_size=hidden,
        intermediate_size=keys.same_whole(f"{name}.feed_forward_length", 0),
        num_layers=keys.whole(f"{name}.block_count"),
        num_heads=heads,
        num_kv_heads=keys.same_whole(f"{name}.attention.head_count_kv", heads),
        head_dim=head_dim,
        max_context_tokens=keys.whole(f"{name}.context_length"),
        rms_norm_eps=keys.real(f"{name}.attention.layer_norm_rms_epsilon"),
        rope_theta=keys.real(f"{name}.rope.freq_base", 10000.0),
        rope_scaling=_rope_scaling(keys, name, head_dim, frequency_factors),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias=name != "qwen2" and "blk.0.attn_q.bias" in tensors,
        mlp_bias=name == "llama" and "blk.0.ffn_gate.bias" in tensors,
    )


def _check_supported(keys: Keys, name: str) -> None:
    if keys.whole("split.count", 0) > 1:
        raise ModelError(
            "it is one of several files of a split model, which is not supported; join them with "
            "llama.cpp's llama-gguf-split --merge"
        )
    for key, neutral in _NEUTRAL.items():
        full = f"{name}.{key}"
        if full in keys and not any(keys.is_value(full, value) for value in neutral):
            raise ModelError(f"the key {full} is set, and is not supported; use a model without it")


def _rows(tensors: Mapping[str, TensorPlace], name: str) -> int:
    if name not in tensors:
        raise ModelError(f"the file lacks the tensor {name}, so this is no whole language model")
    return tensors[name].shape[0]


def _head_dim(keys: Keys, name: str, hidden: int, heads: int) -> int:
    """Return the size of a head; keys, values and the rotated part must be of the same."""
    if heads < 1:
        raise ModelError(f"the key {name}.attention.head_count is {heads}; it must be 1 or more")
    size = keys.whole(f"{name}.attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        other = keys.whole(f"{name}.{key}", size)
        if other != size:
            raise ModelError(
                f"the key {name}.{key} is {other}, and heads have {size} numbers; different ones "
                "are not supported"
            )
    return size


def _rope_scaling(
    keys: Keys, name: str, head_dim: int, factors: list[float] | None
) -> RopeScaling | None:
    kind = keys.text(f"{name}.rope.scaling.type", "none")
    if factors is not None:
        return _llama3_scaling(factors, keys.real(f"{name}.rope.freq_base", 10000.0), head_dim)
    if kind == "none" and f"{name}.rope.scale_linear" in keys:
        return _linear(keys.real(f"{name}.rope.scale_linear"))
    if kind == "none":
        return None
    if kind == "linear":
        return _linear(keys.real(f"{name}.rope.scaling.factor"))
    raise ModelError(
        f"the key {name}.rope.scaling.type is {kind!r}, which is not supported; supported are none "
        "and linear, and the factors of Llama 3.1"
    )


def _linear(factor: float) -> RopeScaling | None:
    return None if factor in (0.0, 1.0) else RopeScaling("linear", factor)


def _llama3_scaling(factors: list[float], theta: float, head_dim: int) -> RopeScaling | None:
    """Return the setting that gives these factors, of which the file keeps only the result.

    Every Llama since 3.1 has the same low_freq_factor 1, high_freq_factor 4 and 8,192 tokens of
    first training; they differ in the factor, which is that of the longest wavelength.
    """
    import torch

    if len(factors) * 2 != head_dim:  # nor are there any for an odd one
        raise ModelError(
            f"tensor {FREQUENCY_FACTORS} has {len(factors)} numbers; heads of {head_dim} need "
            f"{head_dim / 2:g}"
        )
    if all(factor == 1.0 for factor in factors):
        return None
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequency = 1.0 / (theta ** exponent.double()).float()
    scaling = RopeScaling("llama3", max(factors))
    given = torch.tensor(factors, dtype=torch.float32)
    if not torch.allclose(frequency / scaling.apply(frequency), given, rtol=1e-4, atol=0):
        raise ModelError(
            f"tensor {FREQUENCY_FACTORS} holds other factors than a Llama's, which is not "
            "supported; use the Hugging Face directory that the file was made from"
        )
    return scaling
