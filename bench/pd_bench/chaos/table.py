"""A campaign's figures as a table."""

from rich.table import Table

from pd_bench.chaos.found import BAD, ChaosFound
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.chaos.verdict import Verdict

__all__ = ["chaos_table"]

_WORDS = {
    Verdict.RIGHT: "complete, and the same as without faults",
    Verdict.LEFT: "left by their reader, right so far",
    Verdict.FAILED: "ended by a typed error, as no side was well, right so far",
    Verdict.LOST: "with tokens lost",
    Verdict.DOUBLED: "with tokens doubled",
    Verdict.WRONG: "with other tokens",
    Verdict.UNANSWERED: "without an end, or given up although a side was well",
}


def chaos_table(found: ChaosFound, settings: ChaosSettings) -> Table:
    """Return how many answers ended how."""
    faults = ", ".join(f"{count} {name}" for name, count in found.faults.most_common())
    table = Table(
        title=f"{found.requests} answers beside faults, {settings.fidelity}, seed {settings.seed}",
        caption=f"faults: {faults or 'none'}; {found.handoffs} answers were handed over",
    )
    table.add_column("answers")
    table.add_column("found", justify="right")
    table.add_column("aim", justify="right")
    for verdict, words in _WORDS.items():
        table.add_row(words, str(found.verdicts[verdict]), "0" if verdict in BAD else "")
    table.add_row("slots, tasks, connections left at the end", str(found.leaked), "0")
    return table
