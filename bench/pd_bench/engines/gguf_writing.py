"""A model of ours as a GGUF file, so that llama.cpp runs the same weights."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.models.config import ModelConfig

if TYPE_CHECKING:
    from pd_core.models.causal_lm import CausalLM

__all__ = ["write_gguf"]

_VERSION = 3
_ALIGNMENT = 32
_UINT32, _FLOAT32, _STRING = 4, 6, 8  # kinds of a value, by the format's numbers
_KINDS = {torch.float32: 0, torch.float16: 1}  # of a tensor's numbers, likewise

_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: "CausalLM", path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a plain Llama's weights, without a vocabulary; one tensor at a time.

    Args:
        model: its weights.
        path: the file to write.
        dtype: of the matrices, float16 or float32; norms stay float32.

    Raises:
        ModelError: the model is none that is written here.
    """
    config = model.config
    if config.family != "llama" or config.skip_v1 or config.rope_scaling is not None:
        raise ModelError(
            "only a plain Llama is written as GGUF here, without SkipV1 and without scaled RoPE; "
            "give --model a GGUF file or a plain Llama's directory"
        )
    tensors = model.tensors()
    kinds = {name: torch.float32 if t.ndim == 1 else dtype for name, t in tensors.items()}
    keys = _keys(config)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(keys)))
        file.write(b"".join(_key(name, value) for name, value in keys.items()))
        file.write(b"".join(_infos(tensors, kinds)))
        for name, tensor in tensors.items():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            stored = _rotated_rows(name, tensor, config).to(kinds[name]).contiguous()
            file.write(stored.numpy().data)
        file.write(bytes(-file.tell() % _ALIGNMENT))


def _keys(config: ModelConfig) -> dict[str, int | float | str]:
    own: dict[str, int | float] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_context_tokens,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
    }
    about = {"general.architecture": "llama", "tokenizer.ggml.model": "no_vocab"}
    return about | {f"llama.{name}": value for name, value in own.items()}


def _key(name: str, value: float | str) -> bytes:
    if isinstance(value, str):
        return _text(name) + struct.pack("<I", _STRING) + _text(value)
    kind, form = (_FLOAT32, "<If") if isinstance(value, float) else (_UINT32, "<II")
    return _text(name) + struct.pack(form, kind, value)


def _infos(tensors: Mapping[str, Tensor], kinds: Mapping[str, torch.dtype]) -> Iterator[bytes]:
    """Yield the heads of the tensors: name, shape (the last dimension first), kind and place."""
    place = 0
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        yield _text(_file_name(name)) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, _KINDS[kinds[name]], place
        )
        place += -(-tensor.numel() * kinds[name].itemsize // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _file_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_INSIDE[part]}.{kind}"


def _rotated_rows(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """Return queries' and keys' rows in llama.cpp's order: a rotated pair lies side by side."""
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    part = name.split(".")[-2]
    if part not in heads:
        return tensor
    split = tensor.reshape(heads[part], 2, config.head_dim // 2, *tensor.shape[1:])
    return split.swapaxes(1, 2).reshape(tensor.shape)
