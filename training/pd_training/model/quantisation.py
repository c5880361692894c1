"""Makes a compressed-tensors directory of a model: linear layers as integers of 8 or 4 bits.

Embedding, norms, biases and the output layer stay as they are stored. Layers are rounded one after
another; those of 4 bits on the activations of a calibration text, as the rounded layers before
them make them.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pd_core.checkpoints.checkpoint import read_json
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.packed_weights import pack
from pd_core.checkpoints.quantization_config import (
    PackedScheme,
    quantization_config,
    read_schemes,
)
from pd_core.errors import ConfigError, ModelError
from pd_core.files.atomic import new_folder
from pd_core.integer.group_rounding import group_scales
from pd_core.integer.weights import GROUP, IntegerWeight, round_rows
from pd_training.model.attention import Handed
from pd_training.model.error_feedback import round_with_feedback
from pd_training.model.model import TrainingModel, rope_tables
from pd_training.model.model_directory import COMPANIONS, TRAINING_FILE

__all__ = ["BITS", "LAYERS", "quantise"]

BITS = (8, 4)

LAYERS = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
"""The linear layers that are rounded."""

_ROWS_8 = PackedScheme("int-quantized", 8, 0)
_GROUPS_4 = PackedScheme("pack-quantized", 4, GROUP)
_PACKED_ROWS_8 = PackedScheme("pack-quantized", 8, 0)


def quantise(
    source: Path,
    out: Path,
    bits: int,
    *,
    calibration: Sequence[Tensor] = (),
    wide: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a model directory's weights as integers into a new folder; all of it or nothing.

    Args:
        source: the directory.
        out: the new folder.
        bits: 8 or 4.
        calibration: ids (B, T) each; for 4 bits, at least one.
        wide: layers that have 8 bits where the others have 4, as "down_proj".
        progress: called after each layer with its number from 1 on, and how many there are.

    Raises:
        ModelError: the source is broken, quantised already, or has latent attention.
        ConfigError: the bits are others, or `out` cannot be written.
    """
    if bits not in BITS:
        raise ConfigError(f"--bits {bits} is not supported; supported are 8 and 4")
    files, raw = ModelDirectory(source), read_json(source / "config.json")
    if read_schemes(raw):
        raise ModelError(f"{source} is quantised already; use the model that it was made from")
    if files.config.latent is not None:
        raise ModelError(
            f"{source} has latent attention (MLA), which integer numerics do not support; "
            "quantise a model with KV heads"
        )
    with new_folder(out) as folder:
        tensors, schemes = _rounded(files, bits, calibration, wide, progress)
        raw["quantization_config"] = quantization_config(schemes)
        text = json.dumps(raw, indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        for name in ("tokenizer.json", TRAINING_FILE, *COMPANIONS):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _rounded(
    files: ModelDirectory,
    bits: int,
    calibration: Sequence[Tensor],
    wide: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Tensor], dict[PackedScheme, list[str]]]:
    """Return what is to be stored, and the names of each scheme's layers."""
    model = TrainingModel(files.config).requires_grad_(False)
    tied = files.config.tie_word_embeddings
    files.checkpoint.load_into(model.state_dict(), tied_head=tied)
    kept = files.checkpoint.stored(name for name in files.shapes if not _is_linear(name))
    tensors = {name: tensor.contiguous() for name, tensor in kept}
    schemes: dict[PackedScheme, set[str]] = {}
    for done, layer in enumerate(_rounded_layers(model, bits, calibration, wide), 1):
        for name, weight in layer.items():
            scheme = _GROUPS_4 if weight.bits == 4 else _ROWS_8 if bits == 8 else _PACKED_ROWS_8
            schemes.setdefault(scheme, set()).add(name.split(".")[-2])
            tensors |= _stored(name, weight, scheme)
        if progress is not None:
            progress(done, files.config.num_layers)
    return tensors, {scheme: sorted(names) for scheme, names in schemes.items()}


def _is_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def _stored(name: str, weight: IntegerWeight, scheme: PackedScheme) -> dict[str, Tensor]:
    """Return a weight's tensors as the format has them."""
    scales = weight.scales[:, None] if weight.bits == 8 else group_scales(weight)
    stored = {f"{name}_scale": scales.contiguous()}
    if scheme.format == _ROWS_8.format:
        return stored | {name: weight.codes}
    return stored | {
        f"{name}_packed": pack(weight.codes, scheme.bits),
        f"{name}_shape": torch.tensor(weight.codes.shape),
    }


@torch.no_grad()
def _rounded_layers(
    model: TrainingModel, bits: int, calibration: Sequence[Tensor], wide: Sequence[str]
) -> Iterator[dict[str, IntegerWeight]]:
    """Round layer after layer, in place; yield each one's weights by name."""
    states = [model.model.embed_tokens(ids) for ids in calibration] if bits == 4 else []
    handed = [Handed() for _ in states]
    for index, layer in enumerate(model.model.layers):
        linear = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
        narrow = {n: m for n, m in linear.items() if bits == 4 and n.split(".")[-1] not in wide}
        moments = _moments(layer, narrow, states, handed, model)
        rounded = {}
        for name, module in linear.items():
            weight = module.weight.float()
            four = name in narrow
            whole = round_with_feedback(weight, moments[name]) if four else round_rows(weight)
            module.weight.copy_(whole.integers().float() * whole.scales[:, None])
            rounded[f"model.layers.{index}.{name}.weight"] = whole
        states = [
            layer(x, rope_tables(model.config, x), h) for x, h in zip(states, handed, strict=True)
        ]
        yield rounded


def _moments(
    layer: nn.Module,
    linear: Mapping[str, nn.Linear],
    states: Sequence[Tensor],
    handed: Sequence[Handed],
    model: TrainingModel,
) -> dict[str, Tensor]:
    """Return the sums of x^T x (K, K) of the inputs x of a layer's linear parts."""
    found: dict[str, Tensor] = {}
    last: list[tuple[Tensor, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not last or last[-1][0] is not inputs[0]:  # queries, keys and values share theirs
                rows = inputs[0].flatten(0, 1).float()
                last[:] = [(inputs[0], rows.mT @ rows)]
            found[name] = found[name] + last[-1][1] if name in found else last[-1][1]

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in linear.items()]
    for x, h in zip(states, handed, strict=True):
        layer(x, rope_tables(model.config, x), Handed(h.first, h.keys))
    for hook in hooks:
        hook.remove()
    return found
