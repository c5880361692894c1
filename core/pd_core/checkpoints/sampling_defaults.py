"""A model's own sampling parameters: its generation_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pd_core.errors import InvalidSamplingParams, ModelError
from pd_core.sampling_params import SamplingParams
from pd_core.store.json_file import read_json

__all__ = ["SamplingDefaults"]

_FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The parameters of a request that sets none.

    Attributes:
        temperature: 0 (greedy) unless the model asks for sampling.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        dry_multiplier: 0 is off.
        dry_base: see `pd_core.sampling.repetition`.
        dry_allowed_length: see `pd_core.sampling.repetition`.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read a model's generation_config.json; a model without one is greedy.

        As in Hugging Face's own code, decoding is greedy unless `do_sample` is true, and then the
        default temperature is 1. The `dry_...` keys are ours; other readers ignore them.

        Raises:
            ModelError: a value is not valid for sampling.
        """
        path = directory / _FILE
        raw = read_json(path) if path.exists() else {}
        if raw.get("do_sample") is not True:
            return cls()
        values = cls(
            temperature=_number(raw, "temperature", 1.0),
            top_k=_whole(raw, "top_k", 0),
            top_p=_number(raw, "top_p", 1.0),
            dry_multiplier=_number(raw, "dry_multiplier", 0.0),
            dry_base=_number(raw, "dry_base", 1.75),
            dry_allowed_length=_whole(raw, "dry_allowed_length", 2),
        )
        try:
            values.params(seed=0)
        except InvalidSamplingParams as error:
            raise ModelError(f"{_FILE}: {error}; mend the file") from error
        return values

    def params(
        self,
        *,
        seed: int,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        ignore_eos: bool = False,
        dry_multiplier: float | None = None,
        dry_base: float | None = None,
        dry_allowed_length: int | None = None,
    ) -> SamplingParams:
        """Return a request's parameters; None means the model's own value.

        Raises:
            InvalidSamplingParams: a value is out of its range.
        """
        return SamplingParams(
            temperature=self.temperature if temperature is None else temperature,
            top_k=self.top_k if top_k is None else top_k,
            top_p=self.top_p if top_p is None else top_p,
            seed=seed,
            ignore_eos=ignore_eos,
            dry_multiplier=self.dry_multiplier if dry_multiplier is None else dry_multiplier,
            dry_base=self.dry_base if dry_base is None else dry_base,
            dry_allowed_length=(
                self.dry_allowed_length if dry_allowed_length is None else dry_allowed_length
            ),
        )


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
