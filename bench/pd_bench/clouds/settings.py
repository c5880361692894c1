"""What `pd-bench cloud` is asked to compare, checked before anything starts."""

import os
from dataclasses import dataclass
from pathlib import Path

from pd_bench.harness.bounds import check_counts, check_timeout
from pd_bench.harness.server_process import ServerOptions
from pd_bench.traces.reader import TraceRow, read_trace
from pd_core.errors import ConfigError
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY

__all__ = ["CLOUD_SCHEMES", "DTYPES", "ENGINES", "CloudSettings", "parse_engines", "rotated"]

ENGINES = ("torch", "vllm")
DTYPES = ("float32", "bfloat16")
CLOUD_SCHEMES = ("cloud-only", "pd-device")
"""Whole answers, and the first few tokens of each."""

_GENERATED_ROWS = 64
_SPREAD = 0.5  # generated lengths lie within this share of the middle
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Every input of a comparison.

    Attributes:
        engines: which, of ENGINES.
        trace: its rows' lengths are asked for (not its arrivals); None: lengths are generated.
        limit: the first so many rows; None: all, or 64 generated ones.
        prompt_tokens: middle of the generated prompts' lengths.
        output_tokens: middle of the generated answers' lengths.
        max_prompt_tokens: longer prompts are cut; None: what the context has room for.
        max_output_tokens: longer answers are cut.
        cloud_tokens: k, the tokens that pd-device asks the cloud for.
        model: of every server.
        dtype: of weights and KV cache, in every engine.
        slots: requests in flight, and slots of the servers.
        max_num_batched_tokens: tokens of one step, in every engine.
        kv_cache_mib: memory for KV caches, in every engine.
        repeat: passes; the order of engines and schemes rotates.
        eager: vLLM does not compile the model.
        fast_numerics: the torch engine gives up bit-reproducibility for speed.
        vllm_python: interpreter of vLLM's environment.
        kv_blocks: also count the KV blocks of a plain and a SkipV1 model.
        seed: of prompts and sampling.
        timeout_s: a request that takes longer has failed.

    Raises:
        ConfigError: a name is unknown, a value out of range, or vLLM's environment is missing.
    """

    engines: tuple[str, ...] = ENGINES
    trace: Path | None = None
    limit: int | None = None
    prompt_tokens: int = 256
    output_tokens: int = 64
    max_prompt_tokens: int | None = None
    max_output_tokens: int = 256
    cloud_tokens: int = 14
    model: str = DEFAULT_MODEL
    dtype: str = "float32"
    slots: int = 16
    max_num_batched_tokens: int = 256
    kv_cache_mib: int = 1024
    repeat: int = 3
    eager: bool = False
    fast_numerics: bool = False
    vllm_python: Path = Path(".venv-vllm/bin/python")
    kv_blocks: bool = True
    seed: int = 0
    timeout_s: float = 600.0

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
        if not os.access(self.vllm_python, os.X_OK):
            raise ConfigError(
                f"there is no vLLM environment at {self.vllm_python}; build it with make "
                "vllm-env, name its interpreter with --vllm-python, or give --engines torch"
            )

    def rows(self) -> list[TraceRow]:
        """Return the rows to ask for, each with a prompt of its own.

        Raises:
            TraceError: the trace cannot be read or a row is broken.
        """
        if self.trace is not None:
            return list(read_trace(self.trace, self.limit))
        return [
            TraceRow(i + 1, 0.0, _spread(self.prompt_tokens, i), _spread(self.output_tokens, i))
            for i in range(self.limit or _GENERATED_ROWS)
        ]

    def server(self, engine: str, cores: tuple[int, ...]) -> ServerOptions:
        """Return how to start an engine's server; both get the same wherever both can."""
        flags = {
            "torch": ("--fast-numerics",) * self.fast_numerics,
            "vllm": ("--eager",) * self.eager,
        }
        return ServerOptions(
            model=self.model,
            max_num_seqs=self.slots,
            cores=cores,
            engine=engine,
            # Not resolved: a virtual environment's interpreter is a link, and the link counts.
            python=self.vllm_python.absolute() if engine == "vllm" else None,
            dtype=self.dtype,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_cache_mib=self.kv_cache_mib,
            flags=flags[engine],
        )


def parse_engines(names: str) -> tuple[str, ...]:
    """Read a comma-separated list of ENGINES.

    Raises:
        ConfigError: a name is unknown, there is none, or one is there twice.
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


def rotated(names: tuple[str, ...], repeat: int) -> tuple[str, ...]:
    """Return the names of a pass, rotated so that none always comes first."""
    first = repeat % len(names)
    return names[first:] + names[:first]


def _spread(middle: int, index: int) -> int:
    """Return a length near `middle`; the same index gives the same."""
    share = (index * _GOLDEN) % 1.0
    return max(1, round(middle * (1 - _SPREAD + 2 * _SPREAD * share)))
