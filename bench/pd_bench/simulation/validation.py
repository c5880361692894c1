"""Compares a simulation with a real replay of the same rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.table import Table

from pd_bench.results.provenance import file_sha256
from pd_bench.results.result import ResultDocument, SchemeResult
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.settings import SimulationSettings
from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_device_client.planning.speeds.profiles import device_profile

__all__ = ["TOLERANCE", "FigureComparison", "comparisons", "read_replay", "settings_of", "table_of"]

TOLERANCE = 0.1
"""Largest relative difference allowed between a simulated and a replayed figure."""

_FIGURES: tuple[tuple[str, Callable[[SchemeResult], float | None]], ...] = (
    ("TTFT p50, ms", lambda s: _ms(s.ttft_s.p50)),
    ("gap p50, ms", lambda s: _ms(s.gap_s.p50)),
    ("largest gap p50, ms", lambda s: _ms(s.largest_gap_s.p50)),
    ("cloud busy, s", lambda s: s.cloud_busy_s),
    ("cloud tokens generated", lambda s: float(s.cloud_tokens_generated)),
)


@dataclass(frozen=True, slots=True)
class FigureComparison:
    """One figure of one scheme.

    Attributes:
        scheme: the scheme.
        figure: the figure's name, with its unit.
        replayed: its value in the replay; None if it has none.
        simulated: its value in the simulation; None if it has none.
    """

    scheme: str
    figure: str
    replayed: float | None
    simulated: float | None

    @property
    def difference(self) -> float | None:
        """The simulated figure over the replayed one, less 1; None if one is missing."""
        if self.replayed is None or self.simulated is None:
            return None
        if self.replayed == 0:
            return 0.0 if self.simulated == 0 else None
        return self.simulated / self.replayed - 1

    @property
    def agrees(self) -> bool:
        """Whether the two are within TOLERANCE, or both missing."""
        if self.replayed is None and self.simulated is None:
            return True
        return self.difference is not None and abs(self.difference) <= TOLERANCE


def read_replay(path: Path) -> ResultDocument:
    """Read a fleet replay's document.

    Raises:
        ConfigError: it cannot be read, or is not a fleet replay's document.
    """
    try:
        document = ResultDocument.model_validate_json(read_text_file(path))
    except OSError as error:
        raise ConfigError(f"--validate {path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(f"--validate {path}: no result: {where}: {first['msg']}") from None
    if document.fidelity != "fleet":
        raise ConfigError(
            f"--validate {path}: its fidelity is {document.fidelity!r}; a simulation is compared "
            "with a fleet replay (pd-bench replay --fidelity fleet --json FILE)"
        )
    if document.partial:
        raise ConfigError(
            f"--validate {path}: the replay was ended early, so it holds other rows than a "
            "simulation would; replay again"
        )
    return document


def settings_of(replayed: ResultDocument, trace: Path, cloud: CloudProfile) -> SimulationSettings:
    """Return the replay's own inputs, for a simulation with `cloud`.

    Raises:
        ConfigError: the trace is a different one, or an input is missing in the document.
    """
    if file_sha256(trace) != replayed.trace_sha256:
        raise ConfigError(f"{trace}: not the trace that was replayed ({replayed.trace})")
    inputs, late = replayed.settings, replayed.dispatch_lag_s
    columns = inputs.get("columns")
    try:
        limit = inputs["limit"]
        return SimulationSettings(
            trace=trace,
            columns=None if columns is None else str(columns),
            device=device_profile(str(replayed.profiles["device"]["name"])),
            cloud=_as_replayed(cloud, inputs),
            link_profile=str(replayed.profiles["link"]["name"]),
            schemes=tuple(replayed.schemes),
            pace_s=replayed.pace_s,
            limit=None if limit is None else int(str(limit)),
            max_prompt_tokens=replayed.cut_rows.max_prompt_tokens,
            max_output_tokens=replayed.cut_rows.max_output_tokens,
            seed=replayed.seed,
            timeout_s=float(str(inputs["timeout_s"])),
            skip_broken=replayed.skipped_rows > 0,
            # A virtual clock's timers are punctual; those of the replay's machine were not.
            foresight=not late.count,
            timer_lag_s=late if late.count else None,
        )
    except KeyError as error:
        raise ConfigError(f"the replay's document has no {error}: replay again") from None


def _as_replayed(cloud: CloudProfile, inputs: Mapping[str, object]) -> CloudProfile:
    """Give a cloud the slots of the replay's own server; for another server keep the profile's."""
    if not inputs["own_server"]:
        return cloud
    return cloud.model_copy(update={"max_num_seqs": int(str(inputs["max_num_seqs"]))})


def comparisons(replayed: ResultDocument, simulated: ResultDocument) -> list[FigureComparison]:
    """Return every figure of every scheme side by side.

    Totals are compared per request, since a replay may have repeats.
    """
    found = []
    for scheme, real in replayed.schemes.items():
        ours = simulated.schemes[scheme]
        for figure, value in _FIGURES:
            a, b = value(real), value(ours)
            if figure.startswith("cloud") and a is not None:
                a *= ours.requests / max(real.requests, 1)
            found.append(FigureComparison(scheme, figure, a, b))
    return found


def table_of(found: list[FigureComparison]) -> Table:
    """Return the comparison as a table."""
    table = Table(title=f"simulated against replayed ('ok': within {TOLERANCE:.0%})")
    for column in ("scheme", "figure"):
        table.add_column(column)
    for column in ("replayed", "simulated", "difference", ""):
        table.add_column(column, justify="right")
    for c in found:
        difference = "-" if c.difference is None else f"{c.difference:+.1%}"
        verdict = "ok" if c.agrees else "OFF"
        table.add_row(
            c.scheme, c.figure, _figure(c.replayed), _figure(c.simulated), difference, verdict
        )
    return table


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
