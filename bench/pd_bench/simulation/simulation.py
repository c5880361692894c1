"""A simulation: the schemes side by side on a virtual clock, into one result document.

The same document as a replay's, with fidelity "simulated". It is the same for the same inputs,
byte for byte but for `versions` and `hardware`. An interrupted one returns what it has, marked
partial.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.schemes import Scheme
from pd_bench.replay.workload import Work
from pd_bench.results.result import (
    CloudTotals,
    CutRows,
    Distribution,
    RequestRecord,
    ResultDocument,
)
from pd_bench.results.series import LoadPoint
from pd_bench.results.sketch import MAX_EXACT, RELATIVE_ERROR
from pd_bench.simulation.device_mix import DeviceMix
from pd_bench.simulation.fleet import SimulatedFleet, workload_of
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.tally import AnswerDigests, SchemeTally
from pd_bench.simulation.timer_lag import TimerLag
from pd_bench.traces.reader import SkippedRows
from pd_device_client.contract.outcome import Outcome

__all__ = ["Simulation"]

_NO_COST = CloudTotals(tokens_generated=0, busy_s=0.0, kv_byte_s=0.0, kv_bytes_peak=0)
_PERCENTILE_METHOD = (
    f"linear up to {MAX_EXACT} values; above, the middle of a bucket, at most "
    f"{RELATIVE_ERROR:.1%} off"
)


class Simulation:
    """One simulation of a trace.

    Args:
        settings: its inputs.
        progress: called with every request that ends: the scheme's name and its arrival.

    Raises:
        ConfigError: the limits leave no room.
        TraceError: the trace cannot be read or a row is broken: found before anything runs.
    """

    def __init__(
        self, settings: SimulationSettings, progress: Callable[[str, float], None]
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._workload = workload_of(settings)
        self._tallies: dict[str, SchemeTally] = {}
        self._totals: dict[str, CloudTotals] = {}
        self._load: dict[str, tuple[LoadPoint, ...]] = {}
        self._skipped = SkippedRows()
        self._cut_rows = self._count_rows()
        self._partial = False

    def run(self) -> ResultDocument:
        """Simulate, and return the result; on Ctrl-C, the partial result.

        Raises:
            EngineError: a warm-up request failed.
            KeyboardInterrupt: interrupted before any request had ended.
        """
        try:
            for scheme in self._settings.parsed_schemes:
                self._run_scheme(scheme)
        except KeyboardInterrupt:
            if not any(tally.num_requests for tally in self._tallies.values()):
                raise
            self._partial = True
        return self._document()

    def _run_scheme(self, scheme: Scheme) -> None:
        settings = self._settings
        tally = SchemeTally(settings.pace_s, settings.keep_requests, settings.kept_promise)
        self._tallies[scheme.name] = tally

        def ended(record: RequestRecord, outcome: Outcome) -> None:
            tally.add(record, outcome)
            self._progress(scheme.name, record.arrival_s)

        async def run() -> None:
            fleet = SimulatedFleet(settings, scheme, self._workload, ended)
            try:
                await fleet.run(self._works())
            finally:
                self._totals[scheme.name] = fleet.totals
                self._load[scheme.name] = fleet.cloud_load

        lag = settings.timer_lag_s
        late = None if lag is None else TimerLag(lag, settings.seed).draw_s
        run_virtual(run(), lag_s=late)

    def _works(self) -> Iterator[Work]:
        """Read the trace again, row by row; skipped rows were counted the first time."""
        for index, row in enumerate(self._settings.rows(SkippedRows())):
            yield self._workload.work(index, row)

    def _count_rows(self) -> CutRows:
        workload, rows, prompt, output = self._workload, 0, 0, 0
        for row in self._settings.rows(self._skipped):
            rows += 1
            prompt += row.prompt_tokens > workload.max_prompt_tokens
            output += row.output_tokens > workload.max_output_tokens
        return CutRows(
            rows=rows,
            prompt=prompt,
            output=output,
            max_prompt_tokens=workload.max_prompt_tokens,
            max_output_tokens=workload.max_output_tokens,
            max_context_tokens=workload.max_context_tokens,
        )

    # The document

    def _document(self) -> ResultDocument:
        settings, tallies = self._settings, list(self._tallies.values())
        equal_rows, num_different = AnswerDigests.compare([tally.digests for tally in tallies])
        identical = all(tally.exactness == "identical" for tally in tallies)
        problems = []
        if self._partial:
            problems.append("interrupted: requests that had not ended are missing")
        if identical and num_different:
            problems.append(
                f"identical answers were promised, but those of {num_different} of "
                f"{equal_rows.rows} rows differ between schemes"
            )
        return settings.document(
            self._skipped,
            problems,
            fidelity="simulated",
            arrivals="trace",
            exactness="identical" if identical else "consistent",
            partial=self._partial,
            labels=self._labels(),
            percentile_method=_PERCENTILE_METHOD,
            dispatch_lag_s=tallies[0].lag_s.distribution() if tallies else Distribution.of(()),
            cut_rows=self._cut_rows,
            equal_rows=equal_rows,
            profiles=self._profiles(),
            settings=self._inputs(),
            schemes={
                name: tally.result(self._totals.get(name, _NO_COST), 0)
                for name, tally in self._tallies.items()
            },
            requests=tuple(r for tally in tallies for r in tally.requests),
            timelines=tuple(
                sorted((t for y in tallies for t in y.timelines), key=lambda t: (t.id, t.scheme))
            ),
            cloud_load=self._load,
        )

    def _labels(self) -> tuple[str, ...]:
        settings = self._settings
        cloud, device, link = settings.cloud, settings.device, settings.link
        return (
            "everything is simulated on a virtual clock: the product's own session, planner, "
            "controller and scheduler; no model ran",
            f"cloud: emulated, {cloud.name} ({cloud.source}), {cloud.max_num_seqs} slots",
            f"devices: emulated, {device.name} ({device.source}); every row is another device",
            f"link: emulated, {link.name} (RTT {link.rtt_s * 1000:g} ms; {link.source})",
            "sampler: rolling hash of the prefix on both sides: checks tokens, makes no text",
            "device KV bytes: not counted",
            *_past_label(settings.past),
            *_lag_label(settings.timer_lag_s),
            f"the document holds {settings.keep_requests} requests of a scheme at most, chosen "
            "evenly; the figures are of all",
            *self._skipped.labels,
            *(label for scheme in settings.parsed_schemes for label in scheme.labels),
            *_refined_label(settings.mix),
        )

    def _profiles(self) -> dict[str, dict[str, str | float | None]]:
        settings = self._settings
        return {
            "cloud": settings.cloud.model_dump(),
            "device": asdict(settings.device),
            "link": asdict(settings.link),
        }

    def _inputs(self) -> dict[str, str | int | float | bool | None]:
        settings = self._settings
        return {
            "limit": settings.limit,
            "ttft_s": settings.ttft_s,
            "largest_gap_s": settings.largest_gap_s,
            "schemes": ",".join(settings.schemes),
            "max_prompt_tokens": settings.max_prompt_tokens,
            "max_output_tokens": settings.max_output_tokens,
            "max_num_seqs": settings.cloud.max_num_seqs,
            "timeout_s": settings.timeout_s,
            "keep_requests": settings.keep_requests,
            "past": None if settings.past is None else settings.past.name,
        }


def _refined_label(mix: DeviceMix | None) -> tuple[str, ...]:
    if mix is None or not mix.refines:
        return ()
    return ("planned: devices read parts of prompts, so with a real model texts are not exact",)


def _past_label(past: Path | None) -> tuple[str, ...]:
    if past is None:
        return ()
    return (f"devices plan by the lengths of the answers in {past.name}, the same for all",)


def _lag_label(lag_s: Distribution | None) -> tuple[str, ...]:
    if lag_s is None or lag_s.p50 is None or lag_s.p99 is None:
        return ()
    late = f"p50 {lag_s.p50 * 1000:.1f}, p99 {lag_s.p99 * 1000:.1f} ms"
    return (f"the clients' timers ring late, as measured in the replay: {late}",)
