"""`pd-bench fleet-plan`: what each class of devices should ask of a shared cloud."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge
from rich.console import Console

from pd_bench.harness.bounds import check_between
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES, CloudProfile, read_cloud_profile
from pd_core.errors import ConfigError
from pd_core.settings.option import Argument, Option
from pd_core.settings.program import Read

if TYPE_CHECKING:
    from pd_bench.fleet_planning.device_class import DeviceClass
    from pd_bench.fleet_planning.plan_document import PlanDocument

__all__ = ["FleetAsked", "fleet_plan"]

_MILP = "milp"
_RATE = (1e-6, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAsked:
    """A fleet, its cloud, the promise, and what is sought."""

    fleet: Annotated[
        Path | None, Argument("The fleet as TOML; or give --classes and --lengths.")
    ] = None
    classes: Annotated[
        str | None, Option("The fleet in a line, such as phone@lte=0.3,laptop@wifi=0.7.")
    ] = None
    lengths: Annotated[
        Path | None, Option("With --classes: a trace whose lengths are typical of all.")
    ] = None
    cloud: Annotated[
        CloudProfile,
        Option(
            f"One of {', '.join(sorted(CLOUD_PROFILES))}, or a file made by `pd-bench profile`.",
            "cloud-profile",
            read=read_cloud_profile,
        ),
    ] = CLOUD_PROFILES["small-gpu-8b"]
    num_slots: Annotated[
        int | None, Ge(1), Option("Slots of the cloud; the profile's when not given.", "slots")
    ] = None
    rate_per_s: Annotated[
        float | None, Option("Arrivals per second; not given: the most that is carried.", "rate")
    ] = None
    ttft_s: Annotated[float, Option("Promised: the first token within seconds.", "ttft")] = 2.0
    pace_s: Annotated[float, Option("Seconds between shown tokens.", "pace")] = 0.2
    largest_gap_s: Annotated[
        float | None,
        Option("Promised: no gap longer; two paces when not given.", "largest-gap"),
    ] = None
    target: Annotated[float, Option("For this share of the requests.")] = 0.99
    least_keep_ratio: Annotated[
        float, Option("Quality floor: keep at least this share of a prompt.", "least-keep-ratio")
    ] = 1.0
    check: Annotated[str | None, Option("Solve the allocation again: milp is HiGHS, by scipy.")] = (
        None
    )
    json_out: Annotated[Path | None, Option("Write the plan here.", "json")] = None


def fleet_plan(asked: FleetAsked, _: Read) -> None:
    """Plan a fleet: cloud tokens, keep ratio and admission for each class of devices.

    The plan serves the most requests within the promise that one cloud can.
    `pd-bench capacity --fleet-plan` carries it out in a simulation.
    """
    from pd_bench.fleet_planning.plan_table import plan_table, plan_words

    if asked.check not in {None, _MILP}:
        raise ConfigError(f"--check is {asked.check!r}; it can only be {_MILP}")
    refuse_same_file(("the fleet", asked.fleet), ("--json", asked.json_out))
    refuse_same_file(("--lengths", asked.lengths), ("--json", asked.json_out))
    classes = _classes(asked)
    if asked.json_out is None:
        plan = _planned(asked, classes)
    else:
        with result_file(asked.json_out) as write:
            plan = _planned(asked, classes)
            write(plan.model_dump_json(indent=2))
    console = Console()
    console.print(plan_table(plan))
    for line in plan_words(plan):
        console.print(f"- {line}", soft_wrap=True, markup=False, highlight=False)


def _planned(asked: FleetAsked, classes: "tuple[DeviceClass, ...]") -> "PlanDocument":
    """Return the plan asked for.

    Raises:
        ConfigError: the promise contradicts itself, or at no rate can it be kept.
    """
    from pd_bench.fleet_planning.fleet_plan import most_carried, plan_fleet
    from pd_bench.fleet_planning.milp_check import milp_value
    from pd_bench.fleet_planning.options import FleetPromise
    from pd_bench.fleet_planning.plan_document import document_of

    gap = 2 * asked.pace_s if asked.largest_gap_s is None else asked.largest_gap_s
    promise = FleetPromise(asked.ttft_s, asked.pace_s, gap, asked.target, asked.least_keep_ratio)
    slots = asked.num_slots or asked.cloud.max_num_seqs
    cloud = asked.cloud.model_copy(update={"max_num_seqs": slots})
    most = asked.cloud.max_num_batched_tokens
    if most is not None and slots >= most:
        raise ConfigError(
            f"--slots is {slots}; a step of cloud {cloud.name} computes {most} tokens, which is "
            f"room for {most - 1} slots at most"
        )
    if asked.rate_per_s is None:
        found = most_carried(classes, cloud, promise)
        if found is None:
            raise ConfigError(
                f"at no rate can {promise.target:.0%} of this fleet's requests be served within "
                "the promise; promise less, or see with --rate what is served"
            )
        plan = found
    else:
        check_between("--rate", asked.rate_per_s, *_RATE, "requests per second")
        plan = plan_fleet(classes, cloud, promise, asked.rate_per_s)
    document = document_of(plan, promise, most=asked.rate_per_s is None)
    if asked.check is None:
        return document
    best = milp_value(plan.problem)
    gap_found = max(best - plan.allocation.value, 0.0) / best if best > 0 else 0.0
    return document.model_copy(
        update={"gap_to_optimum": gap_found, "checked_by": "HiGHS (scipy milp)"}
    )


def _classes(asked: FleetAsked) -> "tuple[DeviceClass, ...]":
    """Return the fleet asked for.

    Raises:
        ConfigError: it is given twice, or not at all, or is none.
    """
    from pd_bench.fleet_planning.device_class import lengths_of, parse_classes, read_fleet

    if (asked.fleet is None) == (asked.classes is None):
        raise ConfigError("give the fleet once: as a TOML file, or by --classes with --lengths")
    if asked.fleet is not None:
        if asked.lengths is not None:
            raise ConfigError("--lengths goes with --classes; the fleet's file names its own")
        return read_fleet(asked.fleet)
    assert asked.classes is not None, "one of the two is given"
    if asked.lengths is None:
        raise ConfigError("--classes needs --lengths, a trace with typical lengths")
    return parse_classes(asked.classes, lengths_of(asked.lengths))
