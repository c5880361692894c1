"""The sizes of multi-head latent attention."""

from dataclasses import asdict, dataclass

from pd_core.errors import ModelError

__all__ = ["HEAD_LIMIT", "LatentShape"]

HEAD_LIMIT = 2**14
"""Numbers of heads, and the sizes of heads and latents, are below this."""


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Sizes of MLA (DeepSeek-V2) besides those every model has.

    Attributes:
        kv_rank: elements of the latent that a token caches.
        nope_dim: elements of each head's query and key that are not rotated.
        value_dim: elements of each head's value.

    Raises:
        ModelError: a size is not positive, or not below HEAD_LIMIT.
    """

    kv_rank: int
    nope_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < HEAD_LIMIT:
                raise ModelError(
                    f"config: {name} is {value}; it must be 1 or more, and below {HEAD_LIMIT}"
                )
