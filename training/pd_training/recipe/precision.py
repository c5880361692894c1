"""The arithmetic of a forward pass: float32, or bfloat16 where autocast allows it."""

import contextlib

import torch

__all__ = ["autocast"]


def autocast(dtype: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context of a forward pass in "float32" or "bfloat16"."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
