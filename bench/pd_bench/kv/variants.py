"""The SkipV1 variants of one shape, each with the plain transformer it is compared with."""

from dataclasses import dataclass, replace

import torch

from pd_bench.kv.settings import MAX_CONTEXT_TOKENS, PAIR_NAMES, VariantShape
from pd_core.identity.numerics import Numerics
from pd_core.models import CausalLM, ModelConfig
from pd_core.models.keep_share import own_count
from pd_core.models.latent_shape import LatentShape

__all__ = ["Pair", "Variant", "build_model", "variant_pair"]

_VOCAB_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of model, with its name in tables."""

    name: str
    config: ModelConfig


@dataclass(frozen=True, slots=True)
class Pair:
    """A SkipV1 model and the plain one of the same depth and width."""

    skip: Variant
    plain: Variant


def variant_pair(shape: VariantShape, name: str, keep: float) -> Pair:
    """Return a pair by its name on the command line, one of PAIR_NAMES.

    MLA's latent is a quarter of the width; half of each head's key is rotated.

    Args:
        keep: share of its values that a SkipV1 layer after the first has of its own.

    Raises:
        ModelError: the shape has no such variant (for example, a single KV head).
        ConfigError: `keep` is no share.
    """
    mha = _mha(shape)
    if name == "skipv1":
        return _pair("SkipV1Former", "MHA", mha, keep)
    if name == "yoco":
        return _pair("SkipV1-YOCO", "MHA", mha, keep, skip_v1_k_source=shape.layers // 2 - 1)
    if name == "gqa-skipv1":
        return _pair("GQA+SkipV1", "GQA", replace(mha, num_kv_heads=shape.kv_heads), keep)
    assert name == "mla-skipv1", f"{name} is none of {PAIR_NAMES}"
    latent = LatentShape(shape.width // 4, mha.head_dim // 2, mha.head_dim)
    mla = replace(mha, family="deepseek_v2", head_dim=mha.head_dim // 2, latent=latent)
    return _pair("SkipV1-MLA", "MLA", mla, keep)


def _pair(
    skip_name: str,
    plain_name: str,
    plain: ModelConfig,
    keep: float,
    skip_v1_k_source: int | None = None,
) -> Pair:
    own = own_count(keep, plain.num_kv_heads if plain.latent is None else plain.latent.kv_rank)
    skip = replace(plain, skip_v1=True, skip_v1_k_source=skip_v1_k_source, skip_v1_own=own)
    return Pair(Variant(skip_name, skip), Variant(plain_name, plain))


def _mha(shape: VariantShape) -> ModelConfig:
    return ModelConfig(
        vocab_size=_VOCAB_SIZE,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        max_context_tokens=MAX_CONTEXT_TOKENS,
        tie_word_embeddings=True,
    )


def build_model(config: ModelConfig, numerics: Numerics, seed: int) -> CausalLM:
    """Return a model with random weights, for measuring speed and sizes."""
    model = CausalLM(config, numerics)
    numbers = torch.Generator().manual_seed(seed)
    for tensor in model.tensors().values():
        if tensor.ndim == 1:  # norms
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5, generator=numbers)
    return model
