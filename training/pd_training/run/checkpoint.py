"""Checkpoints of a run: model directories that also hold the optimiser's state.

OUT/checkpoints/step-00000200/    model.safetensors, config.json, tokenizer.json,
                                  optimiser.safetensors, training.json
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pd_core.checkpoints.checkpoint import Checkpoint, read_json
from pd_core.errors import ConfigError
from pd_core.files.atomic import new_folder
from pd_training.model.model_directory import TRAINING_FILE, write_training_model
from pd_training.optimise.optimisers import load_optimiser_state, optimiser_state
from pd_training.run.trainer import Trainer

__all__ = ["RunCheckpoints"]

_NAME = re.compile(r"step-(\d+)")
_KEPT = 2
_OPTIMISER = "optimiser.safetensors"


@dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoints of one run; the newest two are kept."""

    directory: Path

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        found = self._whole()
        return found[-1] if found else None

    def save(
        self,
        trainer: Trainer,
        *,
        tokenizer: str,
        eos_token_ids: tuple[int, ...],
        companions: Mapping[str, str],
        notes: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint, then remove older ones.

        Args:
            notes: content of training.json; must have "step".

        Raises:
            ConfigError: it cannot be written (disk full); earlier checkpoints stay intact.
        """
        place = self.directory / f"step-{notes['step']:08d}"
        with new_folder(place) as folder:
            write_training_model(
                folder,
                trainer.model,
                tokenizer=tokenizer,
                eos_token_ids=eos_token_ids,
                companions=companions,
                notes=notes,
            )
            state = optimiser_state(trainer.model, trainer.optimiser)
            tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
            save_file(tensors, folder / _OPTIMISER)
        for old in self._whole()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)  # not worth ending a run for
        return place

    def restore(self, checkpoint: Path, trainer: Trainer) -> dict[str, Any]:
        """Fill model and optimiser from a checkpoint; return its training.json.

        Raises:
            ConfigError: it is broken or belongs to another model.
        """
        config = trainer.model.config
        Checkpoint(checkpoint).load_into(
            trainer.model.state_dict(), tied_head=config.tie_word_embeddings
        )
        try:
            state = load_file(checkpoint / _OPTIMISER)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{checkpoint / _OPTIMISER} is missing or broken ({error}); remove {checkpoint} to "
                "go on from the checkpoint before it"
            ) from error
        load_optimiser_state(trainer.model, trainer.optimiser, state)
        return read_json(checkpoint / TRAINING_FILE)

    def _whole(self) -> list[Path]:
        """Return the complete checkpoints, sorted by step."""
        found = [path for path in self.directory.glob("step-*") if _NAME.fullmatch(path.name)]
        return sorted(found)
