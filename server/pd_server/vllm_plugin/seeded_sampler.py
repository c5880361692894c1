"""Our sampler inside vLLM: from vLLM's logits it chooses as the device would.

A logits processor gets a step's logits before vLLM samples. This one chooses each request's token
by `pd_core.sampling.sampling`, keyed by its position, and masks all other tokens.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.grammar.grammars import Grammars
from pd_core.grammar.matcher import Matcher
from pd_core.sampling.history import History
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams

__all__ = ["SeededSampler"]


@dataclass(slots=True)
class _Row:
    """One request of the batch.

    Attributes:
        sampling: how its tokens are chosen.
        first_position: response position of its first output token.
        output_token_ids: vLLM's own growing list of output tokens.
        eos_token_ids: ids that end a sequence.
        num_token_ids: ids from here on belong to no token.
        rolling_hash: chooses in the model's place (fleet measurements).
        token_ids: prompt and output as far as history has them; empty where there is none.
        history: what sampling looks back at; None where it does not.
        before: the response's tokens before its first output token; empty without a form.
        form: its answer's place in the form asked for; None: any form will do.
        num_taken: output tokens that rolling_hash or history has.
    """

    sampling: SamplingParams
    first_position: int
    output_token_ids: Sequence[int]
    eos_token_ids: list[int]
    num_token_ids: int
    rolling_hash: RollingHash | None
    token_ids: list[int]
    history: History | None
    before: list[int]
    form: Matcher | None
    num_taken: int = 0

    def next_position(self) -> int:
        """Take in vLLM's new tokens; return the response position of the next."""
        new = self.output_token_ids[self.num_taken :]
        self.num_taken = len(self.output_token_ids)
        if self.rolling_hash is not None:
            self.rolling_hash.extend(new)
        elif self.history is not None:
            self.token_ids += new
        return self.first_position + len(self.output_token_ids)

    def mask(self) -> NDArray[np.int32] | None:
        """Return which tokens may come next; None: all.

        Where none may, it is the end, which does not fit the form: the engine then fails the
        request. An error here would end vLLM.
        """
        if self.form is None:
            return None
        try:
            return self.form.mask([*self.before, *self.output_token_ids])
        except InvalidConstraint:
            return self.form.end_mask


class SeededSampler(LogitsProcessor):
    """See the module; requests without our arguments are left to vLLM."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._forms = _Forms(vllm_config)

    def is_argmax_invariant(self) -> bool:
        """Return False: it changes the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch: requests come, go, and change places."""
        process_dict_updates(self._rows, batch_update, partial(_new_row, self._forms))

    def apply(self, logits: Tensor) -> Tensor:
        """Leave one token a row; logits: (R, V), float32, changed in place.

        A request still in prefill is sampled too; vLLM drops that token.
        """
        chosen = dict[int, int]()
        alike: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
        positions = {index: row.next_position() for index, row in self._rows.items()}
        for index, row in self._rows.items():
            if row.rolling_hash is not None:
                chosen[index] = row.rolling_hash.next_token(positions[index], row.sampling)
            else:
                alike[row.num_token_ids, tuple(row.eos_token_ids)].append(index)
        for (num_token_ids, eos), indices in alike.items():
            rows = [self._rows[index] for index in indices]
            tokens = sample(
                logits[indices, :num_token_ids],
                [row.sampling for row in rows],
                [positions[index] for index in indices],
                eos,
                [row.history for row in rows],
                [row.mask() for row in rows],
            )
            chosen.update(zip(indices, tokens, strict=True))
        if chosen:
            at = list(chosen)
            logits[at] = float("-inf")
            logits[at, list(chosen.values())] = 0.0
        return logits


class _Forms:
    """The forms of answers, as this process of vLLM compiles them; the first one reads the model.

    Args:
        vllm_config: names the model's directory.
    """

    def __init__(self, vllm_config: VllmConfig) -> None:
        self._config = vllm_config
        self._grammars: Grammars | None = None

    def matcher(self, source: dict[str, str], num_token_ids: int, eos: list[int]) -> Matcher:
        """Return the place of a new answer in its form."""
        if self._grammars is None:
            tokenizer = ModelDirectory(Path(self._config.model_config.model)).tokenizer
            self._grammars = Grammars(tokenizer, num_token_ids, eos)
        constraint = Constraint(ConstraintKind(source["kind"]), source["source"])
        return self._grammars.matcher(constraint)


def _new_row(
    forms: _Forms, params: Any, prompt: list[int] | None, output: list[int]
) -> _Row | None:
    ours = (params.extra_args or {}).get("pd")
    if ours is None:
        return None
    form, constraint = None, ours["sampling"].get("constraint")
    sampling = _sampling(ours["sampling"])
    eos = list(ours["eos_token_ids"])
    if constraint is not None:
        form = forms.matcher(constraint, ours["num_token_ids"], eos)
    hashed = None
    if ours["sampler"] != "model":
        hashed = RollingHash(ours["num_token_ids"], eos, prompt or ())
    first, token_ids, history = ours["first_position"], list[int](), None
    if sampling.looks_back:
        token_ids = list(prompt or ())  # its last `first` tokens are of the response
        history = History(token_ids, max(0, len(token_ids) - first))
    before = list(prompt or ())[-first:] if first and form is not None else []
    return _Row(
        *(sampling, first, output, eos, ours["num_token_ids"], hashed, token_ids, history),
        *(before, form),
    )


def _sampling(plain: dict[str, Any]) -> SamplingParams:
    """Return parameters from plain values; on their way here tuples became lists.

    The form is left out: the row has its mask.
    """
    listed = {
        "logit_bias": tuple((token_id, bias) for token_id, bias in plain.get("logit_bias", ())),
        "late_token_ids": tuple(plain.get("late_token_ids", ())),
    }
    return SamplingParams(**{**plain, **listed, "constraint": None})
