"""Small models of ours, and the same weights as GGUF files with everything beside them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pd_bench.engines.gguf_writing import write_gguf
from pd_bench.kv.variants import build_model
from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import EOS_TOKEN, random_tiny_tokenizer
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.models import CausalLM, ModelConfig
from pd_core.models.numerics_probe import probe

__all__ = ["CONTEXT", "TinyLlama", "tiny_llama"]

CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class TinyLlama:
    """A plain Llama with random weights.

    Attributes:
        directory: in Hugging Face's layout.
        gguf: the same float32 weights, in the same directory's twin with the tokenizer beside.
    """

    directory: Path
    gguf: Path
    model: CausalLM


def tiny_llama(folder: Path) -> TinyLlama:
    """Make one; skips the test where llama.cpp is missing."""
    pytest.importorskip("llama_cpp")
    config = ModelConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_context_tokens=CONTEXT,
        tie_word_embeddings=True,
    )
    model = build_model(config, probe(), seed=1)
    tokenizer = random_tiny_tokenizer()
    eos = tokenizer.token_id(EOS_TOKEN)
    assert eos is not None
    settings = TokenizerConfig({"eos_token": EOS_TOKEN})
    directory, twin = folder / "tiny-llama", folder / "twin"
    for place in (directory, twin):
        save_model(place, model, tokenizer, eos_token_ids=(eos,), tokenizer_config=settings)
    (twin / "model.safetensors").unlink()
    gguf = twin / "tiny-llama.gguf"
    write_gguf(model, gguf, dtype=torch.float32)
    return TinyLlama(directory, gguf, model)
