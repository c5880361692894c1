"""Converts a plain checkpoint to a SkipV1Former for uptraining (arXiv 2510.16807, uptraining).

In every layer but the first, the values of G KV heads become those of K, by default half: own head
j is made from some of the checkpoint's, by default their mean. Queries, keys, outputs, MLPs and the
first layer are unchanged. The result predicts worse than the checkpoint until it is trained on.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pd_core.checkpoints.checkpoint import read_json
from pd_core.checkpoints.hf_config import read_config
from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.stored_weights import StoredWeights
from pd_core.errors import ConfigError, ModelError
from pd_core.files.atomic import new_folder
from pd_core.models.config import ModelConfig
from pd_core.models.families import FAMILIES
from pd_core.models.keep_share import HALF, own_count
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import COMPANIONS, TRAINING_FILE
from pd_training.model.output_fit import fit_output_projections
from pd_training.recipe.settings import INITS

__all__ = ["ConversionFacts", "convert_to_skip_v1", "own_values"]

_VALUES = re.compile(r"model\.layers\.(\d+)\.self_attn\.v_proj\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class ConversionFacts:
    """What is there before and after.

    Attributes:
        parameters: weights.
        kv_elements: elements of the KV cache per token.
        value_heads: KV heads with values of their own, in each layer but the first.
    """

    parameters: tuple[int, int]
    kv_elements: tuple[int, int]
    value_heads: tuple[int, int]


def own_values(
    values: Tensor,
    num_heads: tuple[int, int],
    init: str,
    generator: torch.Generator,
    weight: Tensor,
) -> Tensor:
    """Return the weight or bias of a SkipV1 layer's values, from a plain layer's.

    Args:
        values: (G * D, ...), head by head.
        num_heads: G, and K of the result.
        init: "mean" of heads j, j + K, j + 2K and so on, "adjacent" for the mean of neighbours (K
            groups of equal size, or the first ones larger by one), "first" for head j, "top" for
            the K heads whose weights have the largest Frobenius norm, in order, "random" for normal
            numbers of the same deviation (zeros for a bias).
        generator: source of the random numbers.
        weight: the layer's whole weight, (G * D, hidden), by which "top" ranks.

    Returns:
        (K * D, ...), in the same dtype.
    """
    whole, kept = num_heads
    heads = values.unflatten(0, (whole, -1)).float()  # type: ignore[no-untyped-call]
    if init == "mean":
        own = _means([heads[j::kept] for j in range(kept)])
    elif init == "adjacent":
        own = _means(torch.tensor_split(heads, kept))
    elif init == "first":
        own = heads[:kept]
    elif init == "top":
        own = heads[_top_heads(weight, whole, kept)]
    else:
        spread = float(heads.std()) if values.ndim > 1 else 0.0
        own = torch.randn(heads[:kept].shape, generator=generator) * spread
    merged: Tensor = own.flatten(0, 1).to(values.dtype)
    return merged


def _means(groups: Sequence[Tensor]) -> Tensor:
    """Return each group's mean head."""
    return torch.stack([heads.sum(0) / len(heads) for heads in groups])


def _top_heads(weight: Tensor, whole: int, kept: int) -> Tensor:
    """Return the indices of the largest heads, rising; ties go to the earlier head."""
    norms = weight.double().view(whole, -1).norm(dim=1)
    ranked = norms.argsort(descending=True, stable=True)
    largest: Tensor = ranked[:kept].sort().values
    return largest


def convert_to_skip_v1(
    source: Path,
    out: Path,
    *,
    keep: float = HALF,
    init: str = "mean",
    seed: int = 0,
    calibration: Sequence[Tensor] = (),
) -> ConversionFacts:
    """Write the SkipV1Former of a plain model directory into a new folder.

    Args:
        keep: share of the KV heads that have values of their own in each layer but the first,
            rounded to whole heads.
        init: see `own_values`; `seed` is for "random".
        calibration: ids (B, T) to fit the output projections on; empty: they are unchanged.

    Raises:
        ModelError: the source is broken, already a SkipV1Former, or has latent attention or a
            single KV head.
        ConfigError: `keep` is no share, `init` is unknown, or `out` cannot be written.
    """
    if init not in INITS:
        raise ConfigError(f"unknown --init {init!r}; known: {', '.join(INITS)}")
    before = inspect_model(source).config  # refuses whatever cannot be loaded
    raw_after = _skip_v1_config(source, before, keep)
    after = read_config(raw_after)
    files = ModelDirectory(source)
    checkpoint = files.checkpoint
    plain = dict(checkpoint.stored(files.shapes))
    generator = torch.Generator().manual_seed(seed)
    num_heads = (before.num_kv_heads, after.num_value_heads(1))
    tensors = {name: _converted(name, plain, num_heads, init, generator) for name in plain}
    if calibration:
        _fit_outputs(tensors, checkpoint, before, after, calibration)
    with new_folder(out) as folder:
        text = json.dumps(raw_after, indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        for name in ("tokenizer.json", TRAINING_FILE, *COMPANIONS):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return ConversionFacts(
        parameters=(_count(plain), _count(tensors)),
        kv_elements=(_kv_elements(before), _kv_elements(after)),
        value_heads=num_heads,
    )


def _skip_v1_config(source: Path, config: ModelConfig, keep: float) -> dict[str, Any]:
    """Return config.json with the SkipV1 architecture's name and keys."""
    if config.skip_v1:
        raise ModelError(f"{source} is a SkipV1Former already; convert a plain checkpoint")
    if config.latent is not None:
        raise ModelError(
            f"{source} has latent attention (MLA), whose latent has no heads to share; convert a "
            "checkpoint with KV heads, or train a SkipV1-MLA from scratch"
        )
    own, whole = own_count(keep, config.num_kv_heads), config.num_kv_heads
    raw = read_json(source / "config.json")
    raw.pop("quantization_config", None)  # the weights are written as floats
    return raw | {
        "architectures": [FAMILIES[config.family].skip_architecture],
        "skip_v1": True,
        "skip_v1_k_source": None,
        "skip_v1_own": None if 2 * own == whole else own,
    }


def _converted(
    name: str,
    plain: Mapping[str, Tensor],
    num_heads: tuple[int, int],
    init: str,
    generator: torch.Generator,
) -> Tensor:
    found, tensor = _VALUES.fullmatch(name), plain[name]
    if found is None or int(found[1]) == 0:
        return tensor.contiguous()
    weight = plain[name.removesuffix("bias") + "weight" if found[2] == "bias" else name]
    return own_values(tensor, num_heads, init, generator, weight).contiguous()


def _fit_outputs(
    tensors: dict[str, Tensor],
    checkpoint: StoredWeights,
    before: ModelConfig,
    after: ModelConfig,
    calibration: Sequence[Tensor],
) -> None:
    """Replace the later layers' output weights with fitted ones, in the stored dtype."""
    original, converted = TrainingModel(before), TrainingModel(after)
    checkpoint.load_into(original.state_dict(), tied_head=before.tie_word_embeddings)
    for name, place in converted.state_dict().items():
        place.copy_(tensors[name])
    fit_output_projections(original, converted, calibration)
    for name, fitted in converted.state_dict().items():
        if name.endswith("o_proj.weight"):
            tensors[name] = fitted.to(tensors[name].dtype)


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _kv_elements(config: ModelConfig) -> int:
    """Count the cache's elements per token: keys and own values of every layer."""
    heads = sum(
        config.num_kv_heads + config.num_value_heads(layer) for layer in range(config.num_layers)
    )
    return heads * config.head_dim
