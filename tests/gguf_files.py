"""Small GGUF files, written by llama.cpp's own package, and the models they were made from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from pd_core.models import CausalLM, ModelConfig
from pd_core.models.numerics_probe import probe

__all__ = ["TEMPLATE", "gguf_config", "gguf_model", "names_in_gguf", "write_gguf"]

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}


def gguf_config(**changes: Any) -> ModelConfig:
    """A model whose rows divide into blocks of 32."""
    return ModelConfig(
        **{
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 16,
            "max_context_tokens": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 20000.0,
            **changes,
        }
    )


def gguf_model(config: ModelConfig) -> CausalLM:
    """A model with random weights, the same each time."""
    model = CausalLM(config, probe())
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.tensors().items():
        spread = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(1 + 0.1 * spread if "norm" in name else 0.2 * spread)
    return model


def write_gguf(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    kind: str = "F32",
    tokens: list[str] | None = None,
    keys: Callable[[gguf.GGUFWriter], None] = lambda _: None,
    architecture: str | None = None,
) -> None:
    """Write a model as llama.cpp's converter does: its names, its order of rows, its keys.

    Args:
        path: the file.
        config: its shape.
        tensors: by Hugging Face's names.
        kind: how the matrices are stored; norms and biases are F32.
        tokens: the vocabulary; None: as many as the embedding has rows.
        keys: adds further keys.
        architecture: what the file says it is; None: the family.
    """
    writer = gguf.GGUFWriter(path, architecture or config.family)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_context_tokens)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, _byte_tokens(config.vocab_size) if tokens is None else tokens)
    keys(writer)
    for name, tensor in tensors.items():
        _add_tensor(writer, config, name, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def names_in_gguf(name: str) -> str:
    """Return llama.cpp's name of one of our tensors."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        short = (
            _NAMES.get(part)
            or {
                "self_attn": "attn_" + part[10:11],
                "mlp": "ffn_" + part[4:].removesuffix("_proj"),
            }[part.partition(".")[0]]
        )
        return f"blk.{layer}.{short}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _add_tensor(
    writer: gguf.GGUFWriter, config: ModelConfig, name: str, tensor: Tensor, kind: str
) -> None:
    values = tensor.numpy()
    if config.family == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_heads if "q_proj" in name else config.num_kv_heads
        # As LlamaModel.permute of llama.cpp's converter.
        halves = values.reshape(heads, 2, -1, *values.shape[1:])
        values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    stored = gguf.GGMLQuantizationType[kind if tensor.dim() > 1 else "F32"]
    writer.add_tensor(names_in_gguf(name), gguf.quants.quantize(values, stored), raw_dtype=stored)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    control = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    writer.add_token_types([3 if token in control else 1 for token in tokens])
    writer.add_token_merges(["h e", "l l", "he ll", "hell o"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _byte_tokens(count: int) -> list[str]:
    """Return three control tokens, every byte, four merged ones, and fill up."""
    from tokenizers import pre_tokenizers

    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    first += sorted(pre_tokenizers.ByteLevel.alphabet())
    first += ["he", "ll", "hell", "hello"]
    return first + [f"<filler{i}>" for i in range(count - len(first))]
