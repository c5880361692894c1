"""The log of a run: metrics.csv, one row a step, and the loss curve as loss.png."""

import csv
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.files.atomic import replace_text, replaced

__all__ = ["MetricsLog", "MetricsRow", "read_metrics"]

_COLUMNS = (
    *("step", "tokens", "loss", "held_out_loss", "lr"),
    *("gradient_l2", "gradient_l1_ratio", "elapsed_s"),
)


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """One step.

    Attributes:
        tokens: tokens seen so far by this run.
        held_out_loss: None if there was no evaluation after the step.
        elapsed_s: seconds of training so far, without interruptions.
    """

    step: int
    tokens: int
    loss: float
    held_out_loss: float | None
    lr: float
    gradient_l2: float
    gradient_l1_ratio: float
    elapsed_s: float


class MetricsLog:
    """metrics.csv and loss.png in a run's folder.

    Args:
        directory: an existing folder.
        resumed_step: later rows are dropped, since their steps are run again; 0: start afresh.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be read or written.
    """

    def __init__(self, directory: Path, resumed_step: int) -> None:
        if find_spec("matplotlib") is None:
            raise ConfigError("training draws its loss curve; install pd-device[train]")
        self._csv = directory / "metrics.csv"
        self._png = directory / "loss.png"
        self.rows = [row for row in read_metrics(self._csv) if row.step <= resumed_step]
        replace_text(self._csv, _lines([_COLUMNS, *map(_cells, self.rows)]))

    def add(self, row: MetricsRow) -> None:
        """Append a row; the file is complete after every step."""
        self.rows.append(row)
        try:
            with self._csv.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([_cells(row)]))
        except OSError as error:
            raise ConfigError(f"{self._csv} cannot be written: {error.strerror}") from error

    def draw(self) -> None:
        """Draw training and held-out loss over tokens."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([r.tokens for r in self.rows], [r.loss for r in self.rows], label="training")
        held = [(r.tokens, r.held_out_loss) for r in self.rows if r.held_out_loss is not None]
        if held:
            axes.plot([x for x, _ in held], [y for _, y in held], "o-", label="held out")
        axes.set_xlabel("tokens")
        axes.set_ylabel("loss (nats per token)")
        axes.grid(visible=True, alpha=0.3)
        if self.rows:
            axes.legend()
        try:
            with replaced(self._png) as part:
                FigureCanvasAgg(figure).print_png(str(part))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigError(f"{self._png} cannot be written: {error.strerror}") from error


def _lines(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_metrics(file: Path) -> list[MetricsRow]:
    """Read a metrics.csv; return no rows if there is no file.

    Raises:
        ConfigError: a line is not a row of this log.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    # The last line may be incomplete if the process was killed.
    whole = text[: text.rfind("\n") + 1].splitlines()
    lines = csv.DictReader(whole)
    try:
        return [_row(line) for line in lines]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{file}, line {lines.line_num}: not a row of this log ({error!r}); remove the line"
        ) from error


def _cells(row: MetricsRow) -> tuple[object, ...]:
    values = (getattr(row, column) for column in _COLUMNS)
    # repr gives the shortest text that reads back as the same float.
    return tuple("" if value is None else repr(value) for value in values)


def _row(line: dict[str, str]) -> MetricsRow:
    held = line["held_out_loss"]
    return MetricsRow(
        step=int(line["step"]),
        tokens=int(line["tokens"]),
        loss=float(line["loss"]),
        held_out_loss=float(held) if held else None,
        lr=float(line["lr"]),
        gradient_l2=float(line["gradient_l2"]),
        gradient_l1_ratio=float(line["gradient_l1_ratio"]),
        elapsed_s=float(line["elapsed_s"]),
    )
