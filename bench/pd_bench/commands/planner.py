"""`pd-bench planner`: the planner against hindsight, over random situations."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pd_bench.commands.measuring import JsonOut, json_file
from pd_core.settings.option import Option
from pd_core.settings.program import Read

__all__ = ["PlannerAsked", "planner"]


@dataclass(frozen=True, slots=True)
class PlannerAsked:
    """How many situations, and where the figures go."""

    situations: Annotated[int, Ge(1), Le(10_000_000), Option("Random situations.")] = 10_000
    seed: Annotated[int, Ge(0), Option("Seed of all draws.")] = 0
    json_out: JsonOut = None


def planner(asked: PlannerAsked, _: Read) -> None:
    """Compare the planned cloud tokens with the fewest that would have kept the promise."""
    from pd_bench.simulation.planner_check import check_planner

    with json_file(asked.json_out) as write:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("situations", total=asked.situations)
            found = check_planner(
                asked.situations, asked.seed, lambda done: bar.update(task, completed=done)
            )
        document = {**found.document(), "seed": asked.seed}
        write(document)
    table = Table(title=f"the planner in {found.situations:,} random situations")
    table.add_column("figure")
    table.add_column("found", justify="right")
    table.add_column("goal", justify="right")
    plan_s = sorted(found.plan_s)
    p50, p99 = (plan_s[int(q * (len(plan_s) - 1))] for q in (0.5, 0.99))
    table.add_row("promises missed by chance", f"{found.miss_rate:.2%}", "1 %")
    table.add_row("more cloud tokens than needed", f"{found.extra_cloud_tokens:.1%}", "5 %")
    table.add_row("called impossible though possible", str(found.infeasible_missed), "0")
    table.add_row("a plan, p50 / p99", f"{p50 * 1e3:.3f} / {p99 * 1e3:.3f} ms", "0.2 ms")
    for mode, count in sorted(found.modes.items()):
        table.add_row(f"planned: {mode}", f"{count:,}", "")
    table.add_row("of these in turns", f"{found.in_turns:,}", "")
    Console().print(table)
