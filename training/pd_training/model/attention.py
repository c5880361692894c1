"""Attention for training: batched, differentiable, the same layouts as pd_core's inference.

Keys and values are materialised in full; those that later layers read are passed on.

Legend: B batch, T tokens, H query heads, G KV heads, D head dim, C latent, E value elements.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pd_core.models.config import ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_core.models.rope import rotate, rotate_pairs

__all__ = ["GroupedAttention", "Handed", "LatentAttention", "RMSNorm", "Rope", "attend"]

Rope = tuple[Tensor, Tensor]
"""cos and sin of all angles, (T, D / 2) each."""

_LATENT_EPS = 1e-6  # DeepSeek-V2 uses this, whatever the config says


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x: (..., size)."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * (wide * scale).to(x.dtype)


@dataclass
class Handed:
    """Keys and values that one forward pass passes from layer to layer.

    Attributes:
        first: the first layer's values, (B, G, T, D), or its latent after the norm, (B, T, C).
        keys: the keys of SkipV1-YOCO's source layer, after norm and RoPE, (B, G, T, D).
    """

    first: Tensor | None = None
    keys: Tensor | None = None


class GroupedAttention(nn.Module):
    """MHA and GQA; SkipV1 layers read the first layer's values, SkipV1-YOCO's also shared keys."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self._config, self._index = config, index
        hidden, dim = config.hidden_size, config.head_dim
        key_heads, value_heads = config.num_key_heads(index), config.num_value_heads(index)
        bias = config.qkv_bias
        self.q_proj = nn.Linear(hidden, config.num_heads * dim, bias=bias)
        self.k_proj = nn.Linear(hidden, key_heads * dim, bias=bias) if key_heads else None
        self.v_proj = nn.Linear(hidden, value_heads * dim, bias=bias)
        self.o_proj = nn.Linear(config.num_heads * dim, hidden, bias=config.attention_bias)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps) if key_heads else None

    def forward(self, x: Tensor, rope: Rope, handed: Handed) -> Tensor:
        """Attend within each row of the batch: x (B, T, hidden) to the same shape."""
        q = _turned(_heads(self.q_proj(x), self._config.head_dim), self.q_norm, rope)
        k = self._keys(x, rope, handed)
        v = self._values(x, handed)
        mixed = attend(q, k, v)
        out: Tensor = self.o_proj(_merged(mixed))
        return out

    def _keys(self, x: Tensor, rope: Rope, handed: Handed) -> Tensor:
        if self.k_proj is None:
            assert handed.keys is not None, "the source layer comes before those that read it"
            return handed.keys
        k = _turned(_heads(self.k_proj(x), self._config.head_dim), self.k_norm, rope)
        if self._index == self._config.skip_v1_k_source:
            handed.keys = k
        return k

    def _values(self, x: Tensor, handed: Handed) -> Tensor:
        v = _heads(self.v_proj(x), self._config.head_dim)
        if self._index == 0:
            handed.first = v
        elif v.shape[1] < self._config.num_kv_heads:
            # Same-index heads of the first layer, the upper ones (arXiv 2510.16807).
            assert handed.first is not None, "the first layer comes first"
            v = torch.cat((v, handed.first[:, v.shape[1] :].to(v.dtype)), dim=1)
        return v


class LatentAttention(nn.Module):
    """MLA without compressed queries (DeepSeek-V2, arXiv 2405.04434), and SkipV1-MLA."""

    def __init__(self, config: ModelConfig, latent: LatentShape, index: int) -> None:
        super().__init__()
        self._index, self._latent = index, latent
        self._heads, self._dim = config.num_heads, config.head_dim
        self._own = config.own_rank(index)
        hidden, heads, bias = config.hidden_size, config.num_heads, config.attention_bias
        made = latent.nope_dim + latent.value_dim
        self.q_proj = nn.Linear(hidden, heads * (latent.nope_dim + config.head_dim), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self._own + config.head_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(self._own, _LATENT_EPS)
        self.kv_b_proj = nn.Linear(latent.kv_rank, heads * made, bias=False)
        self.o_proj = nn.Linear(heads * latent.value_dim, hidden, bias=bias)

    def forward(self, x: Tensor, rope: Rope, handed: Handed) -> Tensor:
        """Attend within each row of the batch: x (B, T, hidden) to the same shape."""
        nope, value = self._latent.nope_dim, self._latent.value_dim
        q = _heads(self.q_proj(x), nope + self._dim)
        down = self.kv_a_proj_with_mqa(x)
        made = _heads(
            self.kv_b_proj(self._whole_latent(down, handed)), nope + self._latent.value_dim
        )
        v = made[..., nope:]
        key = rotate_pairs(down[:, None, :, self._own :], *rope).to(v.dtype)  # one for all heads
        k = torch.cat((made[..., :nope], key.expand(-1, self._heads, -1, -1)), dim=-1)
        q = torch.cat((q[..., :nope], rotate_pairs(q[..., nope:], *rope).to(v.dtype)), dim=-1)
        # The fast kernels need values as wide as keys: pad with zeros, and cut them off again.
        padded = F.pad(v, (0, max(0, k.shape[-1] - value)))
        mixed = attend(q, k, padded)
        out: Tensor = self.o_proj(_merged(mixed[..., :value]))
        return out

    def _whole_latent(self, down: Tensor, handed: Handed) -> Tensor:
        """Return (B, T, C): this layer's own part and, in SkipV1, the first layer's upper one."""
        latent: Tensor = self.kv_a_layernorm(down[..., : self._own])
        if self._index == 0:
            handed.first = latent
        elif self._own < self._latent.kv_rank:
            assert handed.first is not None, "the first layer comes first"
            latent = torch.cat((latent, handed.first[..., self._own :].to(latent.dtype)), dim=-1)
        return latent


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend causally: q (B, H, T, D), k and v (B, G, T, D) to (B, H, T, D) in v's type."""
    grouped = q.shape[1] > k.shape[1]
    if v.device.type != "cpu":
        q, k = q.to(v.dtype), k.to(v.dtype)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    # On a CPU the kernel's backward pass takes nearly three times as long in bfloat16.
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), is_causal=True, enable_gqa=grouped
        )
    return mixed.to(v.dtype)


def _heads(x: Tensor, dim: int) -> Tensor:
    """Split (B, T, heads * D) into (B, heads, T, D)."""
    return x.view(*x.shape[:2], -1, dim).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    """Undo `_heads`."""
    return x.transpose(1, 2).flatten(2)


def _turned(x: Tensor, norm: RMSNorm | None, rope: Rope) -> Tensor:
    """Normalise queries or keys if the family does so, and rotate them: (B, heads, T, D)."""
    return rotate(x if norm is None else norm(x), *rope)
