"""A replay: the schemes side by side, each on a fresh server, into one result document.

The rules that keep it honest are in DESIGN 8 and docs/guides/replay.md. An interrupted replay
returns what it has, marked partial.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

from pd_bench.harness.bounds import warm_up_failure
from pd_bench.harness.cores import CoreSplit, num_processors, split_cores
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.replay.cloud_meter import CloudMeter, NoMeter
from pd_bench.replay.devices import Devices, FleetDevices, RealDevice
from pd_bench.replay.dispatch import Dispatcher
from pd_bench.replay.progress import Progress
from pd_bench.replay.schemes import Scheme, parse_scheme
from pd_bench.replay.settings import ReplaySettings
from pd_bench.replay.workload import Workload
from pd_bench.results.result import (
    CloudTotals,
    Distribution,
    EqualRows,
    RequestRecord,
    ResultDocument,
    SchemeResult,
)
from pd_bench.results.series import LoadPoint, Timeline, sample_rows
from pd_bench.results.validity import (
    early_end,
    exactness_problems,
    lag_problems,
    promised_exactness,
    sharing_problems,
)
from pd_bench.traces.reader import SkippedRows
from pd_core.errors import PdError
from pd_core.generation import ServerInfo
from pd_core.host.affinity import available_cores, pinned
from pd_core.process.loading_thread import in_loading_thread
from pd_device_client.cloud.address import CloudAddress, is_url

__all__ = ["Replay"]

_NO_COST = CloudTotals(tokens_generated=0, busy_s=0.0, kv_byte_s=0.0, kv_bytes_peak=0)


class Replay:
    """One replay of a trace.

    Args:
        settings: the inputs.
        progress: notified of every token.

    Attributes:
        failure: the error that ended the replay early, after something was measured, or None.

    Raises:
        TraceError: the trace cannot be read or a row is broken.
        ModelError: the model cannot be loaded.
    """

    def __init__(self, settings: ReplaySettings, progress: Progress) -> None:
        self.failure: PdError | None = None
        self._settings = settings
        self._progress = progress
        self._skipped = SkippedRows()
        self._rows = list(settings.rows(self._skipped))
        self._cores = split_cores(available_cores())
        if settings.cloud is not None:
            self._cores = CoreSplit()  # that server's cores are not ours to choose
        self._workload: Workload | None = None
        self._server_labels: tuple[str, ...] = ()
        self._records: list[RequestRecord] = []
        self._totals: dict[str, CloudTotals | None] = {}  # None: not known
        self._timelines: list[Timeline] = []
        self._load: dict[str, tuple[LoadPoint, ...]] = {}
        self._problems: list[str] = []
        if settings.cloud_is_here:
            self._problems += sharing_problems(num_processors())
        self._partial = False

    async def run(self) -> ResultDocument:
        """Replay and return the result; a partial one when it ends early.

        Raises:
            FingerprintMismatch: the server given does not run the devices' model.
            PdError: the server or the devices could not be started, or a warm-up failed, before
                anything was measured; later it is the `failure`.
            asyncio.CancelledError: interrupted before the first scheme began.
        """
        with pinned(self._cores.client):
            devices = await in_loading_thread(self._devices)  # it may load a model
            try:
                for repeat in range(self._settings.repeat):
                    for scheme in self._settings.scheme_order(repeat):
                        await self._run_scheme(scheme, repeat, devices)
            except asyncio.CancelledError:
                if self._workload is None or not self._totals:
                    raise
                self._partial = True
            except PdError as error:
                # If the cloud dies between two schemes, the result of the first stays valid.
                if not self._totals:
                    raise
                self._partial = True
                self.failure = error
        return self._document(devices)

    def _devices(self) -> Devices:
        if self._settings.fidelity == "fleet":
            return FleetDevices(self._settings)
        return RealDevice(self._settings, len(self._cores.client) or None)

    async def _run_scheme(self, scheme: Scheme, repeat: int, devices: Devices) -> None:
        """Run one pass of one scheme: fresh server, warm-up, requests, totals."""
        async with self._cloud() as cloud:
            link = devices.link_to(cloud)
            try:
                info = await link.info()
                workload = self._prepare(info, devices)
                salt = secrets.token_hex(4)  # hides prefixes cached by a server that is not fresh
                await self._warm_up(scheme, cloud, info, devices, salt)
                works = workload.works(self._rows)
                dispatcher = self._dispatcher(scheme.name, repeat, salt, self._progress)
                meter = NoMeter() if is_url(cloud.target) else CloudMeter(link)
                await meter.start()
                self._progress.begin(scheme.name, len(works))
                try:
                    await devices.run(scheme, cloud, info, works, dispatcher)
                finally:
                    self._records += dispatcher.records
                    self._timelines += dispatcher.timelines
                    self._load.setdefault(scheme.name, meter.load)
                    await self._add_totals(scheme.name, meter)
            finally:
                await link.close()

    @asynccontextmanager
    async def _cloud(self) -> AsyncIterator[CloudAddress]:
        settings = self._settings
        if settings.cloud is not None:
            yield settings.cloud
            return
        async with own_server(self._server_options()) as target:
            yield CloudAddress(target)

    def _server_options(self) -> ServerOptions:
        settings = self._settings
        return ServerOptions(
            model=settings.model,
            sampler=settings.sampler,
            max_num_seqs=settings.max_num_seqs,
            cores=self._cores.server,
        )

    def _prepare(self, info: ServerInfo, devices: Devices) -> Workload:
        """Check that both sides match, and make the workload.

        Raises:
            ConfigError: the server's sampler differs from the one that the fidelity needs.
            FingerprintMismatch: the server does not run the devices' model.
        """
        settings = self._settings
        devices.check(info)
        self._server_labels = (
            f"cloud: real server process, {info.model.engine} engine, model {info.model.name}, "
            f"{info.limits.max_num_seqs} slots, sampler {info.model.sampler}",
        )
        if settings.cloud is not None and is_url(settings.cloud.target):
            self._server_labels = (
                f"cloud: {info.model.engine} behind OpenAI's API, model {info.model.name}; not "
                f"ours, and it publishes no load and no totals; {'; '.join(info.abilities)}",
            )
        elif settings.cloud is not None:
            self._server_labels += (
                "cloud: not ours; its KV peak counts from its start, and it was not pinned",
            )
        # The weights' fingerprint does not include the context length, so the sides' may differ.
        window = min(info.model.max_context_tokens, devices.max_context_tokens or sys.maxsize)
        self._workload = Workload(
            replace(info.model, max_context_tokens=window),
            info.limits.max_output_tokens,
            seed=settings.seed,
            temperature=settings.temperature,
            max_prompt_tokens=settings.max_prompt_tokens,
            max_output_tokens=settings.max_output_tokens,
            text_token_ids=devices.text_token_ids,
        )
        return self._workload

    def _dispatcher(
        self, scheme: str, repeat: int, salt: str, progress: Progress | None
    ) -> Dispatcher:
        workload = self._workload
        assert workload is not None, "the workload is made before the first request"
        return Dispatcher(
            scheme,
            repeat,
            lambda work: workload.request(work, scheme, salt),
            timeout_s=self._settings.timeout_s,
            progress=progress,
            watched=sample_rows(range(len(self._rows))) if repeat == 0 else (),
        )

    async def _warm_up(
        self, scheme: Scheme, cloud: CloudAddress, info: ServerInfo, devices: Devices, salt: str
    ) -> None:
        assert self._workload is not None, "the workload is made before the first request"
        dispatcher = self._dispatcher(scheme.name, 0, salt, None)
        await devices.run(scheme, cloud, info, [self._workload.warm_up()], dispatcher)
        if error := dispatcher.records[0].error:
            raise warm_up_failure(error, self._settings.timeout_s, scheme.name)

    async def _add_totals(self, scheme: str, meter: CloudMeter | NoMeter) -> None:
        """Add the cloud's totals; if the server is gone, the scheme's totals are unknown."""
        try:
            totals = await meter.totals()
        except PdError as error:
            self._problems.append(f"{scheme}: the server's totals are missing: {error}")
            totals = None
        if totals is None:
            self._totals[scheme] = None
            return
        before = self._totals.get(scheme, _NO_COST)
        self._totals[scheme] = None if before is None else before.plus(totals)

    # The document

    def _document(self, devices: Devices) -> ResultDocument:
        settings, workload = self._settings, self._workload
        assert workload is not None, "a document needs at least one scheme that has begun"
        records = sorted(self._records, key=lambda r: (r.repeat, r.scheme, r.id))
        problems = (
            *self._problems,
            *exactness_problems(records),
            *lag_problems(records, settings.pace_s),
        )
        if self._partial:
            problems = (early_end(self.failure), *problems)
        return settings.document(
            self._skipped,
            problems,
            fidelity=settings.fidelity,
            arrivals=devices.arrivals,
            exactness=promised_exactness(records),
            partial=self._partial,
            labels=(
                *self._server_labels,
                *devices.labels,
                *self._skipped.labels,
                *settings.scheme_labels,
            ),
            dispatch_lag_s=Distribution.of(r.dispatch_lag_s for r in records),
            cut_rows=workload.cut_rows(self._rows),
            equal_rows=EqualRows.of(records, len(settings.schemes) * settings.repeat),
            profiles=self._profiles(),
            settings=self._inputs(),
            cores=asdict(self._cores),
            schemes=self._schemes(records, devices.kv_bytes_per_token),
            requests=tuple(records),
            timelines=tuple(sorted(self._timelines, key=lambda t: (t.id, t.scheme))),
            cloud_load=self._load,
        )

    def _schemes(
        self, records: Sequence[RequestRecord], kv_bytes_per_token: int
    ) -> dict[str, SchemeResult]:
        results = {}
        for scheme in self._settings.schemes:
            if scheme not in self._totals:
                continue  # interrupted before it began
            own = [r for r in records if r.scheme == scheme]
            per_token = kv_bytes_per_token if parse_scheme(scheme).uses_device else 0
            longest = max((r.prompt_tokens + len(r.shown_at_s) for r in own), default=0)
            results[scheme] = SchemeResult.of(
                own, self._settings.pace_s, self._totals[scheme], per_token * longest
            )
        return results

    def _profiles(self) -> dict[str, dict[str, str | float | None]]:
        profiles = {"link": asdict(self._settings.link)}
        if self._settings.speed is not None:
            profiles["device"] = asdict(self._settings.speed)
        return profiles

    def _inputs(self) -> dict[str, str | int | float | bool | None]:
        settings = self._settings
        return {
            "limit": settings.limit,
            "schemes": ",".join(settings.schemes),
            "temperature": settings.temperature,
            "repeat": settings.repeat,
            "model": Path(settings.model).name,
            "max_prompt_tokens": settings.max_prompt_tokens,
            "max_output_tokens": settings.max_output_tokens,
            "max_num_seqs": settings.max_num_seqs,
            "own_server": settings.cloud is None,
            "timeout_s": settings.timeout_s,
            **({} if settings.text is None else {"text": settings.text.name}),
        }
