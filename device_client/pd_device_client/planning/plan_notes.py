"""What the user should know of a plan, in words."""

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.planner import Plan

__all__ = ["plan_notes"]


def plan_notes(plan: Plan, mode: Mode) -> list[str]:
    """What the user should know of a plan: another mode than asked for, broken promises."""
    notes = [f"the promise cannot be kept: {broken}" for broken in plan.broken]
    if mode is Mode.PD_DEVICE and plan.mode is Mode.DEVICE_ONLY:
        notes.append(f"planned device-only: this device alone needs {plan.first_token_s:.2f} s")
    elif mode is Mode.PD_DEVICE and plan.mode is Mode.CLOUD_ONLY:
        notes.append("planned cloud-only: this device would not catch up in time")
    return notes
