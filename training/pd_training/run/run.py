"""A training run in a folder; it can be interrupted at any step and resumed.

OUT/run.json       settings, data and start; a resumed run must agree with it
OUT/metrics.csv    one row a step; OUT/loss.png draws it
OUT/checkpoints/   the newest two
OUT/model/         the trained model, when the run is complete
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pd_core.checkpoints.checkpoint import read_json
from pd_core.errors import ConfigError
from pd_core.files.atomic import clear_leftovers, is_leftover, new_folder, replace_text
from pd_training.corpus.token_store import TokenStore
from pd_training.model.model_directory import TrainingDirectory, write_training_model
from pd_training.recipe.settings import RunSettings
from pd_training.run.checkpoint import RunCheckpoints
from pd_training.run.evaluation import evaluate
from pd_training.run.metrics_log import MetricsLog, MetricsRow
from pd_training.run.processes import Processes
from pd_training.run.trainer import StepFacts, Trainer

__all__ = ["RunOutcome", "TrainingRun"]

# These change what is written and when, but not the training itself.
_FREE_TO_CHANGE = frozenset({"checkpoint_every", "evaluate_every", "evaluate_tokens", "save_dtype"})


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How `execute` ended.

    Attributes:
        step: number of steps done.
        model: the finished model's folder; None when the run was interrupted.
    """

    step: int
    model: Path | None


class TrainingRun:
    """One run, started or resumed by `execute`.

    Args:
        directory: the run's folder.
        start: the model to begin with, and its tokenizer.
        store: the corpus; its tokenizer must be the model's.
        settings: the run's settings.
        processes: this process and its peers.
        resume: go on from the newest checkpoint.

    Raises:
        ConfigError: the folder holds another run, or there is nothing to resume.
    """

    def __init__(
        self,
        directory: Path,
        start: TrainingDirectory,
        store: TokenStore,
        settings: RunSettings,
        processes: Processes,
        *,
        resume: bool = False,
    ) -> None:
        if start.tokenizer != store.tokenizer:
            raise ConfigError(
                "the corpus was prepared with another tokenizer than the model's; prepare it "
                "again with the model's tokenizer.json"
            )
        self._directory = directory
        self._start = start
        self._store = store
        self._settings = settings
        self._processes = processes
        self._checkpoints = RunCheckpoints(directory / "checkpoints")
        identity = _identity(start, store, settings)
        checkpoint = self._find_checkpoint(identity, resume)
        self._trainer = Trainer(start.model, store, settings, processes)
        self._done, self._elapsed_before_s = 0, 0.0
        if checkpoint is not None:
            notes = self._checkpoints.restore(checkpoint, self._trainer)
            self._done = int(notes["step"])
            self._elapsed_before_s = float(notes["elapsed_s"])
        processes.wait()  # until all have checked the folder, before the first one writes
        if processes.first:
            self._prepare_folder(identity)

    def execute(
        self,
        on_step: Callable[[StepFacts], None] = lambda facts: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RunOutcome:
        """Train to the end, or until `should_stop` returns true after a step; then save.

        Raises:
            ConfigError: a file cannot be written; the last checkpoint stays intact.
            EngineError: the run diverged.
        """
        log = MetricsLog(self._directory, self._done) if self._processes.first else None
        began_s = time.perf_counter() - self._elapsed_before_s
        saved = self._done if self._checkpoints.latest() else -1
        for index in range(self._done, self._settings.steps):
            facts = self._trainer.step(index)
            self._done = facts.step
            stop = self._processes.any(should_stop())
            if log is not None:
                self._record(log, facts, time.perf_counter() - began_s)
                if stop or self._due(self._settings.checkpoint_every):
                    self._save(log, time.perf_counter() - began_s)
                    saved = self._done
            on_step(facts)
            if stop and self._done < self._settings.steps:
                return RunOutcome(self._done, None)
        model = self._directory / "model"
        if log is not None:
            if saved != self._done:
                self._save(log, time.perf_counter() - began_s)
            self._write_model(model)
        return RunOutcome(self._done, model)

    def _due(self, every: int) -> bool:
        return bool(every) and self._done % every == 0

    def _record(self, log: MetricsLog, facts: StepFacts, elapsed_s: float) -> None:
        held_out = None
        last = self._done == self._settings.steps
        enough = len(self._store.held_out.tokens) > self._settings.context_tokens
        if enough and (last or self._due(self._settings.evaluate_every)):
            held_out = evaluate(
                self._trainer.model,
                self._store.held_out,
                context_tokens=self._settings.context_tokens,
                max_tokens=self._settings.evaluate_tokens,
                dtype=self._settings.dtype,
                device=self._processes.device,
            ).loss
        log.add(
            MetricsRow(
                step=facts.step,
                tokens=facts.step * self._settings.tokens_per_step,
                loss=facts.loss,
                held_out_loss=held_out,
                lr=facts.lr,
                gradient_l2=facts.gradient_l2,
                gradient_l1_ratio=facts.gradient_l1_ratio,
                elapsed_s=elapsed_s,
            )
        )

    def _save(self, log: MetricsLog, elapsed_s: float) -> None:
        self._checkpoints.save(
            self._trainer,
            tokenizer=self._start.tokenizer,
            eos_token_ids=self._start.eos_token_ids,
            companions=self._start.companions,
            notes=self._notes() | {"elapsed_s": elapsed_s},
        )
        log.draw()

    def _notes(self) -> dict[str, Any]:
        tokens, before = self._done * self._settings.tokens_per_step, self._start.trained_tokens
        return {
            "step": self._done,
            # Unknown stays unknown: this run's tokens alone would be taken for the total.
            "trained_tokens": None if before is None else before + tokens,
            "settings": asdict(self._settings),
            "data": self._store.digest,
        }

    def _write_model(self, place: Path) -> None:
        with new_folder(place) as folder:
            write_training_model(
                folder,
                self._trainer.model,
                tokenizer=self._start.tokenizer,
                eos_token_ids=self._start.eos_token_ids,
                companions=self._start.companions,
                dtype=getattr(torch, self._settings.save_dtype),
                notes=self._notes(),
            )

    def _find_checkpoint(self, identity: dict[str, Any], resume: bool) -> Path | None:
        """Return the checkpoint to resume from, or None for a fresh start."""
        record = self._directory / "run.json"
        if self._directory.exists() and not self._directory.is_dir():
            raise ConfigError(f"{self._directory} is not a folder; name another place")
        if (self._directory / "model").exists():
            raise ConfigError(
                f"the run in {self._directory} is complete; its model is {self._directory}/model"
            )
        if not record.exists():
            if resume:
                raise ConfigError(f"there is no run in {self._directory}; leave out --resume")
            if not self._is_empty():
                raise ConfigError(f"{self._directory} is not empty; name another place")
            return None
        if not resume:
            raise ConfigError(
                f"there is a run in {self._directory} already; go on with it by --resume, or name "
                "another place"
            )
        if changed := _differences(read_json(record), identity):
            raise ConfigError(
                f"the run in {self._directory} was started differently: {'; '.join(changed)}"
            )
        return self._checkpoints.latest()

    def _is_empty(self) -> bool:
        """Return whether the folder is empty, except for what a run killed at its start left."""
        folder = self._directory
        return not folder.exists() or all(map(is_leftover, folder.iterdir()))

    def _prepare_folder(self, identity: dict[str, Any]) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for folder in (self._directory, self._checkpoints.directory):
                clear_leftovers(folder)
        except OSError as error:
            raise ConfigError(f"{self._directory} cannot be written: {error.strerror}") from error
        replace_text(self._directory / "run.json", json.dumps(identity, indent=2) + "\n")


def _identity(start: TrainingDirectory, store: TokenStore, settings: RunSettings) -> dict[str, Any]:
    """Return what a resumed run must agree with, as it is after a round trip through JSON."""
    kept = {k: v for k, v in asdict(settings).items() if k not in _FREE_TO_CHANGE}
    facts = {"settings": kept, "config": asdict(start.model.config), "data": store.digest}
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return a text for every value that has changed."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))
        ]
    return [] if before == now else [f"{name} was {before!r}, is {now!r}"]
