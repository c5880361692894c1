"""`random-tiny`: a small SkipV1 model with made-up weights, the same bytes on every machine.

Its text is a babble of English syllables. With it everything around a model can run and be tested
without a download. Sampled text varies, and greedy decoding rarely loops.
"""

import hashlib
import math
from importlib import resources

import numpy as np
import torch

from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.sampling.splitmix import INCREMENT, finalised_array
from pd_core.text.tokenizer import Tokenizer

__all__ = ["EOS_TOKEN", "fill_weights", "random_tiny_config", "random_tiny_tokenizer"]

EOS_TOKEN = "<eos>"
_LOGIT_SPREAD = 2.5  # standard deviation of the logits: neither flat nor peaked at temperature 1
_READABLE_LEAD = 12.0  # by how much a readable token's logit exceeds that of other tokens
_FINAL_RMS = 2.0  # approximate RMS of the residual stream before the final norm
_RESIDUAL_GAIN = 1.5  # layers outweigh the embedding, so that the next token needs the context


def random_tiny_tokenizer() -> Tokenizer:
    """Return its tokenizer: byte-level BPE with 1,024 ids, trained on licences and docstrings."""
    path = resources.files("pd_core") / "assets" / "random_tiny_tokenizer.json"
    return Tokenizer.from_str(path.read_text(encoding="utf-8"))


def random_tiny_config(vocab_size: int) -> ModelConfig:
    """Return its shape."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=352,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_context_tokens=16384,
        tie_word_embeddings=True,
        skip_v1=True,
    )


def fill_weights(model: CausalLM, tokenizer: Tokenizer) -> None:
    """Fill all weights from an integer hash of (tensor name, index).

    Coordinate 0 of the residual stream is 1 for every readable token, and no layer writes it; the
    output layer reads it as a constant that favours readable tokens. The final norm flips the sign
    of random coordinates, because with tied embeddings a token would otherwise favour itself.
    """
    hidden = model.config.hidden_size
    for name, tensor in model.tensors().items():
        if name == "model.norm.weight":
            values = np.where(_uniform(name, tensor.shape) < 0, -1.0, 1.0)
            values[0] = _READABLE_LEAD * _FINAL_RMS
        elif name.endswith("norm.weight"):
            values = np.ones(tensor.shape)
            values[0] = 0.0  # if the layers saw the constant, it would drown out the context
        elif name == "model.embed_tokens.weight":
            values = _uniform(name, tensor.shape) * _LOGIT_SPREAD / math.sqrt(hidden)
            values[:, 0] = _readable(tokenizer, model.config.vocab_size)
        else:
            fan_in = tensor.shape[-1]
            values = _uniform(name, tensor.shape) / math.sqrt(fan_in)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                values *= _RESIDUAL_GAIN
                values[0] = 0.0
        tensor.copy_(torch.from_numpy(values.astype(np.float32)))


def _readable(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """Return 1 for ids whose text is printable (and the end of sequence), else 0; (V,)."""
    texts = [tokenizer.decode([i]) for i in range(vocab_size)]
    keep = [bool(t) and t.isascii() and t.replace("\n", " ").isprintable() for t in texts]
    eos = tokenizer.token_id(EOS_TOKEN)
    return np.array([float(k or i == eos) for i, k in enumerate(keep)])


def _uniform(name: str, shape: torch.Size) -> np.ndarray:
    """Return values with mean 0 and standard deviation 1, uniform, exact in float64."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    x = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(key)
    x = finalised_array(x * np.uint64(INCREMENT))
    unit = (x >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5  # 24 bits, in [-0.5, 0.5)
    return (unit * math.sqrt(12.0)).reshape(shape)
