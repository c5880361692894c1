"""What a model is made of, read from and written to Hugging Face's config.json."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from pd_core.errors import ModelError
from pd_core.models.families import FAMILIES
from pd_core.models.kv_cache import LayerHeads
from pd_core.models.latent_shape import HEAD_LIMIT, LatentShape
from pd_core.models.rope_scaling import RopeScaling

__all__ = ["ModelConfig"]

# Settings that were added after the first fingerprints. They count only where they are set, so
# that the digest of a model that does not use them stays the same.
_LATER = {
    "family": "llama",
    "rope_scaling": None,
    "skip_v1_k_source": None,
    "skip_v1_own": None,
    "latent": None,
}

# Sizes are below these, so that no weight has more bytes than a number of 63 bits can count.
_SIZE_LIMIT = 2**24
_SIZE_LIMITS = {"max_context_tokens": 2**31, "num_layers": 2**10} | dict.fromkeys(
    ("num_heads", "num_kv_heads", "head_dim"), HEAD_LIMIT
)
# Outside of these, float32 computes nothing of use: infinite frequencies, norms of zero.
_RANGES = {"rms_norm_eps": (1e-20, 1.0), "rope_theta": (1.0, 1e20)}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama family: RMSNorm, RoPE, SwiGLU, grouped queries.

    Attributes:
        skip_v1: SkipV1Former (arXiv 2510.16807): in every layer but the first, the upper KV heads
            read the first layer's values instead of having their own.
        max_context_tokens: prompt and response together.
        attention_bias: biases on q, k, v and o.
        mlp_bias: biases on gate, up and down.
        family: "llama", "qwen2" (biases on q, k and v) or "qwen3" (norms on queries and keys).
        rope_scaling: how RoPE is stretched; None for plain RoPE.
        skip_v1_k_source: SkipV1-YOCO: the layers after this one (counted from 0) have no keys of
            their own and read its keys as they are cached. It is the last of the lower half.
        skip_v1_own: KV heads of such a layer that have values of their own, or elements of the
            latent that are its own; None for half of them, also where half was given.
        latent: multi-head latent attention; head_dim is then that of its rotated part, and there
            are as many KV heads as query heads, all made of one latent.

    Raises:
        ModelError: the numbers do not fit together; the message names them.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context_tokens: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    skip_v1: bool = False
    family: str = "llama"
    rope_scaling: RopeScaling | None = None
    skip_v1_k_source: int | None = None
    skip_v1_own: int | None = None
    latent: LatentShape | None = None

    def __post_init__(self) -> None:
        if self.skip_v1 and self.skip_v1_own == self._skip_v1_whole / 2:
            # Equal models have equal configs and fingerprints, whichever way half was written.
            object.__setattr__(self, "skip_v1_own", None)
        self._check_sizes()
        self._check_skip_v1()
        if self.family not in FAMILIES:
            raise ModelError(f"unknown family {self.family!r}; known: {', '.join(FAMILIES)}")
        family = FAMILIES[self.family]
        if family.latent != (self.latent is not None):
            raise ModelError(f"config: the family {self.family} and a latent do not fit together")
        if self.attention_bias and not family.has_bias_flags:
            raise ModelError(f"config: attention_bias means nothing to the family {self.family}")
        if self.mlp_bias and not family.has_mlp_bias_flag:
            raise ModelError(f"config: mlp_bias means nothing to the family {self.family}")
        for name, (least, most) in _RANGES.items():
            number = getattr(self, name)
            if not least <= number <= most:  # nor NaN
                raise ModelError(
                    f"config: {name} is {number}; it must be from {least:g} to {most:g}"
                )

    def _check_sizes(self) -> None:
        sizes = {k: v for k, v in asdict(self).items() if type(v) is int}
        for name in ("skip_v1_k_source", "skip_v1_own"):
            sizes.pop(name, None)
        for name, value in sizes.items():
            limit = _SIZE_LIMITS.get(name, _SIZE_LIMIT)
            if not 0 < value < limit:
                raise ModelError(
                    f"config: {name} is {value}; it must be 1 or more, and below {limit}"
                )
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"config: {self.num_heads} query heads cannot share {self.num_kv_heads} KV heads "
                "evenly"
            )
        if self.head_dim % 2:
            raise ModelError(f"config: head_dim is {self.head_dim}; RoPE needs an even one")

    def _check_skip_v1(self) -> None:
        if self.latent is not None:
            self._check_latent()
        if self.skip_v1:
            self._check_own()
        elif self.skip_v1_own is not None:
            raise ModelError("config: skip_v1_own is set, but skip_v1 is false")
        if self.skip_v1_k_source is None:
            return
        if not self.skip_v1:
            raise ModelError("config: skip_v1_k_source is set, but skip_v1 is false")
        if self.num_layers % 2 or self.skip_v1_k_source != self.num_layers // 2 - 1:
            raise ModelError(
                f"config: skip_v1_k_source is {self.skip_v1_k_source} of {self.num_layers} "
                "layers; sharing keys needs an even number of layers, and the source is the last "
                "of the lower half (num_hidden_layers / 2 - 1, counted from 0)"
            )

    def _check_own(self) -> None:
        whole = self._skip_v1_whole
        what = "KV heads" if self.latent is None else "elements of the latent"
        if whole < 2:
            raise ModelError(
                f"config: skip_v1 shares some of the {what} with the first layer, and there is "
                "1 only; use a checkpoint with more"
            )
        if self.skip_v1_own is None and whole % 2:
            raise ModelError(
                f"config: skip_v1 leaves each layer half of the {what}, and {whole} is not even; "
                f"say how many in skip_v1_own, from 1 to {whole - 1}"
            )
        if self.skip_v1_own is not None and not 0 < self.skip_v1_own < whole:
            raise ModelError(
                f"config: skip_v1_own is {self.skip_v1_own} of {whole} {what}; it must be from 1 "
                f"to {whole - 1}, so that some are a layer's own and some the first layer's"
            )

    def _check_latent(self) -> None:
        if self.num_kv_heads != self.num_heads:
            raise ModelError(
                f"config: latent attention has as many KV heads as query heads, {self.num_heads}; "
                f"not {self.num_kv_heads}"
            )
        if self.skip_v1_k_source is not None:
            raise ModelError("config: skip_v1_k_source means nothing to latent attention")

    @property
    def _skip_v1_whole(self) -> int:
        """What SkipV1 parts into own and shared: KV heads, or elements of the latent."""
        return self.num_kv_heads if self.latent is None else self.latent.kv_rank

    def _num_own(self, layer: int) -> int:
        """How much of that a layer has of its own."""
        whole = self._skip_v1_whole
        if not (self.skip_v1 and layer):
            return whole
        return whole // 2 if self.skip_v1_own is None else self.skip_v1_own

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def qkv_bias(self) -> bool:
        """Whether q, k and v have biases."""
        return self.attention_bias or FAMILIES[self.family].qkv_bias

    @property
    def qk_norm(self) -> bool:
        """Whether each head's query and key are normalised before RoPE."""
        return FAMILIES[self.family].qk_norm

    def key_layer(self, layer: int) -> int:
        """The layer whose keys a layer reads: its own, but for the upper half of SkipV1-YOCO."""
        return layer if self.skip_v1_k_source is None else min(layer, self.skip_v1_k_source)

    def num_key_heads(self, layer: int) -> int:
        """KV heads of a layer that have keys of their own."""
        return self.num_kv_heads if self.key_layer(layer) == layer else 0

    def num_value_heads(self, layer: int) -> int:
        """KV heads of a layer that have values of their own."""
        return self.num_kv_heads if self.latent is not None else self._num_own(layer)

    def own_rank(self, layer: int) -> int:
        """Elements of the latent that a layer of latent attention has of its own."""
        assert self.latent is not None, "only latent attention has a latent"
        return self._num_own(layer)

    def layer_heads(self) -> tuple[LayerHeads, ...]:
        """What each layer caches."""
        if self.latent is not None:
            return tuple(
                LayerHeads(1, 0, self.own_rank(i) + self.head_dim) for i in range(self.num_layers)
            )
        return tuple(
            LayerHeads(self.num_key_heads(i), self.num_value_heads(i))
            for i in range(self.num_layers)
        )

    def plain_kv_elements(self) -> int:
        """Elements that a plain model of this shape caches per token."""
        if self.latent is not None:
            return self.num_layers * (self.latent.kv_rank + self.head_dim)
        return self.num_layers * 2 * self.num_kv_heads * self.head_dim

    def kv_saving(self) -> Fraction:
        """The share of the plain model's KV cache that is not needed, by the papers' formula.

        (L - 1) / L of the shared part of the values, S / (2 G) with S of G KV heads shared; and
        SkipV1-YOCO saves a quarter more, the keys of half the layers. With half of the heads
        shared that is (L - 1) / (4 L) and 1/2 - 1/(4 L) (arXiv 2510.16807). Of SkipV1-MLA the
        first layer's whole latent is counted, which the paper's table leaves out.
        """
        if not self.skip_v1:
            return Fraction(0)
        later = Fraction(self.num_layers - 1, self.num_layers)
        shared = self._skip_v1_whole - self._num_own(1)
        if self.latent is not None:
            return later * Fraction(shared, self.latent.kv_rank + self.head_dim)
        values = later * Fraction(shared, 2 * self.num_kv_heads)
        return values if self.skip_v1_k_source is None else values + Fraction(1, 4)

    def semantic(self) -> dict[str, Any]:
        """Return the settings that change what the weights compute, as JSON values."""
        settings = asdict(self)
        del settings["max_context_tokens"]
        return {k: v for k, v in settings.items() if k not in _LATER or v != _LATER[k]}
