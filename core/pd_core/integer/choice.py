"""Which numerics a model is computed in, where the user leaves it open."""

from pd_core.integer.kernel_library import kernel_library
from pd_core.integer.native_passes import fits_kernels
from pd_core.models.config import ModelConfig

__all__ = ["chosen_numerics"]

# Smaller models are quick in float32 too, which is what they were trained in.
_LEAST_PARAMETERS = 50_000_000


def chosen_numerics(
    wanted: str, config: ModelConfig, num_parameters: int, *, plain: bool = True
) -> str:
    """Return "float32" or "integer".

    "auto" is integer for a model of 50 million parameters or more, where the native kernels serve
    it: there decoding is several times faster, at a loss that a text hardly shows.

    Args:
        wanted: one of NUMERICS.
        config: the model's.
        num_parameters: its weights.
        plain: in floats it would be computed reproducibly, in float32 on the CPU; "auto" leaves
            any other wish as it is.
    """
    if wanted != "auto":
        return wanted
    large = plain and num_parameters >= _LEAST_PARAMETERS and config.latent is None
    usable = large and kernel_library() is not None and fits_kernels(config)
    return "integer" if usable else "float32"
