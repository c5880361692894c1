"""A prompt, whole or in part, as a model has read it; and what the model makes of it.

Legend: k prompt tokens read, m tokens after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pd_core.integer.integer_lm import IntegerLM
from pd_core.models import CausalLM, KVCache, Segment
from pd_core.refinement import Ranges

__all__ = ["Judged", "Model", "Reading", "answer", "judge", "read"]

Model = CausalLM | IntegerLM


@dataclass(frozen=True, slots=True)
class Reading:
    """Attributes:
    cache: keys and values of what was read, with room for an answer.
    hidden: (k, hidden), the last one's first.
    num_read: k.
    num_tokens: of the whole prompt.
    """

    cache: KVCache
    hidden: Tensor
    num_read: int
    num_tokens: int

    def segment(self, num_after: int, num_tokens: int) -> Segment:
        """Return where num_tokens tokens go that follow num_after tokens of an answer."""
        first = self.num_tokens + num_after
        positions = tuple(range(first, first + num_tokens))
        return Segment(self.cache, self.num_read + num_after, num_tokens, positions)


@dataclass(frozen=True, slots=True)
class Judged:
    """Attributes:
    agreement: share of tokens that are the likeliest after those before.
    loss: nats per token.
    """

    agreement: float
    loss: float


def read(model: Model, prompt: Sequence[int], kept: Ranges, room: int) -> Reading:
    """Read what is kept of a prompt, with room for so many tokens after it."""
    positions = tuple(i for first, end in kept for i in range(first, end))
    cache = model.make_cache(len(positions) + room)
    ids = torch.tensor([prompt[i] for i in positions])
    hidden = model.forward(ids, [Segment(cache, 0, len(positions), positions)])
    return Reading(cache, hidden, len(positions), len(prompt))


def answer(model: Model, reading: Reading, length: int) -> list[int]:
    """Return the likeliest next tokens, one after the other."""
    logits = model.logits(reading.hidden[-1:])
    made = [int(logits.argmax())]
    while len(made) < length:
        segment = reading.segment(len(made) - 1, 1)
        hidden = model.forward(torch.tensor(made[-1:]), [segment])
        made.append(int(model.logits(hidden).argmax()))
    return made


def judge(model: Model, reading: Reading, following: Sequence[int]) -> Judged:
    """See how well tokens that follow the prompt are expected, each after all before it."""
    rows = [reading.hidden[-1:]]
    if len(following) > 1:
        segment = reading.segment(0, len(following) - 1)
        rows.append(model.forward(torch.tensor(following[:-1]), [segment]))
    logits, ids = model.logits(torch.cat(rows)), torch.tensor(following)
    losses = -logits.log_softmax(-1).gather(1, ids[:, None])
    agreement = (logits.argmax(-1) == ids).float().mean()
    return Judged(float(agreement), float(losses.double().mean()))
