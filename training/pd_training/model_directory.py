"""Training models as Hugging Face directories: config.json, model.safetensors, tokenizer.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.model_names import model_directory
from pd_core.models.checkpoint import Checkpoint, read_json
from pd_core.models.config import ModelConfig
from pd_core.tokenizer import Tokenizer
from pd_training.model import TrainingModel

__all__ = ["TRAINING_FILE", "TrainingDirectory", "read_training_model", "write_training_model"]

# How the weights came to be; tells uptraining how many tokens a model has seen.
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class TrainingDirectory:
    """A model directory opened for training.

    Attributes:
        model: float32, on the CPU.
        tokenizer: the content of tokenizer.json.
        eos_token_ids: as config.json gives them; may be empty.
        trained_tokens: tokens that it was trained on; None when nobody wrote that down.
    """

    model: TrainingModel
    tokenizer: str
    eos_token_ids: tuple[int, ...]
    trained_tokens: int | None


def write_training_model(
    directory: Path,
    model: TrainingModel,
    *,
    tokenizer: str,
    eos_token_ids: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of a Hugging Face directory into a folder that exists.

    Args:
        dtype: of the stored weights.
        notes: what training.json says; no file when None.

    Raises:
        OSError: the disk is full, say.
    """
    config = model.config.to_hf() | {"torch_dtype": str(dtype).removeprefix("torch.")}
    if eos_token_ids:
        config["eos_token_id"] = list(eos_token_ids)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    if notes is not None:
        text = json.dumps(dict(notes), indent=2) + "\n"
        (directory / TRAINING_FILE).write_text(text, encoding="utf-8")
    tensors: dict[str, Tensor] = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def read_training_model(
    directory: Path, *, max_context_tokens: int | None = None
) -> TrainingDirectory:
    """Open a Hugging Face directory for training.

    Args:
        directory: the checkpoint, or the shipped model's name.
        max_context_tokens: what the config shall declare instead of its own value.

    Raises:
        ModelError: a file is missing or broken, or the model is none that we run.
    """
    directory = model_directory(str(directory))
    raw = read_json(directory / "config.json")
    config = ModelConfig.from_hf(raw)
    if max_context_tokens is not None:
        config = replace(config, max_context_tokens=max_context_tokens)
    tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but the model only "
            f"{config.vocab_size}; they do not belong together"
        )
    model = TrainingModel(config)
    Checkpoint(directory).load_into(model.state_dict(), tied_head=config.tie_word_embeddings)
    eos = raw.get("eos_token_id")
    notes = read_json(directory / TRAINING_FILE) if (directory / TRAINING_FILE).exists() else {}
    trained = notes.get("trained_tokens")
    return TrainingDirectory(
        model=model,
        tokenizer=tokenizer.to_str(),
        eos_token_ids=tuple(eos if isinstance(eos, list) else [] if eos is None else [eos]),
        trained_tokens=trained if type(trained) is int else None,
    )
