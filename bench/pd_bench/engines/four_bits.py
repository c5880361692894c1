"""A model's directory with weights of 4 bits, as our integer engine reads it: made to be timed.

`pd-train quantize` makes better ones of a calibration text; both have the same speed.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pd_core.checkpoints.hf_config import write_config
from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.packed_weights import pack
from pd_core.checkpoints.quantization_config import (
    PACKED_FORMAT,
    PackedScheme,
    quantization_config,
)
from pd_core.integer.group_rounding import group_scales, round_groups
from pd_core.integer.weights import GROUP

__all__ = ["write_four_bits"]

_LINEAR = "_proj.weight"
_SCHEME = PackedScheme(PACKED_FORMAT, 4, GROUP)


def write_four_bits(spec: str, directory: Path) -> None:
    """Round a model's linear layers to 4 bits by searched scales, unless that was done before.

    Args:
        spec: as `load_model` takes it.
        directory: the new one.

    Raises:
        ModelError: the model cannot be loaded.
    """
    made = directory / "model.safetensors"
    if made.exists():
        return
    loaded = load_model(spec, fast=True)
    tensors = loaded.float_model.tensors()
    linear = [name for name in tensors if name.endswith(_LINEAR)]
    stored = {name: t.to(torch.float16) for name, t in tensors.items() if name not in linear}
    for name in linear:
        stored |= _packed(name, tensors[name].float())
    layers = sorted({name.split(".")[-2] for name in linear})
    config = write_config(loaded.model.config) | {
        "quantization_config": quantization_config({_SCHEME: layers})
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "tokenizer.json").write_text(loaded.tokenizer.to_str(), encoding="utf-8")
    part = made.with_suffix(".part")
    save_file(stored, part, metadata={"format": "pt"})
    part.rename(made)


def _packed(name: str, weight: Tensor) -> Mapping[str, Tensor]:
    rounded = round_groups(weight)
    return {
        f"{name}_scale": group_scales(rounded).contiguous(),
        f"{name}_packed": pack(rounded.codes, _SCHEME.bits),
        f"{name}_shape": torch.tensor(rounded.codes.shape),
    }
