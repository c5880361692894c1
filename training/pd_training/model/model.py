"""The Llama family for training: batched, differentiable, every layout that pd_core can run.

The modules are named so that `state_dict()` has the names and shapes of a Hugging Face checkpoint,
which `load_model` reads: nothing is renamed, fused or split when saving.

Legend: B batch, T tokens, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pd_core.models.config import ModelConfig
from pd_core.models.rope import RotaryEmbedding
from pd_training.model.attention import GroupedAttention, Handed, LatentAttention, RMSNorm, Rope

__all__ = ["TrainingModel", "rope_tables"]

_INIT_STD = 0.02


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
    """Attention and MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn: nn.Module = (
            GroupedAttention(config, index)
            if config.latent is None
            else LatentAttention(config, config.latent, index)
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope: Rope, handed: Handed) -> Tensor:
        """Map x: (B, T, hidden) to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), rope, handed)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


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
        rope = rope_tables(self._config, x)
        handed = Handed()
        for layer in self.layers:
            x = layer(x, rope, handed)
        out: Tensor = self.norm(x)
        return out


class TrainingModel(nn.Module):
    """A decoder-only language model whose parameters carry a checkpoint's names.

    Args:
        config: any that pd_core runs.
        seed: seed of the initial weights: normal with deviation 0.02, divided for the layers'
            outputs by the square root of twice the number of layers; norms 1, biases 0.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
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


def rope_tables(config: ModelConfig, x: Tensor) -> Rope:
    """Return the tables that inference uses, for the positions of hidden states (B, T, hidden)."""
    length, device = x.shape[1], x.device
    tables = RotaryEmbedding(
        config.head_dim,
        config.rope_theta,
        config.rope_scaling,
        dtype=torch.float32,
        device=device,
    )
    tables.reserve(length)
    cos, sin = tables.at(torch.arange(length, device=device))
    return cos[:, 0], sin[:, 0]
