"""One decoder layer: attention and a gated MLP around a residual stream."""

import torch
from torch import Tensor

from pd_core.models.activation import silu
from pd_core.models.attention import Pass
from pd_core.models.config import ModelConfig
from pd_core.models.grouped_attention import GroupedAttention
from pd_core.models.latent_attention import LatentAttention
from pd_core.models.linear import Placement
from pd_core.models.norm import RMSNorm

__all__ = ["Layer"]


class Layer(torch.nn.Module):
    """One decoder layer; gate and up are fused into one matrix."""

    def __init__(self, config: ModelConfig, index: int, placement: Placement) -> None:
        super().__init__()
        self._config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        eps, dtype, device = config.rms_norm_eps, placement.dtype, placement.device
        self.input_norm = RMSNorm(hidden, eps, dtype, device)
        self.attention: GroupedAttention | LatentAttention
        if config.latent is None:
            self.attention = GroupedAttention(config, index, placement)
        else:
            self.attention = LatentAttention(config, config.latent, index, placement)
        self.post_attention_norm = RMSNorm(hidden, eps, dtype, device)
        self.gate_up_proj = placement.linear(hidden, 2 * inner, bias=config.mlp_bias)
        self.down_proj = placement.linear(inner, hidden, bias=config.mlp_bias)

    def forward(self, x: Tensor, batch: Pass) -> Tensor:
        """Map x: (T, hidden) to (T, hidden), writing what this layer caches."""
        x = x + self.attention(self.input_norm(x), batch)
        gate, up = self.gate_up_proj(self.post_attention_norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down_proj(silu(gate) * up)
        return out

    def products(self, x: Tensor, batch: Pass) -> Tensor:
        """Return the attention's `products` with all cached keys."""
        return self.attention.products(self.input_norm(x), batch)

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors of this layer, by name: views into the fused weights."""
        inner = self._config.intermediate_size
        return {
            "input_layernorm.weight": self.input_norm.weight.data,
            "post_attention_layernorm.weight": self.post_attention_norm.weight.data,
            **{f"self_attn.{name}": t for name, t in self.attention.tensors().items()},
            **self.gate_up_proj.split({"mlp.gate_proj": inner, "mlp.up_proj": inner}),
            **self.down_proj.split({"mlp.down_proj": self._config.hidden_size}),
        }
