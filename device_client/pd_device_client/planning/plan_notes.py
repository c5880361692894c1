"""A plan in words for the user, the same on the page and in a terminal."""

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.planner import Plan

__all__ = ["plan_notes", "plan_words"]


def plan_words(plan: Plan, prompt_tokens: int) -> str:
    """Say what is planned, before anything has come of it."""
    prompt = _counted(prompt_tokens)
    if plan.mode is Mode.DEVICE_ONLY:
        first = _seconds(plan.first_token_s)
        return (
            f"This device answers alone. It reads the {prompt} of the text first; its first word "
            f"comes after about {first}."
        )
    if plan.mode is Mode.CLOUD_ONLY:
        why = f" {plan.why[0].upper()}{plan.why[1:]}." if plan.why else ""
        return f"The cloud makes the whole answer; this device shows it at an even pace.{why}"
    ready = _seconds(plan.ready_s)
    then = "and goes on alone"
    if plan.takes_turns:
        then = "and from then on both take turns, as the device alone is below the pace"
    stretched = f" {plan.why[0].upper()}{plan.why[1:]}." if plan.why else ""
    return (
        f"The cloud makes the first {_counted(plan.cloud_tokens)}. This device reads the {prompt} "
        f"of the text meanwhile, has caught up after about {ready}, {then}.{stretched}"
    )


def plan_notes(plan: Plan, mode: Mode, prompt_tokens: int) -> list[str]:
    """Return notes for the user: broken promises, a plan in another mode than the one asked for."""
    notes = list(plan.broken)
    if mode is Mode.PD_DEVICE and plan.mode is not mode and plan.why:
        notes.append(plan_words(plan, prompt_tokens))
    return notes


def _counted(tokens: int) -> str:
    return f"{tokens:,} token{'' if tokens == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.{2 if seconds < 0.995 else 1}f} s"
