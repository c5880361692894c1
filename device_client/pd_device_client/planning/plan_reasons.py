"""Why a plan is as it is, for a reader and for a program."""

from dataclasses import asdict
from typing import Any

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.candidates import Candidate
from pd_device_client.planning.plan import Plan
from pd_device_client.planning.planner import Considered
from pd_device_client.planning.spread import MISS_CHANCE

__all__ = ["expectations", "plan_document", "reasons"]


def expectations(plan: Plan) -> list[tuple[str, str]]:
    """Return what a plan expects, as names and values."""
    expected = plan.expected
    rows = [
        ("mode", plan.mode.value + (", in turns" if plan.takes_turns else "")),
        ("cloud tokens (k)", f"{plan.cloud_tokens:,}"),
        ("keep ratio", f"{plan.keep_ratio:g}"),
        ("pace", f"{plan.pace_s:.3g} s"),
        ("first token", f"{plan.first_token_s:.2f} s"),
        ("largest gap", f"{expected.largest_gap_s:.3g} s"),
        ("holds the cloud", f"{expected.cloud_s:.2f} s, for {expected.cloud_tokens:,} tokens"),
        ("late by chance", f"{expected.miss_chance:.1%}"),
    ]
    if expected.handoff is not None:
        ready = f"token {expected.handoff + 1:,}, ready after {plan.ready_s:.2f} s"
        rows.insert(5, ("handoff", ready))
    if plan.chunk_tokens is not None:
        rows.append(("prefill in passes of", f"{plan.chunk_tokens} tokens"))
    return rows


def reasons(considered: Considered) -> list[str]:
    """Return a line for each way to answer: what it would cost, and why it was not taken."""
    chosen = _chosen(considered)
    lines = []
    for candidate in considered.candidates:
        mark = "->" if candidate is chosen else "  "
        lines.append(f"{mark} {_name(candidate.plan):28} {_why(candidate, chosen)}")
        if len(candidate.steps) > 1:
            way = ", ".join(f"{step:,}" for step in candidate.steps)
            lines.append(f"   {'':28} k by trying what each k needs: {way}")
    return lines


def plan_document(considered: Considered) -> dict[str, Any]:
    """Return all of it as JSON values."""
    chosen = _chosen(considered)
    return {
        "plan": _plan(considered.plan),
        "considered": [
            {
                **_plan(candidate.plan),
                "chosen": candidate is chosen,
                "why_not": candidate.why_not or None,
                "excess": candidate.excess,
                "steps": list(candidate.steps),
            }
            for candidate in considered.candidates
        ],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    values = asdict(plan)
    return {**values, "mode": plan.mode.value, "broken": list(plan.broken)}


def _chosen(considered: Considered) -> Candidate:
    def same(candidate: Candidate) -> bool:
        plan, other = considered.plan, candidate.plan
        return (plan.mode, plan.turn_tokens, plan.keep_ratio, plan.cloud_tokens) == (
            other.mode,
            other.turn_tokens,
            other.keep_ratio,
            other.cloud_tokens,
        )

    return next(candidate for candidate in considered.candidates if same(candidate))


def _name(plan: Plan) -> str:
    name = plan.mode.value
    if plan.mode is Mode.PD_DEVICE:
        name += f", k = {plan.cloud_tokens:,}"
    if plan.takes_turns:
        name += ", in turns"
    return name if plan.keep_ratio == 1 else f"{name}, {plan.keep_ratio:.0%} kept"


def _why(candidate: Candidate, chosen: Candidate) -> str:
    cloud_s = candidate.plan.expected.cloud_s
    cost = f"the cloud for {cloud_s:.2f} s, and {candidate.cost_s:.2f} s if half as long"
    if candidate is chosen:
        return cost
    if candidate.why_not:
        return f"no: {candidate.why_not}"
    if candidate.plan.broken:
        return f"no: {'; '.join(candidate.plan.broken)}"
    if candidate.excess > chosen.excess:
        return f"no: it breaks more of the promise ({cost})"
    if candidate.risk > MISS_CHANCE >= chosen.risk:
        return f"no: late by chance in {candidate.risk:.0%} of such answers"
    return f"no: {cost}"
