"""How well a model predicts a side of a corpus: loss, bits per byte, loss by position."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pd_training.corpus.sequences import PackedSequences
from pd_training.corpus.token_store import Split
from pd_training.recipe.precision import autocast

__all__ = ["Evaluation", "PositionLoss", "evaluate"]


@dataclass(frozen=True, slots=True)
class PositionLoss:
    """The mean loss of the targets with `first + 1` to `end` tokens before them."""

    first: int
    end: int
    loss: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        tokens: number of targets evaluated.
        loss: nats per token, including end-of-sequence tokens.
        bits_per_byte: the loss over the split's bytes per token; comparable between tokenizers.
        by_position: positions 0, 1, 2..3, 4..7, ... up to the context.
    """

    tokens: int
    loss: float
    bits_per_byte: float
    by_position: tuple[PositionLoss, ...]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    context_tokens: int,
    batch_sequences: int = 8,
    max_tokens: int | None = None,
    dtype: str = "float32",
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate on windows in corpus order, spread evenly if not all are used.

    Raises:
        ConfigError: the split is shorter than one window.
    """
    place = device or torch.device("cpu")
    sequences = PackedSequences(split.tokens, context_tokens, seed=None)
    wanted = sequences.num_windows
    if max_tokens is not None:
        wanted = min(wanted, max(1, max_tokens // context_tokens))
    chosen = [i * sequences.num_windows // wanted for i in range(wanted)]
    sums = torch.zeros(context_tokens, dtype=torch.float64)
    for first in range(0, wanted, batch_sequences):
        rows = np.stack([sequences.window(i) for i in chosen[first : first + batch_sequences]])
        ids = torch.from_numpy(rows).to(place)
        with autocast(dtype, place):
            logits = model(ids[:, :-1])
        losses = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
        sums += losses.double().sum(0).cpu()
    loss = float(sums.sum()) / (wanted * context_tokens)
    tokens_per_byte = len(split.tokens) / split.text_bytes
    return Evaluation(
        tokens=wanted * context_tokens,
        loss=loss,
        bits_per_byte=loss / math.log(2) * tokens_per_byte,
        by_position=tuple(
            PositionLoss(a, b, float(sums[a:b].sum()) / (wanted * (b - a)))
            for a, b in _doubling(context_tokens)
        ),
    )


def _doubling(length: int) -> list[tuple[int, int]]:
    """Return [0, 1), [1, 2), [2, 4), [4, 8), ... up to length."""
    edges = [0, *(2**i for i in range(length.bit_length()) if 2**i < length), length]
    return list(itertools.pairwise(edges))
