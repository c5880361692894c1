"""Choosing the tokens of many rows at once, without sorting a vocabulary.

Each function returns the token that `one_row.choose_one` defines, or -1 where its own arithmetic is
not sharp enough to be sure (a sum or a maximum within rounding of an edge, or a distribution too
flat for the few candidates it looks at). No row's answer depends on another row.

Rows come as the model made them, (R, V) in any float dtype, with each row's temperature: dividing
keeps the order, so candidates are found before anything is divided. Only for float64 rows could two
different values become equal by it, so these are divided before they come here.
"""

import torch
from torch import Tensor

from pd_core.sampling.noise import BITS, gumbel, shares_left
from pd_core.sampling.one_row import check_largest
from pd_core.sampling.row_blocks import BLOCK, first_largest, largest

__all__ = ["Filters", "filtered_choices", "greedy_choices", "kept_choices", "plain_choices"]

_CLOSE = 1e-10  # sums closer than this, relatively, are left to the definition
_MASS_ERROR = 1e-4  # of a distribution's mass, summed in float32
_SLACK = 1.001  # weights in float32 are far more exact than this


class Filters:
    """What top-k, top-p and min-p ask of each row, as columns (R, 1).

    Args:
        asked: top_k, top_p, min_p of each row, as in `SamplingParams`.
        vocab_size: V.
        device: where the rows are.
    """

    def __init__(
        self, asked: list[tuple[int, float, float]], vocab_size: int, device: torch.device
    ) -> None:
        k, p, m = zip(*asked, strict=True)
        self.top_k = torch.tensor([x or vocab_size for x in k], device=device)[:, None]
        self.top_p = torch.tensor(p, dtype=torch.float64, device=device)[:, None]
        self.min_p = torch.tensor(m, dtype=torch.float64, device=device)[:, None]


def greedy_choices(rows: Tensor) -> Tensor:
    """Return each row's most likely token, the lowest id among equals.

    Raises:
        EngineError: a row holds NaN or +inf, or nothing else than -inf.
    """
    top, ids = first_largest(rows)
    check_largest(top)
    return ids


def plain_choices(rows: Tensor, temperatures: Tensor, keys: Tensor) -> Tensor:
    """Return the argmax of logit / temperature + noise over whole rows; -1 where it is too close.

    With noise -log(-log u) and weights w = exp(score - largest score), it is the argmin of
    -log(u) / w. As 1 - u < -log(u), and nearly as large for what can win, (1 - u) / w of one good
    token bounds that of all better ones: only of these few are logarithms taken.

    Args:
        rows: (R, V).
        temperatures: (R, 1), float64.
        keys: (R, 1), noise keys.

    Raises:
        EngineError: as `greedy_choices`.
    """
    num_rows, width = rows.shape
    top, _ = first_largest(rows)
    check_largest(top)
    num_blocks = -(-width // BLOCK)
    costs = shares_left(num_blocks * BLOCK, keys)
    costs[:, :width] /= _weights(rows, top, temperatures)
    costs[:, width:] = torch.inf
    blocks = costs.view(-1, num_blocks, BLOCK)
    lowest = blocks.amin(2)
    good = costs.gather(1, _members(lowest.argmin(1, keepdim=True))).argmin(1, keepdim=True)
    good += lowest.argmin(1, keepdim=True) * BLOCK
    total = rows.gather(1, good).double() / temperatures + gumbel(good, keys)
    bound = torch.exp(top.double()[:, None] / temperatures - total).float() * _SLACK * 2.0**BITS
    row, block = (lowest <= bound).nonzero(as_tuple=True)
    found, offset = (blocks[row, block] <= bound[row]).nonzero(as_tuple=True)
    row, ids = row[found], block[found] * BLOCK + offset
    totals = rows[row, ids].double() / temperatures[row, 0] + gumbel(ids, keys[row, 0])
    return _clear_winners(totals, row, ids, num_rows)


def kept_choices(rows: Tensor, temperatures: Tensor, keys: Tensor, filters: "Filters") -> Tensor:
    """Return the argmax over whole rows where the filters surely keep it, else -1.

    It is the argmax over what they keep, then. For distributions too flat for a few candidates.

    Args:
        rows: (R, V).
        temperatures: (R, 1), float64.
        keys: (R, 1), noise keys.
        filters: of the rows.

    Raises:
        EngineError: as `greedy_choices`.
    """
    choices = plain_choices(rows, temperatures, keys)[:, None]
    ids = torch.arange(rows.shape[1], device=rows.device)
    value = rows.gather(1, choices.clamp(min=0))
    before = (rows > value) | ((rows == value) & (ids < choices))
    rank = before.sum(1, keepdim=True)
    weights = _weights(rows, rows.amax(1), temperatures)
    mass_before = torch.where(before, weights, 0.0).sum(1, keepdim=True)
    reached = mass_before / weights.sum(1, keepdim=True)
    in_p = (filters.top_k >= rows.shape[1]) & (reached < filters.top_p - _MASS_ERROR)
    keeps = (rank < filters.top_k) & ((filters.top_p >= 1.0) | (rank == 0) | in_p)
    keeps &= weights.gather(1, choices.clamp(min=0)) >= filters.min_p * _SLACK
    return torch.where(keeps, choices, -1)[:, 0]


def filtered_choices(
    rows: Tensor, temperatures: Tensor, keys: Tensor, filters: Filters, num_candidates: int
) -> Tensor:
    """Return the argmax of logit / temperature + noise over what the filters keep, or -1.

    Args:
        rows: (R, V).
        temperatures: (R, 1), float64.
        keys: (R, 1), noise keys.
        filters: of the rows.
        num_candidates: how many of each row's largest logits to look at.

    Raises:
        EngineError: as `greedy_choices`.
    """
    width = rows.shape[1]
    values, ids = largest(rows, num_candidates)
    check_largest(values[:, 0])
    # Of entries equal to the last one some may be missing, so only larger ones count.
    # Where the last one is -inf, as in an answer of a given form, none that can be chosen is.
    whole = (values[:, -1:] == -torch.inf) | (values.shape[1] == width)
    known = whole | (values > values[:, -1:])
    scores = values.double() / temperatures
    weights = torch.exp(scores - scores[:, :1])
    ranks = torch.arange(values.shape[1], device=rows.device)
    in_k = known & (ranks < filters.top_k)
    mass = torch.where(in_k, weights, 0.0).sum(1, keepdim=True)
    error = torch.full_like(mass, _CLOSE)
    wide = ~(whole | (filters.top_k <= known.sum(1, keepdim=True))) & (filters.top_p < 1.0)
    if wide.any():
        # The whole vocabulary's; it is top-k's only where top-k keeps everything.
        error = torch.where(wide, _MASS_ERROR, error)
        all_mass = torch.cat(
            [
                _weights(rows[i : i + 1], values[i : i + 1, 0], temperatures[i : i + 1]).sum(1)
                for i in range(len(rows))  # a row at a time stays in the processor's cache
            ]
        ).double()[:, None]
        mass = torch.where(wide, all_mass, mass)
    before = (weights.cumsum(1) - weights) / mass
    first, no_p = ranks == 0, filters.top_p >= 1.0
    sure = in_k & (first | no_p | (before < filters.top_p - error))
    sure &= weights >= filters.min_p * (1 + _CLOSE)
    maybe = in_k & (first | no_p | (before < filters.top_p + error))
    maybe &= weights >= filters.min_p * (1 - _CLOSE)
    # Nothing more is kept where top-k is used up, or a known entry is surely dropped.
    complete = (filters.top_k <= known.sum(1, keepdim=True)) | (known & ~maybe).any(1, keepdim=True)
    complete |= whole
    complete &= ~wide | (filters.top_k >= width)
    totals = torch.where(maybe, scores + gumbel(ids, keys), -torch.inf)
    best, at = totals.max(1, keepdim=True)
    close = totals >= best - _CLOSE * (1 + best.abs())
    clear = complete & sure.gather(1, at) & (close.sum(1, keepdim=True) == 1)
    return torch.where(clear, ids.gather(1, at), -1)[:, 0]


def _weights(rows: Tensor, top: Tensor, temperatures: Tensor) -> Tensor:
    """Return exp((logit - largest) / temperature), float32; the difference first, for precision."""
    wide = rows if rows.dtype == torch.float64 else rows.float()
    below = (wide - top[:, None].to(wide.dtype)).float()
    return below.mul_((1.0 / temperatures).float()).exp_()


def _members(blocks: Tensor) -> Tensor:
    """Return the indices of the entries of blocks: (R, 1) to (R, BLOCK)."""
    return blocks * BLOCK + torch.arange(BLOCK, device=blocks.device)


def _clear_winners(totals: Tensor, row: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    """Return the id of each row's largest total, given as flat lists; -1 where it is too close."""
    best = totals.new_full((num_rows,), -torch.inf).scatter_reduce_(0, row, totals, "amax")[row]
    close = totals >= best - _CLOSE * (1 + best.abs())
    num_close = torch.zeros(num_rows, dtype=torch.int64, device=row.device)
    num_close.index_add_(0, row, close.long())
    winners = torch.full((num_rows,), -1, device=row.device)
    winners[row[close]] = ids[close]
    return torch.where(num_close == 1, winners, -1)
