"""The SkipV1 variants of one shape, each beside the plain transformer it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from pd_bench.kv_settings import Shape
from pd_core.models import CausalLM, ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_core.numerics import Numerics

__all__ = ["Pair", "Variant", "build_model", "variant_pairs"]

_VOCAB_SIZE = 4096
_MAX_CONTEXT_TOKENS = 131072


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of model, by the name that tables show."""

    name: str
    config: ModelConfig


@dataclass(frozen=True, slots=True)
class Pair:
    """A SkipV1 model and the plain one of the same depth and width."""

    skip: Variant
    plain: Variant


def variant_pairs(shape: Shape) -> Mapping[str, Pair]:
    """Return the pairs by the names of the command line.

    MLA's latent is a quarter of the width; half of each head's key is rotated.

    Raises:
        ModelError: the shape has no such variants (an odd number of KV heads or layers, say).
    """
    head_dim = shape.width // shape.heads
    mha = ModelConfig(
        vocab_size=_VOCAB_SIZE,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.heads,
        head_dim=head_dim,
        max_context_tokens=_MAX_CONTEXT_TOKENS,
        tie_word_embeddings=True,
    )
    gqa = replace(mha, num_kv_heads=shape.kv_heads)
    mla = replace(
        mha,
        family="deepseek_v2",
        head_dim=head_dim // 2,
        latent=LatentShape(shape.width // 4, head_dim // 2, head_dim),
    )
    yoco = replace(mha, skip_v1=True, skip_v1_k_source=shape.layers // 2 - 1)

    def pair(skip: str, skip_config: ModelConfig, plain: str, config: ModelConfig) -> Pair:
        return Pair(Variant(skip, skip_config), Variant(plain, config))

    return {
        "skipv1": pair("SkipV1Former", replace(mha, skip_v1=True), "MHA", mha),
        "yoco": pair("SkipV1-YOCO", yoco, "MHA", mha),
        "gqa-skipv1": pair("GQA+SkipV1", replace(gqa, skip_v1=True), "GQA", gqa),
        "mla-skipv1": pair("SkipV1-MLA", replace(mla, skip_v1=True), "MLA", mla),
    }


def build_model(config: ModelConfig, numerics: Numerics, seed: int) -> CausalLM:
    """Return a model with random weights: for its speed and sizes, not for its text."""
    model = CausalLM(config, numerics)
    numbers = torch.Generator().manual_seed(seed)
    for tensor in model.tensors().values():
        if tensor.ndim == 1:  # norms
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5, generator=numbers)
    return model
