"""What choosing a step's tokens costs: all rows together, against the definition row by row.

Logits fall with the logarithm of their rank, as a language model's roughly do. Both ways choose the
same tokens, which is checked; they take turns.
"""

import itertools
import statistics
import time
from dataclasses import dataclass, replace

import torch
from rich.table import Table
from torch import Tensor

from pd_core.errors import ConfigError
from pd_core.sampling.one_row import choose_one
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams

__all__ = ["SamplerCost", "measure_sampler", "sampler_table"]

_VOCABULARIES = (49_152, 151_936)  # SmolLM2's and Qwen2's
_ROWS = (1, 16, 64)
_KINDS = {
    "greedy": SamplingParams(),
    "temperature 1": SamplingParams(temperature=1.0),
    "top-k 40": SamplingParams(temperature=0.8, top_k=40),
    "top-p 0.95": SamplingParams(temperature=1.0, top_p=0.95),
    "min-p 0.05": SamplingParams(temperature=1.0, min_p=0.05),
}


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """Seconds of one step's choices, medians.

    Attributes:
        vocabulary: token ids.
        rows: tokens chosen.
        kind: how.
        alone_s: row by row.
        together_s: all rows together.
    """

    vocabulary: int
    rows: int
    kind: str
    alone_s: float
    together_s: float


def measure_sampler(num_rounds: int) -> list[SamplerCost]:
    """Time both ways in turns, after a first round that does not count.

    Raises:
        ConfigError: they chose different tokens.
    """
    with torch.inference_mode():
        return [
            _cost(_logits(rows, vocabulary), kind, num_rounds)
            for vocabulary, rows, kind in itertools.product(_VOCABULARIES, _ROWS, _KINDS)
        ]


def sampler_table(costs: list[SamplerCost]) -> Table:
    """Show the costs."""
    table = Table("ids", "rows", "sampling", "row by row, ms", "together, ms", "times")
    for each in costs:
        ratio = each.alone_s / each.together_s
        alone, together = f"{1000 * each.alone_s:.2f}", f"{1000 * each.together_s:.2f}"
        table.add_row(
            f"{each.vocabulary:,}", str(each.rows), each.kind, alone, together, f"{ratio:.1f}"
        )
    return table


def _logits(rows: int, vocabulary: int) -> Tensor:
    made = torch.Generator().manual_seed(rows)
    ranks = torch.stack([torch.randperm(vocabulary, generator=made) for _ in range(rows)])
    return 14 - 1.4 * (ranks + 1).log() + 0.3 * torch.randn(rows, vocabulary, generator=made)


def _cost(logits: Tensor, kind: str, num_rounds: int) -> SamplerCost:
    rows, vocabulary = logits.shape
    params = [replace(_KINDS[kind], seed=seed) for seed in range(rows)]
    alone_s, together_s = list[float](), list[float]()
    for position in range(num_rounds + 1):
        began_s = time.perf_counter()
        alone = [choose_one(logits[i].double(), params[i], position) for i in range(rows)]
        between_s = time.perf_counter()
        together = sample(logits, params, [position] * rows, ())
        together_s.append(time.perf_counter() - between_s)
        alone_s.append(between_s - began_s)
        if alone != together:
            raise ConfigError(f"rows together chose other tokens ({kind}): report this as a bug")
    medians = (statistics.median(seconds[1:]) for seconds in (alone_s, together_s))
    return SamplerCost(vocabulary, rows, kind, *medians)
