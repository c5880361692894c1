"""Weights rounded to 4 bits: a group of 32 elements has a step, and a row a scale.

A weight is code * step * scale, with codes -8 .. 7 and whole steps 1 .. 63. Steps and scales are
searched for the least sum of weighted squared errors. A scale has at most 18 significant bits, so
that step * scale is exact in float32: files hold these products, and steps and scales are found in
them again.

Legend: N output features, K input features, B groups of a row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.integer.weights import GROUP, IntegerWeight

__all__ = [
    "MOST_STEP",
    "group_scales",
    "lowest_terms",
    "nearest_steps",
    "round_groups",
    "row_scales",
    "split_scales",
]

MOST_STEP = 63
_LEAST, _MOST = -8, 7
_TINY = 2.0**-100  # smaller scales count as zeros: their quotients would overflow
_SPANS = [6.2 + 0.1 * i for i in range(28)]  # the largest element in steps, as tried
_TOP_STEPS = [40, 44, 48, 52, 56, 60, 63]  # of a row's largest group, as tried
_NUMBERS = 1 << 20  # looked at together, for the memory
_TRIED = 4  # groups of a row whose scales leave few steps to try on all
_KEPT_BITS = 0xFFFFFFC0 - (1 << 32)  # of a float32: all but the last six


def round_groups(weight: Tensor, importance: Tensor | None = None) -> IntegerWeight:
    """Round a float32 weight (N, K) to 4 bits; not padded.

    Args:
        weight: finite.
        importance: (K,), the mean squares of its inputs; None: larger elements count more.
    """
    rows = max(1, _NUMBERS // weight.shape[1])
    parts = [_rounded(part, importance) for part in torch.split(weight, rows)]
    codes, steps, scales = (torch.cat(found) for found in zip(*parts, strict=True))
    return IntegerWeight(codes, scales, steps=steps)


def _to_groups(x: Tensor) -> Tensor:
    """Cut rows (..., K) into groups (..., B, 32), the last one padded with zeros."""
    return F.pad(x, (0, -x.shape[-1] % GROUP)).view(*x.shape[:-1], -1, GROUP)


def row_scales(weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the best scale of each row of a weight (N, K), (N,), and the steps (N, B)."""
    groups = _to_groups(weight)
    counts = _counts(groups, importance)
    wanted = _group_scales(groups, counts)
    least = torch.full(groups.shape[:1], torch.inf)
    scales, steps = torch.zeros_like(least), torch.ones_like(wanted)
    for top in _TOP_STEPS:
        scale = _short(wanted.amax(1) / top)
        found, errors = _steps(groups, counts, wanted, scale)
        better = (total := errors.sum(1)) < least
        least = torch.where(better, total, least)
        scales = torch.where(better, scale, scales)
        steps = torch.where(better[:, None], found, steps)
    return scales, steps


def nearest_steps(weight: Tensor, importance: Tensor, scales: Tensor) -> Tensor:
    """Return the best steps (N, B) of a weight (N, K) whose rows' scales (N,) are chosen."""
    groups = _to_groups(weight)
    counts = _counts(groups, importance)
    return _steps(groups, counts, _group_scales(groups, counts), scales)[0]


def _counts(groups: Tensor, importance: Tensor | None) -> Tensor:
    """Return how much each element's squared error counts, as `groups` (N, B, 32) or (B, 32)."""
    if importance is not None:
        return _to_groups(importance).float()
    return (groups.square().mean((1, 2), keepdim=True) + groups.square()).sqrt()


def _group_scales(groups: Tensor, counts: Tensor) -> Tensor:
    """Return the scale (N, B) of each group (N, B, 32) that has the least error of those tried."""
    most = groups.abs().amax(-1)
    best, wanted = torch.full_like(most, torch.inf), torch.zeros_like(most)
    for span in _SPANS:
        codes = _codes(groups, most / span)
        products = (counts * groups * codes).sum(-1)
        refined = (products / (counts * codes * codes).sum(-1).clamp_min(_TINY)).clamp_min(0.0)
        better = (error := _error(groups, refined, counts)) < best
        best, wanted = torch.where(better, error, best), torch.where(better, refined, wanted)
    return wanted


def _steps(groups: Tensor, counts: Tensor, wanted: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the whole steps of a scale (N,) near the wanted ones that err least, and the errors.

    Returns:
        Both (N, B), float32.
    """
    nearest = torch.round(wanted / scale[:, None].clamp_min(_TINY)).clamp(1, MOST_STEP)
    found, errors = nearest, torch.full_like(nearest, torch.inf)
    for near in (nearest, (nearest - 1).clamp_min(1), (nearest + 1).clamp_max(MOST_STEP)):
        error = _error(groups, near * scale[:, None], counts)
        found = torch.where(error < errors, near, found)
        errors = torch.minimum(error, errors)
    return found, errors


def _rounded(weight: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    most = weight.abs().amax(1, keepdim=True)
    power = torch.frexp(most).exponent  # the squares of very large weights would overflow
    weight = torch.where(most < _TINY, 0.0, torch.ldexp(weight, -power))
    scales, steps = row_scales(weight, importance)
    codes = _codes(_to_groups(weight), steps * scales[:, None])
    steps, scales = lowest_terms(steps, scales)
    whole = codes.flatten(1)[:, : weight.shape[1]].to(torch.int8)
    return whole, steps.to(torch.uint8), torch.ldexp(scales, power[:, 0])


def _codes(groups: Tensor, scales: Tensor) -> Tensor:
    """Return the codes of groups (N, B, 32) by scales (N, B), as floats."""
    zero = scales < _TINY
    factors = torch.where(zero, 0.0, 1.0 / torch.where(zero, 1.0, scales))
    return torch.round(groups * factors[..., None]).clamp(_LEAST, _MOST)


def _error(groups: Tensor, scales: Tensor, counts: Tensor) -> Tensor:
    """Return the weighted squared errors (N, B) of groups rounded by scales (N, B)."""
    back = _codes(groups, scales) * scales[..., None]
    return (counts * (groups - back).square()).sum(-1)


def _short(scales: Tensor) -> Tensor:
    """Cut float32 numbers to 18 significant bits; tiny ones to zero."""
    cut = (scales.view(torch.int32) & _KEPT_BITS).view(torch.float32)
    return torch.where(scales < _TINY, 0.0, cut)


def lowest_terms(steps: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each row's steps (N, B) by what they have in common, and multiply the scale (N,)."""
    common = steps.long()[:, 0]
    for column in steps.long().unbind(1):
        common = torch.gcd(common, column)
    return steps / common[:, None], scales * common


def group_scales(weight: IntegerWeight) -> Tensor:
    """Return step * scale of each group, (N, B), exact."""
    assert weight.steps is not None, "the weight has 4 bits"
    return weight.steps.float() * weight.scales[:, None]


def split_scales(scales: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find steps (N, B), uint8, and row scales (N,) in group scales (N, B), float32.

    Returns:
        None: they are not whole multiples of any row scale with steps of at most 63.
    """
    most, found = scales.amax(1), torch.zeros(len(scales))
    steps = torch.ones_like(scales)
    tops = torch.arange(1, MOST_STEP + 1)  # the largest group's step; the least that fits is it
    may = torch.ones(len(scales), MOST_STEP, dtype=torch.bool)
    for column in scales[:, :_TRIED].unbind(1):  # which leave few
        may &= _multiples(column[:, None], most[:, None] / tops)[1]
    rows = torch.nonzero(may.any(1))[:, 0]
    while len(rows):
        top = may[rows].int().argmax(1)  # the first of them
        scale = most[rows] / tops[top]
        whole, fits = _multiples(scales[rows], scale[:, None])
        fits = fits.all(1)
        found[rows[fits]], steps[rows[fits]] = scale[fits], whole[fits]
        may[rows, top] = False
        may[rows[fits]] = False
        rows = rows[may[rows].any(1)]
    if (found != most).logical_and(found == 0).any():
        return None
    return steps.to(torch.uint8), found


def _multiples(scales: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many times a scale others are, rounded, and whether exactly so."""
    whole = torch.round(scales / scale.clamp_min(_TINY))
    return whole, (whole * scale == scales) & (whole >= 1)
