"""How busy a cloud is, and what that does to its steps and its first tokens.

A level is a pair of bounds: the share of its time that the engine works at prefill and tokens, and
the share of its slots that are held. Steps have a base cost a that a batch shares, so with a share
w of other work a step takes a / (1 - w). A prefill is slower beside decodes, as the scheduler
stretches their steps only so far. A request waits for a slot (M/G/S, by Erlang's formula and the
usual correction for the spread of the holding times) and for prefill that came before it (M/G/1);
both waits have an exponential tail. Below a level everything comes sooner, so a plan that keeps its
promise at a level keeps it at any load up to it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pd_bench.simulation.cloud.cloud_profile import CloudProfile

__all__ = ["LoadLevel", "Traffic", "Waits", "is_queued", "prefill_work_s"]

_BESIDE_DECODES = 1.6 / 0.6  # a step that decodes is stretched by 0.6 at most

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What requests hold, for the waits.

    Attributes:
        slot_s: mean seconds that a request holds a slot.
        slot_spread: their standard deviation over their mean.
        prefill_s: of the prefills' work, the mean square over the mean.
    """

    slot_s: float
    slot_spread: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class Waits:
    """How long requests wait before their prefill: twice with a chance, then exponentially long.

    Attributes:
        slot: the share that waits for a slot.
        slot_s: their mean wait.
        prefill: the share that waits for an earlier prefill.
        prefill_s: their mean wait.
    """

    slot: float = 0.0
    slot_s: float = 0.0
    prefill: float = 0.0
    prefill_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """The mean wait of all requests."""
        return self.slot * self.slot_s + self.prefill * self.prefill_s

    def longer_than(self, seconds: Vector) -> Vector:
        """Return the share of requests that wait longer; 1 for less than no wait."""
        t = np.maximum(seconds, 0.0)
        slot, prefill = _tail(t, self.slot_s), _tail(t, self.prefill_s)
        if abs(self.slot_s - self.prefill_s) > 1e-9:
            both = (self.slot_s * slot - self.prefill_s * prefill) / (self.slot_s - self.prefill_s)
        else:
            both = slot * (1 + (t / self.slot_s if self.slot_s > 0 else 0.0))
        a, b = self.slot, self.prefill
        share = a * b * both + a * (1 - b) * slot + b * (1 - a) * prefill
        return np.asarray(np.where(seconds < 0, 1.0, share))


def _tail(seconds: Vector, mean_s: float) -> Vector:
    return np.exp(-seconds / mean_s) if mean_s > 0 else np.zeros_like(seconds)


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """A load.

    Attributes:
        cloud: the cloud.
        work: share of the engine's time that prefill and tokens take, without the steps' base cost.
        slots: share of the slots that are held.
    """

    cloud: CloudProfile
    work: float
    slots: float

    @property
    def step_s(self) -> float:
        """c: seconds between two tokens of a stream."""
        return self.cloud.step_s / (1 - self.work) + self.cloud.decode_s

    def prefill_s(self, prompt_tokens: Vector) -> Vector:
        """Return the seconds from a prefill's first step to its first token."""
        steps = np.ceil(prompt_tokens / self.cloud.step_tokens())
        alone_s = prefill_work_s(self.cloud, prompt_tokens) + steps * self.cloud.step_s
        beside = 1 - math.exp(-self.slots * self.cloud.max_num_seqs)
        return np.asarray(alone_s * (1 + beside * (_BESIDE_DECODES - 1)))

    def waits(self, traffic: Traffic) -> Waits:
        """Return how long requests of this kind wait."""
        num_slots = self.cloud.max_num_seqs
        free = num_slots * (1 - self.slots)
        return Waits(
            is_queued(num_slots, self.slots * num_slots),
            traffic.slot_s / free * (1 + traffic.slot_spread**2) / 2,
            self.work,
            traffic.prefill_s / 2 / (1 - self.work),
        )


def prefill_work_s(cloud: CloudProfile, prompt_tokens: Vector) -> Vector:
    """Return the engine's seconds for whole prompts, without steps' base cost."""
    n = prompt_tokens
    return cloud.prefill_token_s * n + cloud.prefill_token2_s * n * n


def is_queued(num_slots: int, busy: float) -> float:
    """Return the share of requests that find all slots held (Erlang C).

    Args:
        num_slots: the slots.
        busy: the mean number held, below num_slots.
    """
    blocked = 1.0  # Erlang B, slot by slot
    for slots in range(1, num_slots + 1):
        blocked = busy * blocked / (slots + busy * blocked)
    return num_slots * blocked / (num_slots - busy * (1 - blocked))
