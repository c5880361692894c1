"""The Llama family for training: batched, differentiable, SkipV1Former as a switch of the config.

The modules are named so that `state_dict()` has the names and shapes of a Hugging Face checkpoint,
which `pd_core.models.load_model` reads: nothing is renamed, fused or split on the way to a file.

Legend: B batch, T tokens, H query heads, G KV heads, D head dim, V vocabulary.
"""

import math
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pd_core.errors import ModelError
from pd_core.models.config import ModelConfig

__all__ = ["TrainingModel", "require_trainable"]

_INIT_STD = 0.02
# What the forward pass below honours; another setting that is not at its default is refused.
_HONOURED = frozenset(
    [
        *("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads"),
        *("num_kv_heads", "head_dim", "max_context_tokens", "rms_norm_eps", "rope_theta"),
        *("tie_word_embeddings", "attention_bias", "mlp_bias", "skip_v1"),
    ]
)


def require_trainable(config: ModelConfig) -> None:
    """Refuse a config with a setting that this package would compute wrongly.

    Raises:
        ModelError: it names the setting.
    """
    for field in fields(config):
        if field.name not in _HONOURED and getattr(config, field.name) != field.default:
            raise ModelError(
                f"config: {field.name} is {getattr(config, field.name)!r}, which training does "
                "not support; plain Llama layers and SkipV1Former can be trained"
            )


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x: (..., hidden)."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * (wide * scale).to(x.dtype)


class SelfAttention(nn.Module):
    """Causal attention; in a SkipV1 layer the upper half of the KV heads has no own values."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self._config = config
        hidden, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.q_proj = nn.Linear(hidden, config.num_heads * dim, bias=bias)
        self.k_proj = nn.Linear(hidden, config.num_kv_heads * dim, bias=bias)
        self.v_proj = nn.Linear(hidden, config.num_value_heads(index) * dim, bias=bias)
        self.o_proj = nn.Linear(config.num_heads * dim, hidden, bias=bias)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, first_values: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend within each row of the batch.

        Args:
            x: (B, T, hidden).
            cos, sin: (T, D / 2).
            first_values: (B, G, T, D), the first layer's values; None in the first layer.

        Returns:
            (B, T, hidden), and the first layer's values.
        """
        c, (rows, length, _) = self._config, x.shape
        q = _heads(self.q_proj(x), c.head_dim)
        k = _heads(self.k_proj(x), c.head_dim)
        v = _heads(self.v_proj(x), c.head_dim)
        q, k = _rotate(q, cos, sin).to(v.dtype), _rotate(k, cos, sin).to(v.dtype)
        if first_values is None:
            first_values = v
        elif v.shape[1] < c.num_kv_heads:
            # Equation of B1: same-index heads of the first layer, upper half (arXiv 2510.16807).
            v = torch.cat((v, first_values[:, v.shape[1] :].to(v.dtype)), dim=1)
        if c.group > 1:
            k, v = k.repeat_interleave(c.group, dim=1), v.repeat_interleave(c.group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        merged = out.transpose(1, 2).reshape(rows, length, c.num_heads * c.head_dim)
        return self.o_proj(merged), first_values


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (B, T, hidden) to the same shape."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, first_values: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map x: (B, T, hidden); pass the first layer's values on."""
        attended, first_values = self.self_attn(self.input_layernorm(x), cos, sin, first_values)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), first_values


class Decoder(nn.Module):
    """Embedding, layers and the last norm: what a checkpoint calls `model`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map ids: (B, T) to hidden states (B, T, hidden)."""
        x = self.embed_tokens(token_ids)
        cos, sin = _rope_tables(self._config, token_ids.shape[1], token_ids.device)
        first_values: Tensor | None = None
        for layer in self.layers:
            x, first_values = layer(x, cos, sin, first_values)
        out: Tensor = self.norm(x)
        return out


class TrainingModel(nn.Module):
    """A decoder-only language model whose parameters carry a checkpoint's names.

    Args:
        config: plain or SkipV1.
        seed: of the initial weights: normal with deviation 0.02, the layers' outputs smaller by
            the square root of twice their number; norms 1, biases 0.

    Raises:
        ModelError: the config has a setting that training does not support.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        require_trainable(config)
        self.config = config
        self.model = Decoder(config)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._fill(seed)

    @torch.no_grad()
    def _fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        output_std = _INIT_STD / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
            elif parameter.ndim == 2:
                outputs = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.normal_(0.0, output_std if outputs else _INIT_STD, generator=generator)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map ids: (B, T) to logits (B, T, V)."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(self.model(token_ids), head.weight)

    def num_parameters(self) -> int:
        """Count the weights; a tied embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def _heads(x: Tensor, dim: int) -> Tensor:
    """Split (B, T, heads * D) into (B, heads, T, D)."""
    return x.view(*x.shape[:2], -1, dim).transpose(1, 2)


def _rope_tables(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin of all angles, (T, D / 2) each, rounded as `transformers` rounds them."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequency = 1.0 / (config.rope_theta ** exponent.double()).float()
    angles = (torch.arange(length, dtype=torch.float32)[:, None] * frequency).double()
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x: (B, heads, T, D); its first and second half are the pairs' coordinates."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
