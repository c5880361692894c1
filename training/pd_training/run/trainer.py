"""One optimiser step: micro-batches, gradient, clipping, update."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.errors import ConfigError, EngineError
from pd_training.corpus.sequences import PackedSequences
from pd_training.corpus.token_store import TokenStore
from pd_training.model.model import TrainingModel
from pd_training.optimise.gradient import clip_gradient
from pd_training.optimise.optimisers import make_optimiser
from pd_training.recipe.precision import autocast
from pd_training.recipe.settings import RunSettings
from pd_training.run.processes import Processes

__all__ = ["StepFacts", "Trainer"]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The result of one step.

    Attributes:
        step: number of steps done.
        loss: nats per token, before the update.
        gradient_l2, gradient_l1_ratio: before clipping; see `GradientFacts`.
    """

    step: int
    loss: float
    lr: float
    gradient_l2: float
    gradient_l1_ratio: float


class Trainer:
    """Model, optimiser and data of a run; every step is a function of these and its number.

    A step's batch is split over processes and micro-batches in a fixed way, so how many there are
    changes only the order in which floating-point numbers are added.

    Raises:
        ConfigError: the batch cannot be split evenly, or model and data do not fit together.
    """

    def __init__(
        self,
        model: TrainingModel,
        store: TokenStore,
        settings: RunSettings,
        processes: Processes,
    ) -> None:
        parts = processes.world * settings.accumulate
        if settings.batch_sequences % parts:
            raise ConfigError(
                f"a batch of {settings.batch_sequences} sequences cannot be shared evenly by "
                f"{processes.world} processes x {settings.accumulate} micro-batches"
            )
        if store.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the corpus has {store.vocab_size} token ids, but the model only "
                f"{model.config.vocab_size}; prepare the corpus with the model's tokenizer"
            )
        if settings.context_tokens > model.config.max_context_tokens:
            raise ConfigError(
                f"sequences of {settings.context_tokens} tokens exceed the model's context of "
                f"{model.config.max_context_tokens}; raise it with --max-context"
            )
        self.model = model.to(processes.device)
        self.optimiser = make_optimiser(self.model, settings.optimiser, settings.steps)
        self._settings = settings
        self._processes = processes
        self._rates = settings.rates()
        self._sequences = PackedSequences(
            store.train.tokens, settings.context_tokens, settings.seed
        )
        self._micro_batch = settings.batch_sequences // parts
        self._wrapped = processes.wrap(self.model)

    def step(self, index: int) -> StepFacts:
        """Run step `index` (from 0).

        Raises:
            EngineError: the loss is not finite; the weights are those before the step.
        """
        self._wrapped.train()
        self.optimiser.zero_grad(set_to_none=True)
        lr = self._rates.rate(index)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = self._processes.mean(self._accumulate(index))
        facts = clip_gradient(self.model, self._settings.clip)
        if not math.isfinite(loss) or not math.isfinite(facts.l2):
            raise EngineError(
                f"step {index + 1}: the loss is {loss} and the gradient's norm {facts.l2}; the "
                "run has diverged. Start again with a lower --lr, a longer warm-up or clipping"
            )
        self.optimiser.step()
        return StepFacts(index + 1, loss, lr, facts.l2, facts.l1_ratio)

    def _accumulate(self, index: int) -> Tensor:
        """Add up this process's gradients; return its mean loss."""
        s, device = self._settings, self._processes.device
        total = torch.zeros((), device=device)
        for part in range(s.accumulate):
            place = self._processes.rank * s.accumulate + part
            first = index * s.batch_sequences + place * self._micro_batch
            inputs, targets = self._sequences.batch(first, self._micro_batch)
            last = part == s.accumulate - 1
            with self._processes.unsynchronised(self._wrapped, not last):
                with autocast(s.dtype, device):
                    logits = self._wrapped(inputs.to(device))
                loss = F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).flatten())
                (loss / s.accumulate).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / s.accumulate
        return total
