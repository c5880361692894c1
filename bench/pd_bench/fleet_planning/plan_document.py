"""A fleet's plan as a document: what `pd-bench fleet-plan` writes and `capacity` carries out."""

import json
from pathlib import Path

from pydantic import Field, ValidationError

from pd_bench.fleet_planning.fleet_plan import FleetPlan
from pd_bench.fleet_planning.options import FleetPromise
from pd_bench.results.document_part import DocumentPart
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.device_mix import PlannedClass, PlannedGroup
from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_device_client.contract.ask import Mode

__all__ = ["PlanDocument", "document_of", "read_plan"]

_FULL = 0.97  # of what a level allows: it binds


class PlanDocument(DocumentPart):
    """A plan, what it is for, and how good it is.

    Attributes:
        cloud: that it is for, with its slots.
        promise: to every reader.
        rate_per_s: arrivals that it is for.
        most: whether that is the most that the cloud carries.
        served: the share of the arrivals that is served within the promise.
        used: the share taken of each resource.
        level: the shares of the engine's time and of the slots that the plan is made for.
        mean_wait_s: how long requests wait at that load.
        step_s: seconds between two tokens of a stream at that load.
        binds: what keeps more from being served.
        gap_to_optimum: the share of the allocation's worth that may be missing; with a check by
            HiGHS, the share that is.
        checked_by: the solver that checked it, if one did.
        classes: the classes and their plans.
    """

    kind: str = "fleet-plan"
    cloud: CloudProfile
    promise: FleetPromise
    rate_per_s: float = Field(ge=0)
    most: bool
    served: float = Field(ge=0, le=1 + 1e-9)
    used: dict[str, float]
    level: dict[str, float]
    mean_wait_s: float
    step_s: float
    binds: str
    gap_to_optimum: float
    checked_by: str | None = None
    classes: tuple[PlannedClass, ...] = Field(min_length=1)


def document_of(plan: FleetPlan, promise: FleetPromise, *, most: bool) -> PlanDocument:
    """Return the plan's document."""
    level = plan.level
    return PlanDocument(
        cloud=level.cloud,
        promise=promise,
        rate_per_s=plan.rate_per_s,
        most=most,
        served=plan.served,
        used=plan.used,
        level={"compute": level.work, "slots": level.slots},
        mean_wait_s=plan.waits.mean_s,
        step_s=level.step_s,
        binds=_binds(plan),
        gap_to_optimum=plan.gap_to_optimum,
        classes=_classes(plan),
    )


def _binds(plan: FleetPlan) -> str:
    """Return what keeps more requests from being served."""
    limits = {"slots": plan.level.slots, "KV cache": 1.0, "compute": plan.level.work}
    full = [name for name, share in plan.used.items() if share >= _FULL * limits[name]]
    if not full:
        return "nothing of the cloud: what is missing, no side can serve in time"
    words = " and ".join(f"{name}, at {_told(plan, name)}" for name in full)
    if "KV cache" in full:
        return words
    return f"{words}: with more of it taken, first tokens would come too late"


def _told(plan: FleetPlan, name: str) -> str:
    """Return how much of a resource is taken."""
    num_slots = plan.level.cloud.max_num_seqs
    share = plan.used[name]
    return f"{share * num_slots:.1f} of {num_slots}" if name == "slots" else f"{share:.0%}"


def _classes(plan: FleetPlan) -> tuple[PlannedClass, ...]:
    by_name: dict[str, list[PlannedGroup]] = {}
    classes = {group.devices.name: group.devices for group in plan.groups}
    for at, group in enumerate(plan.groups):
        option, index = plan.options[at], plan.allocation.chosen[at]
        held_s = 0.0 if index is None else float(group.loads(plan.level)[index][0])
        by_name.setdefault(group.devices.name, []).append(
            PlannedGroup(
                longest_prompt=group.longest_prompt,
                share=group.share,
                mode=Mode.DEVICE_ONLY if option is None else option.mode,
                cloud_tokens=0 if option is None else option.cloud_tokens,
                whole_prompt=group.whole_prompt,
                keep_ratio=1.0 if option is None else option.keep_ratio,
                admitted=plan.admitted[at],
                kept=min(plan.kept[at], 1.0),
                cloud_s=held_s,
            )
        )
    return tuple(
        PlannedClass(
            name=name,
            share=devices.share,
            device=devices.device,
            link=devices.link,
            groups=tuple(by_name[name]),
        )
        for name, devices in classes.items()
    )


def read_plan(path: Path) -> PlanDocument:
    """Return the plan in a file.

    Raises:
        ConfigError: it cannot be read or is no plan; the message names the field.
    """
    try:
        return PlanDocument.model_validate(json.loads(read_text_file(path)))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: not a fleet's plan: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON document: {error}") from None
