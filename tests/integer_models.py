"""Small models in integer numerics for tests, and the whole of one by the numpy reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pd_core.identity.numerics import unchecked
from pd_core.integer import kernel_library, reference
from pd_core.integer.exact_angles import cos_and_sin
from pd_core.integer.integer_lm import IntegerLM
from pd_core.integer.weights import PANEL, IntegerWeight, layer_weights, padded, round_rows
from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.rope import frequencies

__all__ = ["SHAPES", "WAYS", "by_reference", "integer_lm", "way", "weights_of"]

WAYS = ("off", "portable", "avx2", "avx512", "dotprod")
"""How integers may be computed: by torch alone ("off"), or by the kernels of a processor."""

SHAPES = {
    "grouped": ModelConfig(100, 64, 96, 3, 4, 2, 16, 2048),
    "odd sizes, norms, shared keys and values": ModelConfig(
        100, 72, 100, 4, 6, 2, 32, 2048, skip_v1=True, skip_v1_k_source=1, family="qwen3"
    ),
    "biases, tied, shared values": ModelConfig(
        100, 96, 96, 2, 4, 4, 16, 2048, family="qwen2", skip_v1=True, tie_word_embeddings=True
    ),
    "more heads of a group than rows of a block": ModelConfig(100, 64, 96, 2, 10, 2, 16, 2048),
}


def weights_of(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, the same on every machine."""
    empty = CausalLM(config, unchecked("meta"), device=torch.device("meta")).tensors()
    rng = np.random.default_rng(seed)
    made = {}
    for name, tensor in sorted(empty.items()):
        whole = rng.integers(-4096, 4097, tuple(tensor.shape))
        centre, spread = (1.0, 2.0**-14) if "norm" in name else (0.0, 2.0**-15)
        made[name] = torch.from_numpy((centre + whole * spread).astype(np.float32))
    return made


@contextmanager
def way(monkeypatch: pytest.MonkeyPatch, name: str, threads: int = 1) -> Iterator[None]:
    """Compute in one of WAYS; skips where this machine has it not."""
    monkeypatch.setenv("PD_KERNEL", "auto")
    kernel_library.kernel_library.cache_clear()
    library = kernel_library.kernel_library()
    if name != "off" and (library is None or not library.pd_isa(name.encode())):
        pytest.skip(f"no {name} kernels on this machine")
    monkeypatch.setenv("PD_KERNEL", name)
    kernel_library.kernel_library.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        kernel_library.kernel_library.cache_clear()


def integer_lm(config: ModelConfig, seed: int = 0) -> IntegerLM:
    """Return a model with `weights_of` in the way at hand."""
    return IntegerLM(config, weights_of(config, seed).__getitem__, device=torch.device("cpu"))


def by_reference(config: ModelConfig, token_ids: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return hidden (T, hidden) and logits (T, V) of a sequence by `reference` alone."""
    tensors = weights_of(config, seed)
    ids = np.array(token_ids)
    embedding = padded(round_rows(tensors["model.embed_tokens.weight"]))
    tied = config.tie_word_embeddings
    head = embedding if tied else padded(round_rows(tensors["lm_head.weight"]))
    frequency = frequencies(config.head_dim, config.rope_theta, config.rope_scaling).numpy()
    positions = np.arange(len(ids), dtype=np.float32)[:, None] * frequency
    cos, sin = (t[:, None] for t in cos_and_sin(positions.astype(float)))
    codes, scales = _arrays(embedding)
    x = codes[ids][:, : config.hidden_size].astype(np.float32) * scales[ids][:, None]
    cached: list[Any] = []
    for index in range(config.num_layers):
        layer = layer_weights(config, index, tensors.__getitem__)
        x = _layer(config, layer, x, cos, sin, cached)
    hidden = reference.normalise(x, tensors["model.norm.weight"].numpy(), config.rms_norm_eps)
    logits = _linear(hidden, head)[:, : config.vocab_size]
    return torch.from_numpy(hidden), torch.from_numpy(logits)


def _arrays(weight: IntegerWeight) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return weight.codes.numpy().astype(np.int64), weight.scales.numpy()


def _linear(x: NDArray[np.float32], weight: IntegerWeight) -> NDArray[np.float32]:
    codes, scales = _arrays(weight)
    bias = None if weight.bias is None else weight.bias.numpy()
    return reference.linear(x, codes[:, : x.shape[1]], scales, bias, planes=weight.planes)


def _layer(
    c: ModelConfig,
    layer: Any,
    x: NDArray[np.float32],
    cos: NDArray[np.float32],
    sin: NDArray[np.float32],
    cached: list[Any],
) -> NDArray[np.float32]:
    """One layer over a whole sequence; `cached` holds keys and values of those before."""
    normed = reference.normalise(x, layer.input_norm.numpy(), c.rms_norm_eps)
    made = _linear(normed, layer.qkv)
    own = [c.num_heads, c.num_heads + layer.own_keys]
    wide = (own[1] + layer.own_values) * c.head_dim
    q, k, v = np.split(made[:, :wide].reshape(len(x), -1, c.head_dim), own, axis=1)
    if layer.query_norm is not None:
        q = reference.normalise(q, layer.query_norm.numpy(), c.rms_norm_eps)
    if layer.key_norm is not None:
        k = reference.normalise(k, layer.key_norm.numpy(), c.rms_norm_eps)
    q = reference.rotate(q, cos, sin)
    keys = reference.quantise_heads(reference.rotate(k, cos, sin)) if layer.own_keys else None
    cached.append((keys, reference.quantise_heads(v)))
    mixed = np.zeros((len(x), c.num_heads, c.head_dim), np.float32)
    for head in range(c.num_kv_heads):
        values = cached[-1][1] if head < layer.own_values else cached[0][1]
        group = slice(head * c.group, (head + 1) * c.group)
        mixed[:, group] = reference.attend(
            q[:, group],
            tuple(t[:, head] for t in cached[layer.key_layer][0]),
            tuple(t[:, head] for t in values),
            start=0,
        )
    x = x + _linear(mixed.reshape(len(x), -1), layer.out)[:, : c.hidden_size]
    normed = reference.normalise(x, layer.post_norm.numpy(), c.rms_norm_eps)
    both = _linear(normed, layer.gate_up).reshape(len(x), -1, 2, PANEL)
    inner = c.intermediate_size
    gate, up = (both[:, :, i].reshape(len(x), -1)[:, :inner] for i in range(2))
    return x + _linear(reference.gated(gate, up), layer.down)[:, : c.hidden_size]
