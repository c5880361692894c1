"""A campaign: many runs that each differ in one thing, run cell by cell and never twice.

WORK/<cell>/            the run, which can be interrupted anywhere (see pd_training.run.run)
RESULTS/<cell>.json     what came out; a cell with a result is done
"""

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pd_core.checkpoints.checkpoint import read_json
from pd_core.errors import ConfigError
from pd_core.files.atomic import replaced
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache
from pd_training.corpus.token_store import TokenStore
from pd_training.model.conversion import convert_to_skip_v1
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import TrainingDirectory, read_training_model
from pd_training.model.output_fit import calibration_batches
from pd_training.recipe.settings import RunSettings
from pd_training.run.evaluation import evaluate
from pd_training.run.metrics_log import read_metrics
from pd_training.run.processes import Processes
from pd_training.run.run import TrainingRun
from pd_training.run.trainer import StepFacts

__all__ = ["Campaign", "Cell", "CellResult", "Uptrained", "read_result"]

_FIT_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Uptrained:
    """The start of a cell that continues from another cell's model.

    Attributes:
        cell: the other cell.
        init: how its model is first converted to a SkipV1Former; None: not at all.
        fit: whether the conversion fits the output projections.
    """

    cell: str
    init: str | None = None
    fit: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One run.

    Attributes:
        name: name of its files.
        variant: what it measures.
        pair: number of the repetition within a variant; cells of different variants with the same
            pair have the same data order and are compared.
        settings: the run's settings; the seed is that of weights and data order.
        start: a shape to train from scratch, or another cell's model to continue from.
    """

    name: str
    variant: str
    pair: int
    settings: RunSettings
    start: ModelConfig | Uptrained


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell, as stored in its file.

    Attributes:
        cell: name, variant, pair, settings and start.
        data: digest of the corpus.
        parameters: weights; tied ones count once.
        kv_bytes_per_token: bytes that a float32 cache allocates.
        held_out_loss: nats per token of the finished model over the whole held-out side.
        bits_per_byte: the same loss per byte of text.
        before_loss: held-out loss before the first step.
        curve: (step, held-out loss on a part of that side) during the run.
        step_s: the median step's seconds.
    """

    cell: dict[str, Any]
    data: str
    parameters: int
    kv_bytes_per_token: int
    held_out_loss: float
    bits_per_byte: float
    before_loss: float
    curve: list[tuple[int, float]]
    step_s: float

    @property
    def variant(self) -> str:
        """The cell's variant."""
        return str(self.cell["variant"])

    @property
    def pair(self) -> int:
        """The cell's pair."""
        return int(self.cell["pair"])


def read_result(file: Path) -> CellResult:
    """Read a cell's result.

    Raises:
        ConfigError: the file is not one.
    """
    content = read_json(file)
    try:
        return CellResult(**{**content, "curve": [(int(s), float(x)) for s, x in content["curve"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file} is not a cell's result ({error}); remove it to have the cell done again"
        ) from error


class Campaign:
    """Runs the cells that have no result yet.

    Args:
        cells: in order; a cell that continues from another comes after it.
        store: the corpus.
        work: the folder of the runs.
        results: the folder of the results.

    Raises:
        ConfigError: an existing result was made with different settings or data.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        store: TokenStore,
        work: Path,
        results: Path,
        processes: Processes,
    ) -> None:
        self._store, self._work, self._results = store, work, results
        self._processes = processes
        self.todo = [cell for cell in cells if not self._done(cell)]

    def execute(
        self,
        cell: Cell,
        on_step: Callable[[StepFacts], None] = lambda facts: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> CellResult | None:
        """Run a cell, or the rest of it; return None if `should_stop` ended it early."""
        folder = self._work / cell.name
        start = self._start(cell)
        before_loss = self._held_out(start.model, cell.settings)[0]
        if not (folder / "model").exists():
            resume = (folder / "run.json").exists()
            run = TrainingRun(
                folder, start, self._store, cell.settings, self._processes, resume=resume
            )
            if run.execute(on_step, should_stop).model is None:
                return None
        model = read_training_model(folder / "model").model
        loss, bits = self._held_out(model.to(self._processes.device), cell.settings)
        rows = read_metrics(folder / "metrics.csv")
        result = CellResult(
            cell=_plain(asdict(cell)),
            data=self._store.digest,
            parameters=model.num_parameters(),
            kv_bytes_per_token=_kv_bytes_per_token(model.config),
            held_out_loss=loss,
            bits_per_byte=bits,
            before_loss=before_loss,
            curve=[(r.step, r.held_out_loss) for r in rows if r.held_out_loss is not None],
            step_s=_median_step_s([r.elapsed_s for r in rows]),
        )
        self._write(self._file(cell), result)
        return result

    def _file(self, cell: Cell) -> Path:
        return self._results / f"{cell.name}.json"

    def _done(self, cell: Cell) -> bool:
        file = self._file(cell)
        if not file.exists():
            return False
        result = read_result(file)
        if _said(result.cell) != _said(_plain(asdict(cell))) or result.data != self._store.digest:
            raise ConfigError(
                f"{file} was made with other settings or another corpus; name another folder for "
                "results, or remove the file"
            )
        return True

    def _start(self, cell: Cell) -> TrainingDirectory:
        store, start = self._store, cell.start
        if isinstance(start, ModelConfig):
            model = TrainingModel(start, cell.settings.seed)
            return TrainingDirectory(model, store.tokenizer, (store.eos_token_id,), 0)
        source = self._work / start.cell / "model"
        if not source.is_dir():
            raise ConfigError(
                f"the cell {cell.name} goes on from {start.cell}, whose model is not in "
                f"{self._work}; run that campaign with the same --work first"
            )
        if start.init is None:
            return read_training_model(source)
        converted = self._work / f"{cell.name}.converted"
        if not converted.exists():
            settings = cell.settings
            batches = (
                calibration_batches(store, settings.context_tokens, _FIT_TOKENS)
                if start.fit
                else []
            )
            convert_to_skip_v1(
                source, converted, init=start.init, seed=settings.seed, calibration=batches
            )
        return read_training_model(converted)

    def _held_out(self, model: TrainingModel, settings: RunSettings) -> tuple[float, float]:
        found = evaluate(
            model.to(self._processes.device),
            self._store.held_out,
            context_tokens=settings.context_tokens,
            dtype=settings.dtype,
            device=self._processes.device,
        )
        return found.loss, found.bits_per_byte

    def _write(self, file: Path, result: CellResult) -> None:
        try:
            self._results.mkdir(parents=True, exist_ok=True)
            with replaced(file) as part:
                part.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror}") from error


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return a value as it is after a round trip through JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _said(value: Any) -> Any:
    """Leave out what is not set, so that a result from before a setting existed still counts."""
    if isinstance(value, dict):
        return {key: _said(part) for key, part in value.items() if part is not None}
    return value


def _kv_bytes_per_token(config: ModelConfig) -> int:
    """Return the bytes that a cache of one block allocates, divided by its tokens."""
    cpu = torch.device("cpu")
    cache = KVCache(config.layer_heads(), config.head_dim, 1, dtype=torch.float32, device=cpu)
    return cache.allocated_bytes // cache.capacity_tokens


def _median_step_s(elapsed_s: Sequence[float]) -> float:
    """Return the median time of a step; evaluations and pauses are rare outliers."""
    steps = [after - before for before, after in itertools.pairwise(elapsed_s)]
    return statistics.median([step for step in steps if step > 0] or [0.0])
