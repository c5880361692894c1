"""The shape of a model that is trained from scratch: from a few numbers to a whole config."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pd_core.errors import ConfigError
from pd_core.settings.option import Option
from pd_training.recipe.settings import check_count

if TYPE_CHECKING:
    from pd_core.models.config import ModelConfig

__all__ = ["ModelShape"]

_FAMILIES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What `pd-train pretrain` asks of a model.

    With a latent each head's query and key have hidden / heads unrotated elements, and so has its
    value; half of that is rotated where nothing else is said, as in DeepSeek-V2 (arXiv 2405.04434).
    """

    hidden: Annotated[int, Option("Width.")] = 256
    layers: Annotated[int, Option("Decoder layers.")] = 6
    heads: Annotated[int, Option("Query heads.")] = 8
    kv_heads: Annotated[int | None, Option("KV heads; the query heads if not set.")] = None
    inter: Annotated[int | None, Option("MLP width; 8/3 of the width if not set.")] = None
    family: Annotated[str, Option("llama, qwen2 (biases) or qwen3 (norms).")] = "llama"
    tied: Annotated[bool, Option("Output layer = embedding.")] = True
    skip_v1: Annotated[bool, Option("SkipV1Former.")] = False
    skip_v1_keep: Annotated[
        float | None, Option("SkipV1: share of own values in later layers; 0.5 if not set.")
    ] = None
    yoco: Annotated[bool, Option("SkipV1-YOCO: the upper half reuses keys, too.")] = False
    latent_rank: Annotated[int | None, Option("MLA with a latent of N elements.")] = None
    rope_dim: Annotated[
        int | None, Option("MLA's rotated key; half a head's width if not set.")
    ] = None

    def config(self, vocab_size: int, max_context_tokens: int) -> "ModelConfig":
        """Return the whole config.

        Raises:
            ConfigError: two options contradict each other, or a number is none.
            ModelError: the numbers do not fit together.
        """
        # These import torch, which help need not wait for.
        from pd_core.models.config import ModelConfig
        from pd_core.models.keep_share import own_count
        from pd_core.models.latent_shape import LatentShape

        self._check()
        head_dim = self.hidden // self.heads
        latent = None
        if self.latent_rank is not None:
            latent = LatentShape(self.latent_rank, nope_dim=head_dim, value_dim=head_dim)
            half = max(2, head_dim // 4 * 2)  # rounded down to an even number
            head_dim = half if self.rope_dim is None else self.rope_dim
        inter = -(-self.hidden * 8 // 24) * 8 if self.inter is None else self.inter
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden,
            intermediate_size=inter,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self._num_kv_heads,
            head_dim=head_dim,
            max_context_tokens=max_context_tokens,
            tie_word_embeddings=self.tied,
            skip_v1=self._skips,
            skip_v1_own=own_count(self._keep, self._whole) if self._skips else None,
            skip_v1_k_source=self.layers // 2 - 1 if self.yoco else None,
            family=self.family if latent is None else "deepseek_v2",
            latent=latent,
        )

    def rounding_note(self) -> str | None:
        """Return what to say of a share that is no whole number of heads; None: it is one."""
        from pd_core.models.keep_share import rounding_note

        what = "KV heads" if self.latent_rank is None else "elements of the latent"
        return rounding_note(self._keep, self._whole, what) if self._skips else None

    @property
    def _skips(self) -> bool:
        return self.skip_v1 or self.yoco

    @property
    def _keep(self) -> float:
        return 0.5 if self.skip_v1_keep is None else self.skip_v1_keep

    @property
    def _num_kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def _whole(self) -> int:
        """What SkipV1 shares: KV heads, or elements of the latent."""
        return self._num_kv_heads if self.latent_rank is None else self.latent_rank

    def _check(self) -> None:
        for option in ("hidden", "layers", "heads", "kv_heads", "inter", "latent_rank", "rope_dim"):
            value = getattr(self, option)
            if value is not None:
                check_count(f"--{option.replace('_', '-')}", value)
        if self.family not in _FAMILIES:
            raise ConfigError(f"unknown --family {self.family!r}; known: {', '.join(_FAMILIES)}")
        if self.hidden % self.heads:
            raise ConfigError(f"a width of {self.hidden} does not divide by {self.heads} heads")
        if self.yoco and self.layers % 2:
            raise ConfigError(
                f"--yoco lets the upper half of the layers read the lower half's keys, and "
                f"{self.layers} is odd; give --layers an even number"
            )
        if self.skip_v1_keep is not None and not self._skips:
            raise ConfigError("--skip-v1-keep is of SkipV1; give --skip-v1 or --yoco too")
        if self.rope_dim is not None and self.latent_rank is None:
            raise ConfigError("--rope-dim is of latent attention; give --latent-rank too")
        if self.latent_rank is not None:
            self._check_latent()

    def _check_latent(self) -> None:
        if self.yoco:
            raise ConfigError("--yoco and --latent-rank exclude each other; choose one")
        if self.family != "llama":
            raise ConfigError(
                f"--latent-rank makes DeepSeek-V2's attention; leave out --family {self.family}"
            )
        if self.kv_heads not in (None, self.heads):
            raise ConfigError(
                "with --latent-rank every head has a key and a value of its own, all made of one "
                "latent; leave out --kv-heads"
            )
        if self.rope_dim is not None and self.rope_dim % 2:
            raise ConfigError(f"--rope-dim is {self.rope_dim}; RoPE needs an even one")
