"""The settings of `pd-bench cloud`, checked before anything starts."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from pd_bench.harness.bounds import check_counts, check_timeout
from pd_bench.traces.columns import COLUMNS_HELP, parse_columns
from pd_core.errors import ConfigError
from pd_core.identity.numerics import NUMERICS
from pd_core.settings.option import Argument, Option
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP, RANDOM_TINY, model_directory

if TYPE_CHECKING:
    from pd_bench.harness.server_process import ServerOptions
    from pd_bench.traces.reader import TraceRow

__all__ = ["CLOUD_SCHEMES", "DTYPES", "ENGINES", "CloudSettings", "parse_engines", "rotated"]

ENGINES = ("torch", "vllm")
DTYPES = ("float32", "bfloat16")
CLOUD_SCHEMES = ("cloud-only", "pd-device")
"""Whole answers, and the first few tokens of each."""

_GENERATED_ROWS = 64
_SPREAD = 0.5  # generated lengths lie within this share of the middle
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly


def parse_engines(names: str) -> tuple[str, ...]:
    """Parse a comma-separated list of ENGINES.

    Raises:
        ConfigError: a name is unknown, there is none, or one is named twice.
    """
    engines = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in engines:
        if name not in ENGINES:
            raise ConfigError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    if not engines:
        raise ConfigError(f"--engines names none; known: {', '.join(ENGINES)}")
    if len(set(engines)) < len(engines):
        raise ConfigError(f"an engine is named twice in {names}")
    return engines


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Every input of a comparison.

    Raises:
        ConfigError: a name is unknown, a value out of range, or vLLM's environment is missing.
        ModelError: vLLM is to run a model that is not there, or one in GGUF.
    """

    engines: Annotated[
        tuple[str, ...], Option("Comma-separated.", read=parse_engines, written=",".join)
    ] = ENGINES
    trace: Annotated[
        Path | None, Argument("Take the lengths of its rows; without one they are generated.")
    ] = None
    columns: Annotated[str | None, Option(COLUMNS_HELP)] = None
    limit: Annotated[int | None, Option("Only the first N rows; 64 generated ones if unset.")] = (
        None
    )
    prompt_tokens: Annotated[int, Option("Mean length of generated prompts.")] = 256
    output_tokens: Annotated[int, Option("Mean length of generated answers.")] = 64
    max_prompt_tokens: Annotated[
        int | None, Option("Cut longer prompts; the context's room when not given.")
    ] = None
    max_output_tokens: Annotated[int, Option("Cut longer answers.")] = 256
    cloud_tokens: Annotated[int, Option("Tokens that pd-device asks the cloud for (k).")] = 14
    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    dtype: Annotated[str, Option(f"In every engine: {', '.join(DTYPES)}.")] = "float32"
    slots: Annotated[int, Option("Requests in flight, and slots of the servers.")] = 16
    max_num_batched_tokens: Annotated[int, Option("Tokens of one step, in every engine.")] = 256
    kv_cache_mib: Annotated[int, Option("Memory for KV caches, in every engine.")] = 1024
    repeat: Annotated[int, Option("Passes; the order of engines and schemes rotates.")] = 3
    eager: Annotated[bool, Option("Do not let vLLM compile.")] = False
    numerics: Annotated[
        str, Option("Of the torch engine: integer weighs a quarter.", choices=NUMERICS)
    ] = "auto"
    fast_numerics: Annotated[bool, Option("torch gives up bit-reproducibility.")] = False
    vllm_python: Annotated[Path, Option("Interpreter of vLLM's environment (make vllm-env).")] = (
        Path(".venv-vllm/bin/python")
    )
    kv_blocks: Annotated[
        bool, Option("Also count the KV blocks of an MHA and a SkipV1Former model.")
    ] = True
    seed: Annotated[int, Ge(0), Option("Seed of prompts and sampling.")] = 0
    timeout_s: Annotated[float, Option("Seconds after which a request fails.", "timeout")] = 600.0

    def __post_init__(self) -> None:
        check_counts(
            {
                "--limit": self.limit,
                "--prompt-tokens": self.prompt_tokens,
                "--output-tokens": self.output_tokens,
                "--max-prompt-tokens": self.max_prompt_tokens,
                "--max-output-tokens": self.max_output_tokens,
                "--cloud-tokens": self.cloud_tokens,
                "--slots": self.slots,
                "--kv-cache-mib": self.kv_cache_mib,
                "--repeat": self.repeat,
            }
        )
        if self.max_num_batched_tokens < 2:
            raise ConfigError(
                f"--max-num-batched-tokens is {self.max_num_batched_tokens}; it must be 2 or more"
            )
        if self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known: {', '.join(DTYPES)}")
        check_timeout(self.timeout_s)
        if "vllm" in self.engines:
            self._check_vllm()

    def _check_vllm(self) -> None:
        if self.model == RANDOM_TINY:
            raise ConfigError(
                f"vLLM cannot run {RANDOM_TINY}, which is not made of files; give --model a "
                "directory or another name, or --engines torch"
            )
        model_directory(self.model)  # refuses GGUF before the first engine is measured
        if not os.access(self.vllm_python, os.X_OK):
            raise ConfigError(
                f"there is no vLLM environment at {self.vllm_python}; build it with make "
                "vllm-env, name its interpreter with --vllm-python, or give --engines torch"
            )

    def rows(self) -> "list[TraceRow]":
        """Return the rows of the trace, or generated ones.

        Raises:
            ConfigError: the columns are not named as they must be.
            TraceError: the trace cannot be read or a row is broken.
        """
        from pd_bench.traces.reader import TraceRow, read_trace

        if self.trace is not None:
            columns = parse_columns(self.columns)
            return list(read_trace(self.trace, self.limit, columns=columns))
        return [
            TraceRow(i + 1, 0.0, _spread(self.prompt_tokens, i), _spread(self.output_tokens, i))
            for i in range(self.limit or _GENERATED_ROWS)
        ]

    def server(self, engine: str, cores: tuple[int, ...]) -> "ServerOptions":
        """Return how to start an engine's server, with the same options for both where possible."""
        from pd_bench.harness.server_process import ServerOptions

        flags = {
            "torch": (
                *("--numerics", self.numerics),
                *("--fast-numerics",) * self.fast_numerics,
            ),
            "vllm": ("--eager",) * self.eager,
        }
        return ServerOptions(
            model=self.model,
            max_num_seqs=self.slots,
            cores=cores,
            engine=engine,
            # Not resolved: a virtual environment's interpreter must be started by its link.
            python=self.vllm_python.absolute() if engine == "vllm" else None,
            dtype=self.dtype,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_cache_mib=self.kv_cache_mib,
            flags=flags[engine],
        )


def rotated(names: tuple[str, ...], repeat: int) -> tuple[str, ...]:
    """Return the names of a pass, rotated so that the first one changes."""
    first = repeat % len(names)
    return names[first:] + names[:first]


def _spread(middle: int, index: int) -> int:
    """Return a length near `middle`, determined by the index."""
    share = (index * _GOLDEN) % 1.0
    return max(1, round(middle * (1 - _SPREAD + 2 * _SPREAD * share)))
