"""A campaign's results as tables in Markdown, and as a picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from pd_core.errors import ConfigError
from pd_training.campaign.campaign import CellResult, read_result

__all__ = ["draw_report", "markdown_report", "paired_difference", "read_results", "steps_to"]

# The variant that each one is compared with.
_PLAIN = {
    "skipv1": "mha",
    "skipv1-yoco": "mha",
    "gqa-skipv1": "gqa",
    "skipv1-mla": "mla",
}
# Two-sided 95 % quantile of Student's t by degrees of freedom.
_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}
_BASELINE = "adamw-cosine"

Results = Mapping[str, Mapping[int, CellResult]]
"""By variant and pair; for the optimisers' cells the pair is a running number."""


def read_results(folder: Path) -> list[CellResult]:
    """Read every result of a campaign, sorted by file name.

    Raises:
        ConfigError: there is none, or a file is not one.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError(f"{folder} holds no results; make some with pd-train campaign run")
    return [read_result(file) for file in files]


def paired_difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, bool]:
    """Compare paired values.

    Returns:
        The mean of one - other, its standard error (infinite for a single pair), and whether the
        mean differs from 0 by Student's t at 95 %.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, math.inf, False
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, abs(mean) > _T95.get(len(differences) - 1, 2.3) * error


def steps_to(curve: Sequence[tuple[int, float]], loss: float) -> float | None:
    """Return the steps after which a curve first reaches a loss, interpolated linearly."""
    before: tuple[int, float] | None = None
    for step, value in curve:
        if value <= loss:
            if before is None:
                return float(step)
            share = (before[1] - loss) / (before[1] - value)
            return before[0] + share * (step - before[0])
        before = (step, value)
    return None


def markdown_report(
    name: str, results: Sequence[CellResult], baseline: Sequence[CellResult]
) -> str:
    """Return a campaign's tables.

    Args:
        name: the campaign.
        results: its results so far; missing cells leave gaps.
        baseline: for "uptraining", the results of "quality".
    """
    if name == "quality":
        return _quality(_grouped(results))
    if name == "optimisers":
        return _optimisers(results)
    return _uptraining(_grouped(results), _grouped(baseline))


def draw_report(name: str, results: Sequence[CellResult], out: Path) -> None:
    """Draw held-out loss over steps, a line per cell and a colour per variant.

    Raises:
        ConfigError: the file cannot be written, or matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib; install pd-device[train]") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    for result in results:
        label = None if result.variant in colours else result.variant
        colour = colours.setdefault(result.variant, f"C{len(colours) % 10}")
        points = [(0, result.before_loss), *result.curve]
        if name != "uptraining":
            points = points[2:]  # the first points would stretch the axis too far
        style = ("-", "--", ":")[len(colours) // 11]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, label=label, lw=1)
    axes.set_xlabel("steps")
    axes.set_ylabel("held-out loss (nats per token)")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    try:
        FigureCanvasAgg(figure).print_png(str(out))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error


def _grouped(results: Sequence[CellResult]) -> dict[str, dict[int, CellResult]]:
    groups: dict[str, dict[int, CellResult]] = {}
    for result in results:
        groups.setdefault(result.variant, {})[result.pair] = result
    return groups


def _quality(groups: Results) -> str:
    rows = []
    for variant, cells in groups.items():
        one = next(iter(cells.values()))
        plain = groups.get(_PLAIN.get(variant, ""), {})
        losses = [cell.held_out_loss for cell in cells.values()]
        bits = statistics.fmean(cell.bits_per_byte for cell in cells.values())
        other = next(iter(plain.values()), None)
        share = 0 if other is None else 1 - one.kv_bytes_per_token / other.kv_bytes_per_token
        rows.append(
            (
                variant,
                f"{one.parameters:,}",
                f"{one.kv_bytes_per_token:,}",
                f"{share:.1%}" if share else "",
                f"{_mean_and_spread(losses)} ({len(losses)})",
                f"{bits:.3f}",
                _against(cells, plain),
            )
        )
    head = ("variant", "parameters", "KV bytes per token", "saved")
    more = ("held-out loss (runs)", "bits per byte", "against its plain form")
    order = {name: place for place, name in enumerate(["mha", "gqa", "mla"])}
    rows.sort(key=lambda row: (order.get(_PLAIN.get(row[0], row[0]), 9), row[0] in _PLAIN))
    return _table((*head, *more), rows)


def _optimisers(results: Sequence[CellResult]) -> str:
    best: dict[str, CellResult] = {}
    for result in results:
        if result.variant not in best or result.held_out_loss < best[result.variant].held_out_loss:
            best[result.variant] = result
    every = _table(
        ("run", "rate", "held-out loss", "seconds a step"),
        [
            (r.variant, f"{_rate(r):g}", f"{r.held_out_loss:.4f}", f"{r.step_s:.3f}")
            for r in sorted(results, key=lambda r: (r.variant, _rate(r)))
        ],
    )
    if _BASELINE not in best:
        return every
    target = best[_BASELINE].curve[-1][1]
    step_s = _least_step_s(results)
    rows = []
    for variant, result in best.items():
        needed = steps_to(result.curve, target)
        last = result.curve[-1][0]
        slower = step_s[_optimiser(result)] / step_s[_optimiser(best[_BASELINE])]
        rows.append(
            (
                variant,
                f"{_rate(result):g}",
                f"{result.held_out_loss:.4f}",
                f"not in {last}" if needed is None else f"{needed:.0f} of {last}",
                "" if needed is None else f"{last / needed:.2f}",
                "" if needed is None else f"{last / needed / slower:.2f}",
            )
        )
    head = ("best of its rates", "rate", "held-out loss", f"steps to the loss of {_BASELINE}")
    return _table((*head, "fewer steps by", "less time by"), rows) + "\n" + every


def _least_step_s(results: Sequence[CellResult]) -> dict[str, float]:
    """Return each optimiser's seconds a step: the least of its runs, since other load only adds.

    Schedules and rates take no time.
    """
    least: dict[str, float] = {}
    for result in results:
        name = _optimiser(result)
        least[name] = min(result.step_s, least.get(name, math.inf))
    return least


def _optimiser(result: CellResult) -> str:
    return str(result.cell["settings"]["optimiser"]["name"])


def _uptraining(groups: Results, baseline: Results) -> str:
    references = [baseline.get(name, {}) for name in ("mha", "skipv1")]
    rows = []
    for variant, cells in groups.items():
        points = [[(0, c.before_loss), *c.curve] for c in cells.values()]
        shares = [
            f"{statistics.fmean(loss for _, loss in column):.4f}"
            for column in zip(*points, strict=False)
        ]
        rows.append((variant, *shares[:4], *(_against(cells, other) for other in references)))
    shares_head = ("start", "5 %", "10 %", "15 %")
    return _table(("way", *shares_head, "against mha", "against skipv1 from scratch"), rows)


def _against(cells: Mapping[int, CellResult], plain: Mapping[int, CellResult]) -> str:
    """Return the difference of two variants' losses, as text, over the pairs that both have."""
    common = sorted(cells.keys() & plain.keys())
    if not common:
        return ""
    mean, error, resolved = paired_difference(
        [cells[pair].held_out_loss for pair in common],
        [plain[pair].held_out_loss for pair in common],
    )
    if math.isinf(error):
        return f"{mean:+.4f} (one pair)"
    return f"{mean:+.4f} ± {error:.4f}{'' if resolved else ', unresolved'}"


def _mean_and_spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


def _rate(result: CellResult) -> float:
    return float(result.cell["settings"]["optimiser"]["lr"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
