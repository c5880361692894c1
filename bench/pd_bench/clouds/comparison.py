"""The engines of a cloud side by side: the same rows, slots and cores, one server at a time.

Each pass of an engine runs on a new server; within it the schemes run one after another, each with
its own cache salt. The order of engines and of schemes rotates from pass to pass.
"""

import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from pd_bench.clouds.closed_loop import CloudAnswer, run_closed_loop
from pd_bench.clouds.kv_blocks import count_kv_blocks, write_models
from pd_bench.clouds.result import (
    CloudDocument,
    CloudPass,
    CloudScheme,
    EngineResult,
    KvBlocks,
    equal_rows,
    throughput_ratio,
)
from pd_bench.clouds.settings import CLOUD_SCHEMES, CloudSettings, rotated
from pd_bench.harness.cores import num_processors, split_cores
from pd_bench.harness.process_meter import session_cpu_s
from pd_bench.harness.server_process import serving
from pd_bench.replay.workload import Work, Workload
from pd_bench.results.provenance import file_sha256, hardware, versions, versions_of
from pd_bench.results.result import Distribution
from pd_bench.results.validity import sharing_problems
from pd_core.errors import EngineError
from pd_core.generation import ServerInfo, Start
from pd_core.host.affinity import available_cores, pinned
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudComparison", "CloudProgress"]

_FEW_ROWS_PER_SLOT = 3


class CloudProgress(Protocol):
    """Shows what is being done."""

    def starting(self, what: str) -> None:
        """A server is being started."""
        ...

    def begin(self, what: str, num_requests: int) -> None:
        """A pass of a scheme begins."""
        ...

    def ended(self, answer: CloudAnswer) -> None:
        """A request of the pass has ended or failed."""
        ...


class CloudComparison:
    """One comparison.

    Args:
        settings: the inputs.
        progress: notified of every step.

    Raises:
        TraceError: the trace cannot be read or a row is broken.
    """

    def __init__(self, settings: CloudSettings, progress: CloudProgress) -> None:
        self._settings = settings
        self._progress = progress
        self._rows = settings.rows()
        self._cores = split_cores(available_cores())
        self._sharing = sharing_problems(num_processors())
        self._workload: Workload | None = None
        self._infos: dict[str, ServerInfo] = {}
        self._starts_s: dict[str, list[float]] = {name: [] for name in settings.engines}
        self._answers: dict[tuple[str, str], list[list[CloudAnswer]]] = {
            (engine, scheme): [] for engine in settings.engines for scheme in CLOUD_SCHEMES
        }
        self._passes: dict[tuple[str, str], list[CloudPass]] = {key: [] for key in self._answers}
        self._kv_blocks: dict[str, KvBlocks] = {}

    async def run(self) -> CloudDocument:
        """Compare and return the result.

        Raises:
            PdError: a server did not start, or its warm-up failed.
        """
        settings = self._settings
        with pinned(self._cores.client):
            if settings.kv_blocks:
                await self._count_kv_blocks()
            for repeat in range(settings.repeat):
                for engine in rotated(settings.engines, repeat):
                    await self._run_engine(engine, repeat)
        return self._document()

    async def _count_kv_blocks(self) -> None:
        with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
            models = write_models(Path(folder))
            for engine in self._settings.engines:
                self._progress.starting(f"{engine}, two servers to count KV blocks")
                options = self._settings.server(engine, self._cores.server)
                if engine == "vllm":  # nothing is computed: do not wait for the compiler
                    options = replace(options, flags=("--eager",))
                self._kv_blocks[engine] = await count_kv_blocks(options, models)

    async def _run_engine(self, engine: str, repeat: int) -> None:
        """Run all schemes once on one server."""
        self._progress.starting(f"{engine}, pass {repeat + 1} of {self._settings.repeat}")
        began_at_s = time.perf_counter()
        async with serving(self._settings.server(engine, self._cores.server)) as server:
            self._starts_s[engine].append(time.perf_counter() - began_at_s)
            link = GrpcCloudLink(server.address)
            try:
                self._infos[engine] = info = await link.info()
                workload = self._prepare(info)
                for scheme in rotated(CLOUD_SCHEMES, repeat):
                    await self._warm_up(link, workload, scheme)
                    before_s = session_cpu_s(server.pid)
                    answers = await self._run_scheme(link, workload, engine, scheme)
                    cpu_s = session_cpu_s(server.pid) - before_s
                    self._answers[engine, scheme].append(answers)
                    self._passes[engine, scheme].append(CloudPass.of(repeat, answers, cpu_s))
            finally:
                await link.close()

    def _prepare(self, info: ServerInfo) -> Workload:
        """Return the workload, which is the same for every server, as all have the same model."""
        if self._workload is None:
            settings = self._settings
            self._workload = Workload(
                info.model,
                info.limits.max_output_tokens,
                seed=settings.seed,
                temperature=0.0,
                max_prompt_tokens=settings.max_prompt_tokens,
                max_output_tokens=settings.max_output_tokens,
            )
        return self._workload

    async def _warm_up(self, link: CloudLink, workload: Workload, scheme: str) -> None:
        work = workload.warm_up()
        start = self._start(work, scheme, secrets.token_hex(4))
        (answer,) = await run_closed_loop(
            link, [(work, start)], in_flight=1, timeout_s=self._settings.timeout_s
        )
        if answer.error is not None:
            raise EngineError(f"the warm-up request of {scheme} failed: {answer.error}")

    async def _run_scheme(
        self, link: CloudLink, workload: Workload, engine: str, scheme: str
    ) -> list[CloudAnswer]:
        works = workload.works(self._rows)
        salt = secrets.token_hex(4)  # no scheme finds the prompts cached by another
        self._progress.begin(f"{engine} {scheme}", len(works))
        return await run_closed_loop(
            link,
            [(work, self._start(work, scheme, salt)) for work in works],
            in_flight=self._settings.slots,
            timeout_s=self._settings.timeout_s,
            on_answer=self._progress.ended,
        )

    def _start(self, work: Work, scheme: str, salt: str) -> Start:
        limit = work.output_tokens
        if scheme == "pd-device":
            limit = min(limit, self._settings.cloud_tokens)
        return Start(
            request_id=f"{salt}-{work.id}",
            prompt_token_ids=work.prompt_token_ids,
            token_limit=limit,
            sampling=SamplingParams(seed=self._settings.seed, forced_length=work.output_tokens),
            cache_salt=salt,
        )

    # The document

    def _document(self) -> CloudDocument:
        settings, workload = self._settings, self._workload
        assert workload is not None, "at least one server has run"
        works = workload.works(self._rows)
        engines = {name: self._engine_result(name) for name in settings.engines}
        problems = self._problems(engines)
        both = engines if {"torch", "vllm"} <= set(engines) else {}
        return CloudDocument(
            trace="generated" if settings.trace is None else settings.trace.name,
            trace_sha256=None if settings.trace is None else file_sha256(settings.trace),
            valid=not problems,
            invalid_because=problems,
            labels=self._labels(),
            cut_rows=workload.cut_rows(self._rows),
            prompt_tokens=Distribution.of(len(work.prompt_token_ids) for work in works),
            output_tokens=Distribution.of(work.output_tokens for work in works),
            settings=self._inputs(),
            cores=asdict(self._cores),
            versions=versions(),
            hardware=hardware(),
            seed=settings.seed,
            engines=engines,
            throughput_ratio={
                scheme: throughput_ratio(
                    both["torch"].schemes[scheme], both["vllm"].schemes[scheme]
                )
                for scheme in CLOUD_SCHEMES
                if both
            },
            kv_blocks_ratio={name: blocks.ratio for name, blocks in self._kv_blocks.items()},
            equal_rows={
                scheme: equal_rows(
                    [one for name in settings.engines for one in self._answers[name, scheme]]
                )
                for scheme in CLOUD_SCHEMES
            },
        )

    def _engine_result(self, name: str) -> EngineResult:
        options = self._settings.server(name, self._cores.server)
        command = options.command(Path("ready.json"))[1:]
        return EngineResult(
            versions=versions_of(options.python),
            numerics_id=self._infos[name].model.fingerprints.numerics_id,
            command=tuple(_without_paths(command)),
            start_s=Distribution.of(self._starts_s[name]),
            schemes={
                scheme: CloudScheme.of(
                    self._passes[name, scheme],
                    [a for one in self._answers[name, scheme] for a in one],
                )
                for scheme in CLOUD_SCHEMES
            },
            kv_blocks=self._kv_blocks.get(name),
        )

    def _problems(self, engines: dict[str, EngineResult]) -> tuple[str, ...]:
        problems = [
            f"{name} {scheme}: {result.failed} of {result.requests} requests failed"
            for name, engine in engines.items()
            for scheme, result in engine.schemes.items()
            if result.failed
        ]
        problems += self._sharing
        if len({info.model.fingerprints.weights for info in self._infos.values()}) > 1:
            problems.append("the servers ran different weights")
        return tuple(problems)

    def _labels(self) -> tuple[str, ...]:
        settings = self._settings
        labels = [
            "real server processes and forward passes, gRPC on loopback; no devices: pd-device "
            f"asks for the first {settings.cloud_tokens} tokens, and nobody goes on from them",
            f"{settings.slots} requests in flight, in the rows' order; throughput includes the "
            "filling of the slots and their running dry",
        ]
        if settings.trace is None:
            labels.append("rows: generated here, not of a trace")
        if len(self._rows) < _FEW_ROWS_PER_SLOT * settings.slots:
            labels.append(
                f"only {len(self._rows)} rows for {settings.slots} slots: for much of each pass "
                "the slots were not full"
            )
        if not self._cores.server:
            labels.append("servers and client share their cores")
        return tuple(labels)

    def _inputs(self) -> dict[str, str | int | float | bool | None]:
        named = asdict(self._settings)
        for kept_elsewhere in ("trace", "seed", "vllm_python"):
            del named[kept_elsewhere]
        named |= {"engines": ",".join(self._settings.engines), "rows": len(self._rows)}
        named["model"] = Path(self._settings.model).name
        return named


def _without_paths(command: Sequence[str]) -> list[str]:
    """Replace absolute paths, which differ between machines, by their last part."""
    return [Path(part).name if Path(part).is_absolute() else part for part in command]
