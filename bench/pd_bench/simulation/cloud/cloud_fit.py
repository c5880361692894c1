"""Fits the seconds of a cloud profile to measured prefills and decode steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pd_bench.simulation.cloud.cloud_profile import CloudProfile

__all__ = ["DecodeSample", "PrefillSample", "fitted"]

_ROUNDS = 3
_FIELDS = ("step_s", "prefill_token_s", "prefill_token2_s", "decode_s", "decode_key_s")


@dataclass(frozen=True, slots=True)
class PrefillSample:
    """The measured seconds of a prompt of N tokens, computed alone."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DecodeSample:
    """The measured seconds of a step of N streams, with `keys` tokens in all their KV caches."""

    streams: int
    keys: int
    seconds: float


def fitted(
    profile: CloudProfile, prefills: Sequence[PrefillSample], decodes: Sequence[DecodeSample]
) -> CloudProfile:
    """Return the profile with the five costs of least relative error.

    The number of steps of a prompt depends on the token budget, which a server may choose by these
    same costs, so the fit is repeated a few times.
    """
    chunk = profile.max_num_batched_tokens or max(sample.tokens for sample in prefills)
    for _ in range(_ROUNDS):
        rows = [(-(-s.tokens // chunk), s.tokens, s.tokens**2, 0, 0) for s in prefills]
        rows += [(1, 0, 0, s.streams, s.keys) for s in decodes]
        seconds = [s.seconds for s in prefills] + [s.seconds for s in decodes]
        costs = _non_negative(np.array(rows, float), seconds)
        profile = profile.model_copy(update=dict(zip(_FIELDS, costs, strict=True)))
        chunk = profile.step_tokens()
    return profile


def _non_negative(rows: NDArray[np.float64], seconds: Sequence[float]) -> list[float]:
    """Solve by least squares; a cost that would be negative is 0."""
    weights = 1 / np.maximum(np.array(seconds), 1e-9)
    columns = rows * weights[:, None]
    kept = list(range(columns.shape[1]))
    while kept:
        found = np.linalg.lstsq(columns[:, kept], np.ones(len(rows)), rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    costs = np.zeros(columns.shape[1])
    costs[kept] = found
    return [float(cost) for cost in costs]
