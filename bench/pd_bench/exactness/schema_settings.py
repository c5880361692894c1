"""What `pd-bench schemas` takes, checked before anything starts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from pd_core.settings.option import Option
from pd_core.store.model_names import MODEL_HELP, RANDOM_TINY

__all__ = ["SchemaSettings"]

_MOST = 100_000


@dataclass(frozen=True, slots=True)
class SchemaSettings:
    """Which answers are asked for, and how often times are taken."""

    model: Annotated[str, Option(MODEL_HELP)] = RANDOM_TINY
    numerics: Annotated[
        Literal["float32", "integer"],
        Option("Of both sides: answers are equal where these are.", choices=("float32", "integer")),
    ] = "integer"
    answers: Annotated[
        int, Ge(1), Le(_MOST), Option("Answers, each whole and then with the cloud cut.")
    ] = 500
    token_limit: Annotated[int, Ge(1), Le(_MOST), Option("Most tokens of an answer.")] = 400
    prompt_tokens: Annotated[int, Ge(1), Le(_MOST), Option("Length of the prompt.")] = 64
    temperature: Annotated[float, Ge(0.0), Le(10.0), Option("Of the sampled answers.")] = 1.0
    new_forms: Annotated[
        int, Ge(1), Le(_MOST), Option("Times to the first token, with a new schema and without.")
    ] = 60
    seed: Annotated[int, Ge(0), Option("Of answers, and of where the cloud is cut.")] = 1
