"""A plain checkpoint turned into a SkipV1Former, to be uptrained (arXiv 2510.16807, uptraining).

In every layer but the first, G KV heads' values become G / 2: own head j is made of two of the
checkpoint's, by default their mean. Queries, keys, outputs, MLPs and the first layer stay as they
are. The result predicts worse than the checkpoint until it has been trained on.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pd_core.errors import ConfigError, ModelError
from pd_core.models.checkpoint import Checkpoint, read_json
from pd_core.models.config import ModelConfig
from pd_training.atomic import new_folder
from pd_training.model import TrainingModel
from pd_training.output_fit import fit_output_projections
from pd_training.settings import INITS

__all__ = ["ConversionFacts", "convert_to_skip_v1", "own_values"]

_VALUES = re.compile(r"model\.layers\.(\d+)\.self_attn\.v_proj\.(weight|bias)")
# What belongs to a model beside its weights and config.
_COMPANIONS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("generation_config.json", "chat_template.jinja", "training.json"),
)


@dataclass(frozen=True, slots=True)
class ConversionFacts:
    """Weights before and after, and KV elements per token before and after."""

    parameters: tuple[int, int]
    kv_elements: tuple[int, int]


def own_values(values: Tensor, num_kv_heads: int, init: str, generator: torch.Generator) -> Tensor:
    """Return the values' weight or bias of a SkipV1 layer, from a plain layer's.

    Args:
        values: (G * D, ...), head by head.
        num_kv_heads: G, even.
        init: "mean" of heads j and j + G/2, "adjacent" for the mean of heads 2j and 2j + 1, "first"
            for head j, "random" for normal numbers of the same deviation (zeros for a bias).
        generator: of the random ones.

    Returns:
        (G / 2 * D, ...), in the same dtype.
    """
    half = num_kv_heads // 2
    heads = values.unflatten(0, (num_kv_heads, -1)).float()  # type: ignore[no-untyped-call]
    if init == "mean":
        own = (heads[:half] + heads[half:]) / 2
    elif init == "adjacent":
        own = (heads[0::2] + heads[1::2]) / 2
    elif init == "first":
        own = heads[:half]
    else:
        spread = float(heads.std()) if values.ndim > 1 else 0.0
        own = torch.randn(heads[:half].shape, generator=generator) * spread
    merged: Tensor = own.flatten(0, 1).to(values.dtype)
    return merged


def convert_to_skip_v1(
    source: Path,
    out: Path,
    *,
    init: str = "mean",
    seed: int = 0,
    calibration: Sequence[Tensor] = (),
) -> ConversionFacts:
    """Write the SkipV1Former of a plain model directory into a new folder.

    Args:
        init: see `own_values`; `seed` is of the random one.
        calibration: ids (B, T) on which the output projections are then fitted; none: they stay.

    Raises:
        ModelError: the source is broken, a SkipV1Former already, or has an odd number of KV heads.
        ConfigError: `init` is unknown, or `out` cannot be written.
    """
    if init not in INITS:
        raise ConfigError(f"unknown --init {init!r}; known: {', '.join(INITS)}")
    raw = read_json(source / "config.json")
    before = ModelConfig.from_hf(raw)
    if before.skip_v1:
        raise ModelError(f"{source} is a SkipV1Former already; convert a plain checkpoint")
    raw_after = _skip_v1_config(raw)
    after = ModelConfig.from_hf(raw_after)
    checkpoint = Checkpoint(source)
    tensors: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    num_before = 0
    for name, tensor in _stored(checkpoint):
        num_before += tensor.numel()
        tensors[name] = _converted(name, tensor, before, init, generator)
    _check_values(tensors, after)
    if calibration:
        _fit_outputs(tensors, checkpoint, before, after, calibration)
    with new_folder(out) as folder:
        text = json.dumps(raw_after, indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        for name in _COMPANIONS:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return ConversionFacts(
        parameters=(num_before, sum(tensor.numel() for tensor in tensors.values())),
        kv_elements=(_kv_elements(before), _kv_elements(after)),
    )


def _stored(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a checkpoint, by rising name."""
    for file in checkpoint.files:
        with safe_open(file, framework="pt") as opened:
            for name in sorted(opened.keys()):
                yield name, opened.get_tensor(name)


def _skip_v1_config(raw: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with the SkipV1 architecture's name and keys."""
    plain = (raw.get("architectures") or ["LlamaForCausalLM"])[0]
    return raw | {
        "architectures": [f"SkipV1{plain}"],
        "skip_v1": True,
        "skip_v1_k_source": None,
    }


def _converted(
    name: str, tensor: Tensor, config: ModelConfig, init: str, generator: torch.Generator
) -> Tensor:
    found = _VALUES.fullmatch(name)
    if found is None or int(found[1]) == 0:
        return tensor.contiguous()
    if tensor.shape[0] != config.num_kv_heads * config.head_dim:
        raise ModelError(
            f"tensor {name} has {tensor.shape[0]} rows; the config asks for "
            f"{config.num_kv_heads} x {config.head_dim}"
        )
    if not tensor.isfinite().all():
        raise ModelError(f"tensor {name} holds NaN or infinite values")
    return own_values(tensor, config.num_kv_heads, init, generator).contiguous()


def _fit_outputs(
    tensors: dict[str, Tensor],
    checkpoint: Checkpoint,
    before: ModelConfig,
    after: ModelConfig,
    calibration: Sequence[Tensor],
) -> None:
    """Replace the later layers' output weights by fitted ones, in the stored type."""
    original, converted = TrainingModel(before), TrainingModel(after)
    checkpoint.load_into(original.state_dict(), tied_head=before.tie_word_embeddings)
    for name, place in converted.state_dict().items():
        place.copy_(tensors[name])
    fit_output_projections(original, converted, calibration)
    for name, fitted in converted.state_dict().items():
        if name.endswith("o_proj.weight"):
            tensors[name] = fitted.to(tensors[name].dtype)


def _check_values(tensors: dict[str, Tensor], config: ModelConfig) -> None:
    """Refuse a checkpoint in which some layer's values were not found."""
    for layer in range(config.num_layers):
        name = f"model.layers.{layer}.self_attn.v_proj.weight"
        if name not in tensors:
            raise ModelError(f"the checkpoint lacks {name}; only Llama's layout can be converted")


def _kv_elements(config: ModelConfig) -> int:
    """Count the cache's elements per token: keys and own values of every layer."""
    heads = sum(
        config.num_kv_heads + config.num_value_heads(layer) for layer in range(config.num_layers)
    )
    return heads * config.head_dim
