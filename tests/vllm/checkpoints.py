"""Small checkpoints with heads that vLLM's CPU kernels take (32 elements and more)."""

from pathlib import Path
from typing import Any

from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import EOS_TOKEN, fill_weights, random_tiny_tokenizer
from pd_core.identity.numerics import unchecked
from pd_core.models import CausalLM, ModelConfig

__all__ = ["write_checkpoint"]


def write_checkpoint(directory: Path, **changes: Any) -> ModelConfig:
    """Write a model of four layers and four KV heads, with made-up weights; return its shape."""
    tokenizer = random_tiny_tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 4,
        "head_dim": 32,
        "max_context_tokens": 2048,
        "tie_word_embeddings": True,
    }
    config = ModelConfig(**(shape | changes))
    model = CausalLM(config, unchecked("test"))
    fill_weights(model, tokenizer)
    eos = tokenizer.token_id(EOS_TOKEN)
    assert eos is not None
    save_model(directory, model, tokenizer, eos_token_ids=(eos,))
    return config
