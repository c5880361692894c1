"""The process of one engine under test: `python -m pd_bench.engines.worker JOB`.

Reads one request a line and answers each with a line, so that the engines take turns.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pd_bench.engines.contenders import MeasuredEngine
from pd_core.host.process_memory import forget_peak, memory_bytes

__all__ = ["Job", "main"]

_BANDWIDTH_BYTES = 1 << 29


@dataclass(frozen=True, slots=True)
class Job:
    """What to load.

    Attributes:
        kind: "torch", "llama-cpp", or "bandwidth": no model, memory is read.
        form: see `Contender`.
        path: the model.
        threads: of the engine.
        context_tokens: room of the sequence.
        chunk: tokens of a prefill pass.
    """

    kind: str
    form: str
    path: str
    threads: int
    context_tokens: int
    chunk: int


def main(argument: str) -> None:
    """Load the engine of a job and answer requests until standard input ends."""
    from pd_core.errors import PdError

    job = Job(**json.loads(argument))
    if job.kind == "torch" or job.kind == "bandwidth":
        from pd_core.host.torch_environment import prepare_environment

        prepare_environment()
    try:
        if job.kind == "bandwidth":
            _answer_bandwidth(job)
        else:
            _answer_engine(job)
    except PdError as error:
        _say({"error": str(error)})


def _answer_engine(job: Job) -> None:
    _import(job)
    forget_peak()
    before = memory_bytes("VmRSS")
    began_s = time.perf_counter()
    engine = _load(job)
    engine.run(0, 1)
    load_s = time.perf_counter() - began_s
    engine.run(0, job.chunk)
    _say(
        {
            "load_s": load_s,
            "weight_bytes": engine.weight_bytes,
            "kv_bytes_per_token": engine.kv_bytes_per_token,
            "before_bytes": before,
        }
    )
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "prefill":
            _say({"seconds": _prefill(engine, asked["start"], asked["end"], job.chunk)})
        elif asked["do"] == "decode":
            _say({"seconds": _decode(engine, asked["context"], asked["steps"])})
        else:
            _say({"peak_bytes": memory_bytes("VmHWM")})


def _answer_bandwidth(job: Job) -> None:
    import torch

    from pd_core.integer.huge_pages import HugePages

    torch.set_num_threads(job.threads)
    numbers = HugePages().hold(torch.ones(_BANDWIDTH_BYTES // 4))  # as weights lie
    _say({})
    for _ in sys.stdin:
        began_s = time.perf_counter()
        numbers.sum().item()
        _say({"bytes_per_s": _BANDWIDTH_BYTES / (time.perf_counter() - began_s)})


def _import(job: Job) -> None:
    """Import what the engine needs, so that loading does not count it."""
    if job.kind == "torch":
        import pd_bench.engines.ours
    else:
        import pd_bench.engines.theirs  # noqa: F401


def _load(job: Job) -> MeasuredEngine:
    path = Path(job.path)
    if job.kind == "torch":
        from pd_bench.engines.ours import TorchMeasured

        return TorchMeasured(path, job.form, job.threads, job.context_tokens)
    from pd_bench.engines.theirs import LlamaCppMeasured

    return LlamaCppMeasured(path, job.threads, job.context_tokens, job.chunk)


def _prefill(engine: MeasuredEngine, start: int, end: int, chunk: int) -> float:
    began_s = time.perf_counter()
    for at in range(start, end, chunk):
        engine.run(at, min(chunk, end - at))
    return time.perf_counter() - began_s


def _decode(engine: MeasuredEngine, context: int, steps: int) -> float:
    """Return the seconds of a step at a context that the sequence holds, or more."""
    engine.run(context - 1, 1)  # cut, and warm
    began_s = time.perf_counter()
    for i in range(steps):
        engine.run(context + i, 1)
    return (time.perf_counter() - began_s) / steps


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
