"""A request's sampling parameters. The sampling itself is in `pd_core.sampling.sampling`."""

import math
from dataclasses import dataclass

from pd_core.constraint import Constraint
from pd_core.errors import InvalidSamplingParams

__all__ = [
    "LEAST_TEMPERATURE",
    "MAX_LATE_TOKENS",
    "MAX_LOGIT_BIAS",
    "MAX_LOGPROBS",
    "MAX_SEED",
    "SamplingParams",
]

MAX_SEED = 2**64 - 1
MAX_LOGPROBS = 20
"""Most alternatives that are reported of one position."""
MAX_LOGIT_BIAS = 1024
"""Most ids with a bias of their own."""
MAX_LATE_TOKENS = 256
LEAST_TEMPERATURE = 1e-6
"""Below this, logits divided by the temperature may leave the range of a float64."""

_LARGEST_PENALTY = 100.0  # of repetition_penalty, and its inverse the smallest


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How each next token is chosen: greedy at temperature 0, else seeded Gumbel-max.

    Attributes:
        temperature: 0 means greedy; else between 1e-6 and 10.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of most likely tokens whose probability reaches top_p.
        seed: key of the noise, 0..2**64 - 1; the device draws one when the user gives none.
        ignore_eos: end-of-sequence tokens are never chosen.
        forced_length: for measurements only. The token at position forced_length - 1 is the
            end-of-sequence token, and none comes earlier, so that an answer has exactly the
            length given in a trace row. Only samplers may read it: planner, controller and
            admission must not (DESIGN 8).
        dry_multiplier: penalty of a token that repeats the answer; 0 is off. See
            `pd_core.sampling.repetition`.
        dry_base: factor by which the penalty grows with each further repeated token.
        dry_allowed_length: shorter repetitions are free.
        min_p: keep tokens at least this many times as likely as the most likely one; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens that stand in
            the prompt or the response; 1 is off.
        presence_penalty: subtracted from the logits of the response's tokens; 0 is off.
        frequency_penalty: subtracted once for each time a token stands in the response; 0 is off.
        logit_bias: (id, -100..100) in rising order of ids, added to the logits of these tokens.
        min_tokens: end-of-sequence tokens and late_token_ids are not chosen before this position.
        late_token_ids: see min_tokens; those at which the request stops.
        logprobs: report how likely each token was, and this many of the most likely ones; None:
            report nothing. It changes no token. See `pd_core.sampling.logprobs`.
        constraint: the form that the answer must have; None: any. Its end-of-sequence token comes
            where the form is complete, so neither ignore_eos nor forced_length nor min_tokens goes
            with it.

    Raises:
        InvalidSamplingParams: a value is out of range; the message names it.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
    forced_length: int | None = None
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    late_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.temperature != 0.0 and not LEAST_TEMPERATURE <= self.temperature <= 10.0:
            raise InvalidSamplingParams(
                f"temperature is {self.temperature}; it must be 0 (greedy), or lie between "
                f"{LEAST_TEMPERATURE:g} and 10"
            )
        if not 0 <= self.top_k < 2**31:
            raise InvalidSamplingParams(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if not (math.isfinite(self.top_p) and 0.0 < self.top_p <= 1.0):
            raise InvalidSamplingParams(
                f"top_p is {self.top_p}; it must lie in (0, 1]; temperature 0 is for the single "
                "most likely token"
            )
        if not 0.0 <= self.min_p <= 1.0:
            raise InvalidSamplingParams(f"min_p is {self.min_p}; it must lie between 0 (off) and 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidSamplingParams(f"seed is {self.seed}; it must lie between 0 and 2**64 - 1")
        self._check_dry()
        self._check_penalties()
        self._check_logit_bias()
        if not 0 <= self.min_tokens < 2**31:
            raise InvalidSamplingParams(
                f"min_tokens is {self.min_tokens}; it must be 0 (off) or more"
            )
        if len(self.late_token_ids) > MAX_LATE_TOKENS:
            raise InvalidSamplingParams(
                f"late_token_ids has {len(self.late_token_ids)} ids; at most {MAX_LATE_TOKENS} are "
                "taken"
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InvalidSamplingParams(
                f"logprobs is {self.logprobs}; it must lie between 0 and {MAX_LOGPROBS}"
            )
        if self.forced_length is not None and not 1 <= self.forced_length < 2**31:
            raise InvalidSamplingParams(
                f"forced_length is {self.forced_length}; it must be 1 or more"
            )
        never_ends = self.ignore_eos or self.forced_length is not None or self.min_tokens > 0
        if self.constraint is not None and never_ends:
            name = "ignore_eos" if self.ignore_eos else "forced_length"
            name = "min_tokens" if self.min_tokens else name
            raise InvalidSamplingParams(
                f"{name} is set, and an answer of a given form ends where the form is complete; "
                "leave one of them out"
            )

    def _check_dry(self) -> None:
        if not 0.0 <= self.dry_multiplier <= 10.0:
            raise InvalidSamplingParams(
                f"dry_multiplier is {self.dry_multiplier}; it must be 0 (off), or at most 10"
            )
        if not 1.0 <= self.dry_base <= 10.0:
            raise InvalidSamplingParams(
                f"dry_base is {self.dry_base}; it must lie between 1 and 10"
            )
        if not 1 <= self.dry_allowed_length <= 512:
            raise InvalidSamplingParams(
                f"dry_allowed_length is {self.dry_allowed_length}; it must lie between 1 and 512"
            )

    def _check_penalties(self) -> None:
        if not 1.0 / _LARGEST_PENALTY <= self.repetition_penalty <= _LARGEST_PENALTY:
            raise InvalidSamplingParams(
                f"repetition_penalty is {self.repetition_penalty}; it must lie between "
                f"{1.0 / _LARGEST_PENALTY:g} and {_LARGEST_PENALTY:g}, and 1 is off"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not -2.0 <= value <= 2.0:
                raise InvalidSamplingParams(
                    f"{name} is {value}; it must lie between -2 and 2, and 0 is off"
                )

    def _check_logit_bias(self) -> None:
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidSamplingParams(
                f"logit_bias has {len(self.logit_bias)} ids; at most {MAX_LOGIT_BIAS} are taken"
            )
        before = -1
        for token_id, bias in self.logit_bias:
            if token_id <= before:
                raise InvalidSamplingParams("logit_bias must name each id once, in rising order")
            if not -100.0 <= bias <= 100.0:
                raise InvalidSamplingParams(
                    f"logit_bias of {token_id} is {bias}; it must lie between -100 and 100"
                )
            before = token_id

    @property
    def looks_back(self) -> bool:
        """Whether a token's choice depends on which tokens came before, beyond the logits."""
        return (
            self.dry_multiplier != 0.0
            or self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self.temperature == 0.0
