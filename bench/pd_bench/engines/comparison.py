"""Engines on the same weights, each in a process of its own, taking turns phase by phase."""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

from pd_bench.engines.contenders import FOUR_BITS
from pd_bench.engines.files import Subject
from pd_bench.engines.result import (
    EngineDocument,
    EngineFigures,
    Measured,
    SubjectResult,
    ThreadsRun,
)
from pd_bench.engines.settings import EngineSettings
from pd_bench.engines.shapes import SHAPES
from pd_bench.engines.summary import summary
from pd_bench.engines.worker import Job
from pd_bench.engines.worker_process import WorkerProcess, made_files, worker_process
from pd_bench.results.provenance import hardware, versions

__all__ = ["compare_engines"]

_LLAMA_CPP = "llama-cpp-python"
_READS = 5  # of the large array, in each round

Tick = Callable[[str], None]
Rates = dict[tuple[str, str, int], list[float]]


def compare_engines(settings: EngineSettings, tick: Tick) -> EngineDocument:
    """Measure every subject with every number of threads.

    Args:
        settings: what to measure.
        tick: called with what is being done.

    Raises:
        ModelError: an engine cannot have a model.
        EngineError: the process of one ended.
    """
    return EngineDocument(
        settings=settings.as_values(),
        versions=versions() | _versions_of_others(settings),
        hardware=hardware(),
        subjects=tuple(_subject(settings, name, tick) for name in settings.subjects),
    )


def _versions_of_others(settings: EngineSettings) -> dict[str, str]:
    return {_LLAMA_CPP: version(_LLAMA_CPP)} if "llama-cpp" in settings.against else {}


def _subject(settings: EngineSettings, name: str, tick: Tick) -> SubjectResult:
    is_shape = name in SHAPES and name != settings.model
    types = tuple(t.form for t in settings.contenders if t.kind == "llama-cpp")
    four_bits = any(tested.form == FOUR_BITS for tested in settings.contenders)
    with _folder(settings.folder) as folder:
        tick(f"{name}: making its files")
        files = made_files(Subject(name, is_shape, types, str(folder), settings.seed, four_bits))
        runs = tuple(_run(settings, name, files, threads, tick) for threads in settings.threads)
    found = summary(settings.contenders, runs)
    shown = name if is_shape else Path(name).name
    return SubjectResult(name=shown, random_weights=is_shape, runs=runs, **found.model_dump())


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="pd-bench-engine-") as made:
            yield Path(made)
    else:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen


def _run(
    settings: EngineSettings, name: str, files: Mapping[str, str], threads: int, tick: Tick
) -> ThreadsRun:
    """Measure all engines with one number of threads."""
    before = _load_average()
    with ExitStack() as held:
        reader = _reader(held, threads)
        workers: dict[str, WorkerProcess] = {}
        for tested in settings.contenders:
            tick(f"{name}, {threads} threads: loading {tested.name}")
            path = files.get(tested.form, files["ours"])
            room = settings.context_tokens
            job = Job(tested.kind, tested.form, path, threads, room, settings.chunk)
            workers[tested.name] = held.enter_context(worker_process(job, tested.name))
        rates: Rates = {}
        reads: list[float] = []
        for number in range(settings.rounds):
            tick(f"{name}, {threads} threads: round {number + 1} of {settings.rounds}")
            reads += [reader.ask(do="read")["bytes_per_s"] for _ in range(_READS)]
            _round(settings, workers, number, rates)
        bandwidth = statistics.median(reads)
        engines = {
            engine: _figures(settings, engine, worker, rates, bandwidth)
            for engine, worker in workers.items()
        }
    after = _load_average()
    return ThreadsRun(
        threads=threads,
        bandwidth_bytes_per_s=bandwidth,
        load_average=None if before is None or after is None else (before, after),
        engines=engines,
    )


def _reader(held: ExitStack, threads: int) -> WorkerProcess:
    job = Job("bandwidth", "", "", threads, 0, 0)
    return held.enter_context(worker_process(job, "the memory's measurement"))


def _round(
    settings: EngineSettings, workers: Mapping[str, WorkerProcess], number: int, rates: Rates
) -> None:
    """Let the engines prefill and decode in turns; the first of a turn changes with each.

    A longer prompt goes on from a shorter one, so its time is the sum up to there.
    """
    spent = dict.fromkeys(workers, 0.0)
    ends = sorted({*settings.prefill, *settings.decode})
    start = 0
    turn = number
    for end in ends:
        for engine in _rotated([*workers], turn):
            answer = workers[engine].ask(do="prefill", start=start, end=end)
            spent[engine] += answer["seconds"]
            if end in settings.prefill:
                rates.setdefault((engine, "prefill", end), []).append(end / spent[engine])
        start, turn = end, turn + 1
    for context in sorted(set(settings.decode), reverse=True):
        for engine in _rotated([*workers], turn):
            answer = workers[engine].ask(do="decode", context=context, steps=settings.steps)
            rates.setdefault((engine, "decode", context), []).append(1 / answer["seconds"])
        turn += 1


def _rotated(names: Sequence[str], by: int) -> list[str]:
    first = by % len(names)
    return [*names[first:], *names[:first]]


def _figures(
    settings: EngineSettings, engine: str, worker: WorkerProcess, rates: Rates, bandwidth: float
) -> EngineFigures:
    loaded, peak = worker.loaded, worker.ask(do="memory")["peak_bytes"]
    weights, kv = loaded["weight_bytes"], loaded["kv_bytes_per_token"]
    own = None
    if peak is not None and loaded["before_bytes"] is not None:
        own = peak - loaded["before_bytes"] - kv * settings.context_tokens
    return EngineFigures(
        load_s=loaded["load_s"],
        weight_bytes=weights,
        kv_bytes_per_token=kv,
        peak_bytes=peak,
        memory_ratio=None if own is None else own / weights,
        prefill=tuple(
            Measured.of(n, rates[engine, "prefill", n], None) for n in sorted(set(settings.prefill))
        ),
        decode=tuple(
            Measured.of(n, rates[engine, "decode", n], bandwidth / (weights + kv * n))
            for n in sorted(set(settings.decode))
        ),
    )


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
