"""Our engine in a process of its own, as it is measured."""

from pathlib import Path

import torch

from pd_bench.engines.contenders import FOUR_BITS
from pd_core.checkpoints.loading import load_model
from pd_core.models import Segment

__all__ = ["TorchMeasured"]


class TorchMeasured:
    """The torch engine with one sequence.

    Args:
        path: a model's directory, or a name.
        form: our numerics, or that of 4 bits, which says what the path holds.
        num_threads: threads of torch.
        context_tokens: room of the sequence, whose memory is taken here.
    """

    def __init__(self, path: Path, form: str, num_threads: int, context_tokens: int) -> None:
        torch.set_num_threads(num_threads)  # before loading, which probes with them
        numerics = "integer" if form == FOUR_BITS else form
        self._model = load_model(str(path), numerics=numerics).model
        torch.set_num_threads(num_threads)
        self._cache = self._model.make_cache(context_tokens)
        self.weight_bytes = self._model.weight_bytes
        self.kv_bytes_per_token = self._cache.allocated_bytes // self._cache.capacity_tokens

    def run(self, start: int, num_tokens: int) -> None:
        """Put tokens through at this position, up to the last one's logits; later ones are gone."""
        ids = torch.arange(start, start + num_tokens) % self._model.num_token_ids
        hidden = self._model.forward(ids, [Segment(self._cache, start, num_tokens)])
        self._model.logits(hidden[-1:])
