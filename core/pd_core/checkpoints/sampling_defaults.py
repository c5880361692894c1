"""A model's own sampling parameters: its generation_config.json."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from pd_core.constraint import Constraint
from pd_core.errors import InvalidSamplingParams, ModelError
from pd_core.sampling_params import LEAST_TEMPERATURE, SamplingParams
from pd_core.store.json_file import read_json

__all__ = ["AskedSampling", "SamplingDefaults"]

logger = logging.getLogger(__name__)

_FILE = "generation_config.json"

# What holds only where tokens are drawn, with the values that change nothing.
_NOT_GREEDY: dict[str, tuple[object, ...]] = {
    "temperature": (1,),
    "top_k": (0, -1, 50),  # 50 is transformers' own default
    "top_p": (1,),
    "min_p": (0,),
}
# What other programs read in the file and we do not, with the values that change nothing.
_NOT_FOLLOWED: dict[str, tuple[object, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "diversity_penalty": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beams": (0, 1),
    "penalty_alpha": (0,),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "top_h": (),
    "typical_p": (1,),
    "watermarking_config": (),
}


class AskedSampling(TypedDict, total=False):
    """What a request asks of sampling; what is missing or None is the model's own."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The parameters of a request that sets none; `SamplingParams` says what each means.

    Attributes:
        temperature: 0 (greedy) unless the model asks for sampling.
        top_k: 0 or -1 keeps all.
        top_p: 1 keeps all; 0 is greedy.
        dry_multiplier: 0 is off.
        dry_base: see `pd_core.sampling.repetition`.
        dry_allowed_length: see `pd_core.sampling.repetition`.
        min_p: 0 keeps all.
        repetition_penalty: 1 is off.
        presence_penalty: 0 is off.
        frequency_penalty: 0 is off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read a model's generation_config.json; a model without one is greedy.

        As in Hugging Face's own code, decoding is greedy unless `do_sample` is true, and then the
        default temperature is 1. Penalties hold either way. The `dry_...` keys are ours; other
        readers ignore them. A key that would change the answer and is not followed is logged.

        Raises:
            ModelError: a value is not valid for sampling.
        """
        path = directory / _FILE
        raw = read_json(path) if path.exists() else {}
        samples = raw.get("do_sample") is True
        values = cls(
            temperature=_number(raw, "temperature", 1.0) if samples else 0.0,
            top_k=_whole(raw, "top_k", 0) if samples else 0,
            top_p=_number(raw, "top_p", 1.0) if samples else 1.0,
            dry_multiplier=_number(raw, "dry_multiplier", 0.0),
            dry_base=_number(raw, "dry_base", 1.75),
            dry_allowed_length=_whole(raw, "dry_allowed_length", 2),
            min_p=_number(raw, "min_p", 0.0) if samples else 0.0,
            repetition_penalty=_number(raw, "repetition_penalty", 1.0),
            presence_penalty=_number(raw, "presence_penalty", 0.0),
            frequency_penalty=_number(raw, "frequency_penalty", 0.0),
        )
        try:
            values.params(seed=0)
        except InvalidSamplingParams as error:
            raise ModelError(f"{_FILE}: {error}; mend the file") from error
        _warn(raw, _NOT_FOLLOWED, "here")
        if not samples:
            _warn(raw, _NOT_GREEDY, "without do_sample")
        return values

    def params(
        self,
        *,
        seed: int,
        ignore_eos: bool = False,
        constraint: Constraint | None = None,
        **asked: Unpack[AskedSampling],
    ) -> SamplingParams:
        """Return a request's parameters.

        Values that programs send with a meaning of their own get it here: top_k -1 is off; top_p 0
        and a temperature next to 0 are greedy, the most likely token.

        Raises:
            InvalidSamplingParams: a value is out of its range.
        """
        values: dict[str, Any] = asdict(self)
        values |= {name: value for name, value in asked.items() if value is not None}
        if values["top_k"] == -1:
            values["top_k"] = 0
        if values["top_p"] == 0.0:
            values |= {"temperature": 0.0, "top_p": 1.0}
        if 0.0 < values["temperature"] < LEAST_TEMPERATURE:
            values["temperature"] = 0.0
        return SamplingParams(seed=seed, ignore_eos=ignore_eos, constraint=constraint, **values)


def _number(raw: Mapping[str, Any], name: str, default: float) -> float:
    value = raw.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{_FILE}: {name} is {value!r}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ModelError(f"{_FILE}: {name} is too large a number") from error


def _whole(raw: Mapping[str, Any], name: str, default: int) -> int:
    value = float(_number(raw, name, default))
    if not value.is_integer():
        raise ModelError(f"{_FILE}: {name} is {value:g}; it must be a whole number")
    return int(value)


def _warn(raw: Mapping[str, Any], neutral: Mapping[str, tuple[object, ...]], where: str) -> None:
    """Log the keys whose values would change an answer, but do not."""
    names = [
        name
        for name, values in neutral.items()
        if (value := raw.get(name)) is not None and value not in ([], {}, *values)
    ]
    if names:
        verb = "has" if len(names) == 1 else "have"
        logger.warning("%s: %s %s no effect %s", _FILE, ", ".join(names), verb, where)
