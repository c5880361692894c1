"""A fleet's plan as a table, and in words."""

from rich.table import Table

from pd_bench.fleet_planning.plan_document import PlanDocument
from pd_bench.simulation.device_mix import PlannedGroup
from pd_device_client.contract.ask import Mode

__all__ = ["plan_table", "plan_words"]


def plan_table(plan: PlanDocument) -> Table:
    """Return one row for each class and range of prompt lengths; equal neighbours are one row."""
    table = Table(
        title=f"{plan.rate_per_s:.3g} requests/s, {plan.cloud.name}, "
        f"{plan.cloud.max_num_seqs} slots"
    )
    for column in ("class", "prompts up to", "share", "served by", "k", "rho", "admitted", "kept"):
        words = column in ("class", "served by")
        least = len("not admitted") if column == "served by" else None  # also in 80 columns
        table.add_column(column, justify="left" if words else "right", min_width=least)
    for devices in plan.classes:
        for group in _merged(devices.groups):
            refused = group.admitted <= 0
            table.add_row(
                devices.name,
                "any" if group.longest_prompt is None else str(group.longest_prompt),
                f"{group.share:.1%}",
                "not admitted" if refused else group.mode.value,
                str(group.cloud_tokens) if group.mode is Mode.PD_DEVICE and not refused else "-",
                f"{group.keep_ratio:g}" if group.mode is Mode.PD_DEVICE and not refused else "-",
                f"{group.admitted:.1%}",
                "-" if refused else f"{group.kept:.1%}",
            )
    return table


def _merged(groups: tuple[PlannedGroup, ...]) -> list[PlannedGroup]:
    rows: list[PlannedGroup] = []
    for group in groups:
        before = rows[-1] if rows else None
        if before is not None and _same(before, group):
            share = before.share + group.share
            kept = (before.kept * before.share + group.kept * group.share) / share
            rows[-1] = group.model_copy(update={"share": share, "kept": kept})
        else:
            rows.append(group)
    return rows


def _same(a: PlannedGroup, b: PlannedGroup) -> bool:
    """Whether two groups are served alike; cloud tokens differ with the prompt."""
    alike = a.mode is b.mode and a.mode is not Mode.PD_DEVICE
    return alike and a.admitted == b.admitted


def plan_words(plan: PlanDocument) -> list[str]:
    """Return what the plan comes to."""
    used = ", ".join(f"{name} {share:.0%}" for name, share in plan.used.items())
    checked = f", checked by {plan.checked_by}" if plan.checked_by else ""
    most = "the most it carries: " if plan.most else ""
    return [
        f"{most}{plan.served:.2%} of {plan.rate_per_s:.3g} requests/s within the promise: first "
        f"token {plan.promise.ttft_s:g} s, gaps up to {plan.promise.largest_gap_s:g} s",
        f"taken of the cloud: {used}; a request waits {plan.mean_wait_s:.2f} s on average, and a "
        f"token takes {plan.step_s * 1000:.0f} ms",
        f"binds: {plan.binds}",
        f"gap to the optimum at this load: {plan.gap_to_optimum:.3%} at most{checked}",
    ]
