"""A converted model's output projections, fitted to the original's attention by least squares.

Layer by layer from the second on: X are the heads' outputs of the converted model, whose lower
layers are already fitted; Y is what the original's attention adds to the residual stream. The new
W_O minimises |X W_O^T - Y|^2 + r |W_O - W_O^old|^2, so directions that do not occur in the text
stay unchanged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pd_training.corpus.sequences import PackedSequences
from pd_training.corpus.token_store import TokenStore
from pd_training.model.model import TrainingModel

__all__ = ["calibration_batches", "fit_output_projections", "ridge_update"]

_RIDGE = 1e-4  # as a share of the mean square of the heads' outputs
_BATCH_SEQUENCES = 4


def calibration_batches(store: TokenStore, context_tokens: int, max_tokens: int) -> list[Tensor]:
    """Return windows of a prepared corpus's training side: (B, T) ids each, in a fixed order.

    Raises:
        ConfigError: the corpus is too small.
    """
    sequences = PackedSequences(store.train.tokens, context_tokens, seed=0)
    count = min(sequences.num_windows, max(1, max_tokens // context_tokens))
    return [
        sequences.batch(first, min(_BATCH_SEQUENCES, count - first))[0]
        for first in range(0, count, _BATCH_SEQUENCES)
    ]


def ridge_update(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return the change of W_O: (hidden, H * D), float64.

    Args:
        gram: X^T X, (H * D, H * D).
        cross: (Y - X W_O^T)^T X, (hidden, H * D).
        ridge: r as a share of the mean of gram's diagonal.
    """
    weight = ridge * gram.diagonal().mean()
    penalised = gram + weight * torch.eye(len(gram), dtype=gram.dtype)
    change: Tensor = torch.linalg.solve(penalised, cross.mT).mT
    return change


@torch.no_grad()
def fit_output_projections(
    original: TrainingModel, converted: TrainingModel, batches: Sequence[Tensor]
) -> None:
    """Fit the converted model's W_O in place, every layer but the first.

    Args:
        original: the plain model that `converted` was made from.
        batches: calibration text, (B, T) ids each.
    """
    for index in range(1, converted.config.num_layers):
        teacher, pupil = (_output_projection(model, index) for model in (original, converted))
        hidden, width = pupil.weight.shape
        gram = torch.zeros(width, width, dtype=torch.float64)
        cross = torch.zeros(hidden, width, dtype=torch.float64)
        for ids in batches:
            inputs, had = _watched(converted, pupil, ids)
            _, wanted = _watched(original, teacher, ids)
            gram += inputs.mT @ inputs
            cross += (wanted - had).mT @ inputs
        pupil.weight += ridge_update(gram, cross, _RIDGE).to(pupil.weight.dtype)


def _output_projection(model: TrainingModel, index: int) -> nn.Linear:
    found = model.get_submodule(f"model.layers.{index}.self_attn.o_proj")
    assert isinstance(found, nn.Linear), "an output projection is linear"
    return found


def _watched(model: TrainingModel, layer: nn.Linear, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Run a model; return a layer's inputs (B * T, in) and outputs (B * T, out) in float64."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].flatten(0, 1).double(), output.flatten(0, 1).double()))

    handle = layer.register_forward_hook(note)
    try:
        model(ids)
    finally:
        handle.remove()
    return seen[0]
