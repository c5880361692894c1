"""Ways to choose what a refined prompt keeps, each as a score of every prompt token.

All go through `pd_core.refinement.chosen_ranges`, so they differ in the scores alone: the same
chunks, the same first and last tokens, the same number kept.

Legend: n prompt tokens, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pd_bench.refine.reading import Model, Reading
from pd_core.models.prompt_scores import SCORE_WINDOW

__all__ = ["METHODS", "scores_of"]

METHODS = ("attention", "look-ahead", "self-information", "recent", "random")
"""attention: what the cloud sends. look-ahead: attention of the cloud's first tokens, instead of
the prompt's last. self-information: how unexpected a token was (Selective Context)."""


def scores_of(
    method: str,
    model: Model,
    prompt: Sequence[int],
    answer: Sequence[int],
    full: Reading,
    seed: int,
) -> NDArray[np.float64]:
    """Return one score for each prompt token, (n,).

    Args:
        method: one of METHODS.
        model: the model.
        prompt: the tokens.
        answer: the tokens that the cloud sends first; look-ahead uses up to SCORE_WINDOW of them.
        full: the whole prompt and these tokens, as read.
        seed: of random scores.
    """
    n = len(prompt)
    match method:
        case "attention":
            scores = model.prompt_scores(torch.tensor(prompt), full.cache)
        case "look-ahead":
            ahead = [*prompt, *answer[:SCORE_WINDOW]]
            scores = model.prompt_scores(torch.tensor(ahead), full.cache)[:n]
        case "self-information":
            scores = _self_information(model, prompt, full.hidden)
        case "recent":
            return np.arange(n, dtype=np.float64)
        case "random":
            return np.random.default_rng(seed).random(n)
        case _:
            raise AssertionError(f"unknown method {method}")
    return scores.double().numpy()


def _self_information(model: Model, prompt: Sequence[int], hidden: Tensor) -> Tensor:
    """Return minus the log-probability of each token, (n,); the first has none and gets 0."""
    rows, ids = 64, torch.tensor(prompt)
    found = [torch.zeros(1)]
    for first in range(0, len(prompt) - 1, rows):
        end = min(first + rows, len(prompt) - 1)
        logits = model.logits(hidden[first:end]).log_softmax(-1)
        found.append(-logits.gather(1, ids[first + 1 : end + 1, None])[:, 0])
    return torch.cat(found)
