"""Notes on a plan for the user."""

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.planner import Plan

__all__ = ["plan_notes"]


def plan_notes(plan: Plan, mode: Mode) -> list[str]:
    """Return notes for the user: a mode that differs from the one asked for, broken promises."""
    notes = list(plan.broken)
    if mode is Mode.PD_DEVICE and plan.mode is not mode and plan.why:
        notes.append(f"planned {plan.mode.value}: {plan.why}")
    return notes
